"""The cut: one finalised block per chain that enough members saw.

    member 0   ── 7 ── 8 ── 9          8 is named by three and passed by all four;
    member 1   ── 7 ── 8               9 is named by one only:  the cut is 8
    member 2   ── 7 ── 8
    member 3   ──────────── 9

A block is eligible when at least f + 1 members name the same (number, hash, account root,
timestamp), so an honest one did, and at least a quorum report a height not below it, so a minority
cannot run ahead. The cut never goes back; where two blocks of one height are both eligible the
chain has split under us and its cut stays where it was.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from keeper.observe.observation import SeenHead
from keeper.snapshot.decisions import CutBlock, Observed
from keeper.units import ChainId


def choose_cut(
    chains: Sequence[ChainId],
    parent: Mapping[ChainId, CutBlock],
    observed: Sequence[Observed],
    *,
    faults: int,
    quorum: int,
) -> dict[ChainId, CutBlock]:
    """Return the block per chain; a chain nobody ever cut is absent."""
    cut: dict[ChainId, CutBlock] = {}
    for chain in chains:
        best = _choose(chain, parent.get(chain), observed, faults, quorum)
        if best is not None:
            cut[chain] = best
    return cut


def _choose(
    chain: ChainId,
    parent: CutBlock | None,
    observed: Sequence[Observed],
    faults: int,
    quorum: int,
) -> CutBlock | None:
    named: dict[SeenHead, int] = defaultdict(int)
    heights: list[int] = []
    for observation in observed:
        heads = [head for head in observation.body.heads if head.chain == chain]
        for head in heads:
            named[head] += 1
        if heads:
            heights.append(max(head.number for head in heads))
    floor = -1 if parent is None else parent.number
    eligible = [
        head
        for head, count in named.items()
        if count > faults
        and head.number > floor
        and sum(height >= head.number for height in heights) >= quorum
    ]
    if not eligible:
        return parent
    numbers = [head.number for head in eligible]
    if len(set(numbers)) != len(numbers):
        return parent
    best = max(eligible, key=lambda head: head.number)
    return CutBlock(chain, best.number, best.hash, best.account_root, best.timestamp)
