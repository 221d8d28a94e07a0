"""Whether an index made of logs says what the chain's state says: proven, a share at a time.

    table at a final block ─▶ records that are money ─▶ contract, slot, value
                                a share of them each time ─▶ state proof under that block's root
                                                               └▶ sentences about what differs

Endpoints can agree on logs that never were; none can forge a proof. What is made up, or an account
whose last event was hidden, is found when its turn comes; an account that is hidden altogether is
not, which is what proven logs are for. The positions are those the compiler gives our contracts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from keeper.chain.port import Chain, Header
from keeper.chain.storage import MAX_SLOTS, audit, vyper_slot
from keeper.network import ChainSpec
from keeper.venue.perps import POSITION, REALISED
from keeper.venue.port import Records
from keeper.venue.records import address, rows, signed, unsigned
from keeper.venue.vault import BALANCE

VAULT_BALANCES = 2
PERPS_PLACE, PERPS_HOLDINGS, PERPS_REALISED = 19, 23, 28
_WORD = 1 << 256


@dataclass(frozen=True, slots=True)
class Entry:
    """A record of the index and where the contract keeps it."""

    what: str
    contract: bytes
    slot: int
    value: int


@dataclass(slots=True)
class Auditor:
    """Goes round the records of one chain.

    Args:
        spec: which contracts.
        chain: who gives the proofs.
    """

    spec: ChainSpec
    chain: Chain
    _turn: int = 0
    _places: dict[bytes, int] = field(default_factory=dict)

    async def check(self, records: Records, at: Header) -> tuple[str, ...]:
        """Return what the next share of records has otherwise than the state at their block.

        Raises:
            RemoteFault: no endpoint gives a proof that holds.
        """
        await self._learn_places(records, at)
        share = list(islice(self._entries(records), self._turn, self._turn + MAX_SLOTS))
        self._turn = self._turn + len(share) if len(share) == MAX_SLOTS else 0
        wrong: list[str] = []
        for contract in sorted({entry.contract for entry in share}):
            entries = {entry.slot: entry for entry in share if entry.contract == contract}
            expected = {slot: entry.value for slot, entry in entries.items()}
            for found in await audit(self.chain, contract, expected, at):
                what = entries[found.slot].what
                wrong.append(f"{what} is {found.proven:#x} by proof, {found.expected:#x} by logs")
        return tuple(wrong)

    async def _learn_places(self, records: Records, at: Header) -> None:
        """Prove where the venue keeps each market; a place is given once and for all."""
        venue = self.spec.contract("Perps")
        held = {market for (_, market), _ in rows(records, venue, POSITION, 2, 3)}
        unknown = sorted(held - self._places.keys())[:MAX_SLOTS]
        if venue is not None and unknown:
            slots = [vyper_slot(PERPS_PLACE, market) for market in unknown]
            proof = await self.chain.proof(venue, slots, at)
            for market, (_, place) in zip(unknown, proof.slots, strict=True):
                self._places[market] = place

    def _entries(self, records: Records) -> Iterator[Entry]:
        vault, venue = self.spec.contract("Vault"), self.spec.contract("Perps")
        for (account, token), data in rows(records, vault, BALANCE, 2, 1):
            assert vault is not None
            slot = vyper_slot(VAULT_BALANCES, account, address(token))
            yield Entry(f"the balance of 0x{account.hex()}", vault, slot, unsigned(data, 0))
        for (account,), data in rows(records, venue, REALISED, 1, 1):
            assert venue is not None
            slot = vyper_slot(PERPS_REALISED, account)
            yield Entry(f"the total of 0x{account.hex()}", venue, slot, signed(data, 0) % _WORD)
        for (account, market), data in rows(records, venue, POSITION, 2, 3):
            assert venue is not None
            if market in self._places:  # one that the venue does not have is at place 0
                index = (self._places[market] - 1) % _WORD
                slot = vyper_slot(PERPS_HOLDINGS, account, index)
                yield Entry(f"the position of 0x{account.hex()}", venue, slot, _packed(data))


def _packed(data: bytes) -> int:
    """Return a position as the venue stores it: size, quote and funding in one word."""
    size, quote, funding = (signed(data, index) for index in range(3))
    return (size % 2**88) << 168 | (quote % 2**88) << 80 | funding % 2**80
