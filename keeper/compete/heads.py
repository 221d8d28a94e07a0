"""False heads: a member signed a final block that its chain never had, and loses its bond.

    observation in a final view ─▶ its head ≠ our final block of that number ─▶ evidence
    evidence ─▶ hub             Bonds.slash_head
             └▶ another chain  Committee.accuse_head ─▶ FalseHead(member, head)
    FalseHead seen final ─▶ Charge of all that the member has at stake ─▶ Penalty on the hub

The chain's own history judges, so this needs to trust nobody's word; and whoever only follows an
endpoint that lies is guilty like a liar: a keeper signs what it has checked. The whole of such a
penalty is insurance's, so nobody gains by accusing itself.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from keeper.compete.state import Charge
from keeper.hashing import leaf_hash, type_hash
from keeper.merkle import merkle_proof
from keeper.observe.observation import HEAD_TYPE, SeenHead, decode
from keeper.snapshot.decisions import Context
from keeper.units import ChainId
from keeper.venue.bonds import bonds, is_punished
from keeper.venue.records import address, rows
from p2p.types import SignedObservation

FALSE_HEAD = type_hash("FalseHead(address,bytes32,uint64)")

Known = Callable[[ChainId, int], bytes | None]
"""The hash of a final block that we follow ourselves, or None where we hold none."""


@dataclass(frozen=True, slots=True)
class FalseHead:
    """One false head and the signed observation that it is in."""

    signed: SignedObservation
    head: SeenHead
    proof: tuple[bytes, ...]

    def arguments(self) -> tuple[object, ...]:
        """Return the arguments of `Bonds.slash_head` and `Committee.accuse_head`."""
        one = self.signed
        roots = (one.heads_root, one.prices_root, one.rest_root)
        signature = (one.signature[:32], one.signature[32:])
        observation = (one.epoch, one.config, one.tick, *roots)
        return (observation, signature, self.head.number, self.head.hash, self.proof)


def contradicted(observations: Iterable[SignedObservation], known: Known) -> Iterator[FalseHead]:
    """Yield, for every observation with one, its first head that is not our chain's block.

    Args:
        observations: of a final view: their signatures are checked.
        known: our own final blocks.
    """
    for signed in observations:
        body = decode(signed.body)
        if body is None:
            continue
        for index, head in enumerate(body.heads):
            ours = known(head.chain, head.number)
            if ours is not None and ours != head.hash:
                yield FalseHead(signed, head, merkle_proof(_leaves(body.heads), index))
                break


def _leaves(heads: Iterable[SeenHead]) -> list[bytes]:
    types = ("uint64", "uint64", "bytes32")
    return [leaf_hash(HEAD_TYPE, types, (one.chain, one.number, one.hash)) for one in heads]


def accusations(context: Context, charges: Iterable[Charge]) -> list[Charge]:
    """Return the charges that proven false heads call for: one a keeper, all that it has.

    Args:
        context: the view's inputs.
        charges: those that are due or on their way.
    """
    hub = context.network.hub
    records = context.tables.get(hub)
    if records is None:
        return []
    spec = context.network.chain(hub)
    at_stake = {keeper: bond.amount for keeper, bond in bonds(spec, records).items()}
    found = sorted(set(_proven(context)))
    pending = {(one.keeper, one.task) for one in charges}
    busy = {keeper for keeper, head in found if (keeper, head) in pending}
    made = []
    for keeper, head in found:
        amount = at_stake.get(keeper, 0)
        if amount and keeper not in busy and not is_punished(spec, records, keeper, head):
            busy.add(keeper)
            made.append(Charge(head, keeper, amount, bytes(20)))
    return made


def _proven(context: Context) -> Iterator[tuple[bytes, bytes]]:
    """Yield (member, hash of the head) of every false head that a chain has confirmed."""
    for spec, records in context.seen_chains():
        for (member, head), _ in rows(records, spec.contract("Committee"), FALSE_HEAD, 2, 1):
            yield address(member), head
