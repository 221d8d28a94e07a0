"""An index is proven against the state, record by record, and no longer used once it is wrong."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from eth_abi.abi import encode

from keeper.chain.finality import Depth
from keeper.chain.port import Log as ChainLog
from keeper.chain.simulated import Frame, SimulatedChain
from keeper.chain.storage import MAX_SLOTS, vyper_slot
from keeper.errors import RemoteFault
from keeper.network import ChainSpec
from keeper.observe import audit
from keeper.observe.audit import Auditor
from keeper.observe.service import AUDIT_S, Watcher
from keeper.observe.table import EMPTY, Log, Table
from keeper.reasons import Reason
from keeper.units import ChainId, symbol
from keeper.venue.perps import POSITION, REALISED
from keeper.venue.records import word
from keeper.venue.vault import BALANCE
from tests.support.shared import ROOT

CHAIN = ChainId(7)
VAULT, PERPS = b"\xaa" * 20, b"\xbb" * 20
TOKEN, MARKET = b"\x70" * 20, symbol("ETH-USD")
SPEC = ChainSpec(CHAIN, (("Perps", PERPS), ("Vault", VAULT)))
ALICE, BOB = b"\x01" * 32, b"\x02" * 32
SIZE, QUOTE, FUNDING = -3 * 10**8, 9_000 * 10**6, -5

LOGS = [
    Log(VAULT, (BALANCE, ALICE, word(TOKEN)), encode(["uint256"], [500])),
    Log(VAULT, (BALANCE, BOB, word(TOKEN)), encode(["uint256"], [0])),
    Log(PERPS, (REALISED, ALICE), encode(["int256"], [-7])),
    Log(PERPS, (POSITION, ALICE, MARKET), encode(["int256"] * 3, [SIZE, QUOTE, FUNDING])),
]
STATE = {
    (VAULT, vyper_slot(audit.VAULT_BALANCES, ALICE, TOKEN)): 500,
    (PERPS, vyper_slot(audit.PERPS_PLACE, MARKET)): 1,
    (PERPS, vyper_slot(audit.PERPS_REALISED, ALICE)): 2**256 - 7,
    (PERPS, vyper_slot(audit.PERPS_HOLDINGS, ALICE, 0)): (
        (2**88 + SIZE) << 168 | QUOTE << 80 | (2**80 + FUNDING)
    ),
}


def chain_with(state: dict[tuple[bytes, int], int]) -> SimulatedChain:
    chain = SimulatedChain(CHAIN, Depth(1))
    chain._blocks[-1].world.storage.update(state)
    chain.mine(2)
    return chain


async def wrong(state: dict[tuple[bytes, int], int], table: Table) -> tuple[str, ...]:
    chain = chain_with(state)
    return await Auditor(SPEC, chain).check(table, await chain.head())


async def test_what_the_logs_say_is_what_the_state_holds() -> None:
    assert await wrong(STATE, EMPTY.apply(LOGS)) == ()


@pytest.mark.parametrize("slot", STATE)
async def test_every_kind_of_lie_is_found(slot: tuple[bytes, int]) -> None:
    found = await wrong({**STATE, slot: STATE[slot] ^ 2}, EMPTY.apply(LOGS))
    assert len(found) == 1
    assert "by proof" in found[0]


async def test_an_event_that_was_made_up_is_found() -> None:
    made_up = Log(VAULT, (BALANCE, BOB, word(TOKEN)), encode(["uint256"], [10**12]))
    (found,) = await wrong(STATE, EMPTY.apply([*LOGS, made_up]))
    assert BOB.hex() in found
    elsewhere = replace(LOGS[3], topics=(POSITION, BOB, symbol("MADE-UP")))
    (found,) = await wrong(STATE, EMPTY.apply([*LOGS, elsewhere]))
    assert BOB.hex() in found


async def test_the_whole_index_has_its_turn() -> None:
    accounts = [n.to_bytes(32, "big") for n in range(MAX_SLOTS + 20)]
    logs = [Log(VAULT, (BALANCE, each, word(TOKEN)), encode(["uint256"], [7])) for each in accounts]
    state = {(VAULT, vyper_slot(audit.VAULT_BALANCES, each, TOKEN)): 7 for each in accounts}
    state[VAULT, vyper_slot(audit.VAULT_BALANCES, accounts[-1], TOKEN)] = 6
    chain, table = chain_with(state), EMPTY.apply(logs)
    auditor, head = Auditor(SPEC, chain), await chain.head()
    assert [len(await auditor.check(table, head)) for _ in range(4)] == [0, 1, 0, 1]


def test_positions_are_those_of_the_compiler() -> None:
    from vyper.compiler import compile_from_file_input
    from vyper.compiler.input_bundle import FilesystemInputBundle

    def slot(contract: str, name: str) -> int:
        folder = Path(ROOT) / "keeper" / "contracts"
        bundle = FilesystemInputBundle([Path(ROOT)])
        with bundle.search_path(folder):
            source = bundle.load_file(folder / f"{contract}.vy")
        out = compile_from_file_input(source, input_bundle=bundle, output_formats=["layout"])
        return int(out["layout"]["storage_layout"][name]["slot"])

    assert slot("Vault", "balances") == audit.VAULT_BALANCES
    assert slot("Perps", "place") == audit.PERPS_PLACE
    assert slot("Perps", "holdings") == audit.PERPS_HOLDINGS
    assert slot("Perps", "realised") == audit.PERPS_REALISED


class Lying(SimulatedChain):
    """A chain whose endpoints agree on a deposit that never was."""

    lie: tuple[ChainLog, ...] = ()

    async def history(self, *_: object, **__: object) -> tuple[ChainLog, ...]:
        return self.lie


async def test_a_wrong_index_is_silent(autojump_clock: trio.testing.MockClock) -> None:
    def vault(frame: Frame) -> bytes:
        return b""

    chain = Lying(CHAIN, Depth(1), contracts={VAULT: vault})
    ref = chain.mine(3)
    made_up = Log(VAULT, (BALANCE, BOB, word(TOKEN)), encode(["uint256"], [10**12]))
    chain.lie = (ChainLog(ref, 0, bytes(32), made_up.address, made_up.topics, made_up.data),)
    watcher = Watcher(SPEC, chain)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run)
        while watcher.index.newest is None:
            await watcher.moved.wait()
        newest = watcher.index.newest
        assert watcher.index.recent()
        assert watcher.index.at(newest.number, newest.hash, newest.table.root) is newest.table
        chain.broken = RemoteFault("endpoints", Reason.NO_QUORUM)
        await trio.sleep(3 * AUDIT_S)
        assert watcher.index.recent(), "a proof that cannot be had disproves nothing"
        chain.broken = None
        await trio.sleep(2 * AUDIT_S)
        assert watcher.index.recent() == ()
        assert watcher.index.at(newest.number, newest.hash, newest.table.root) is None
        chain.mine()
        await trio.sleep(AUDIT_S)
        assert "not its state" in watcher.trouble, "a new block does not make it right"
        nursery.cancel_scope.cancel()
