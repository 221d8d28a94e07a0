"""When a block counts as final: a rule per chain, chosen by the operator for its risk.

Tag       what the chain's own consensus calls `finalized`: proof-of-stake Ethereum, OP-style
Depth(n)  n blocks on top: chains without a finality gadget; a bet, not a proof
Anchored  what a light client proved; the endpoint's word counts for nothing
"""

from collections.abc import Callable
from dataclasses import dataclass

from keeper.chain.port import Header


@dataclass(frozen=True, slots=True)
class Tag:
    """Final is what the endpoints' quorum calls `finalized`."""


@dataclass(frozen=True, slots=True)
class Depth:
    """Final is the block this many below the head."""

    blocks: int

    def __post_init__(self) -> None:
        if self.blocks < 0:
            raise ValueError(f"depth {self.blocks} is negative")


@dataclass(frozen=True, slots=True)
class Anchored:
    """Final is what `anchor` returns: the newest header a light client has proven, if any."""

    anchor: Callable[[], Header | None]


FinalityRule = Tag | Depth | Anchored
