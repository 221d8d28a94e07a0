"""A node reduces its own position before others may liquidate it, once, and nobody else's."""

from pathlib import Path

import msgspec
import pytest
import trio

from keeper.clear.transfer import TransferRule
from keeper.contracts import encode_call
from keeper.desk.seat import Seat
from keeper.devnet.wallet import Send, Wallet
from keeper.drill.copies import copies_of
from keeper.drill.council import Council
from keeper.execute.intent import Lane, Mode
from keeper.execute.ledger import Ledger
from keeper.execute.service import Executor
from keeper.network import NetworkSpec
from keeper.node.market import market_view
from keeper.node.own import OwnWork
from keeper.parameters import Parameters
from keeper.snapshot.derive import Setting, Snapshot, genesis
from keeper.store import Store
from policies import api
from policies.child import PolicySpec
from policies.record import Decided, Entry
from tests.support.anvil import CACHE, anvil_binary, chain_of
from tests.support.policy_network import ETH, HUB, PRICE, USD, VENUE, contract, credit, deploy

pytestmark = [pytest.mark.anvil]
__all__ = ["anvil_binary"]
DEPOSIT, LEVERAGE = 10_000 * USD, 6


async def open_one(spec: NetworkSpec, deployer: Wallet, keeper: Wallet) -> bytes:
    """Deposit on the hub for a keeper and open a long at the venue; return its account."""
    hub, venue = spec.chain(HUB), spec.chain(VENUE)
    token, vault, perps = hub.tokens[0].address, contract(hub, "Vault"), contract(venue, "Perps")
    account, notional = spec.account(keeper.address), DEPOSIT * LEVERAGE
    await deployer.send(
        Send(token, encode_call("DevToken", "mint", deployer.address, 2 * DEPOSIT), gas=200_000),
        Send(token, encode_call("DevToken", "approve", vault, 2 * DEPOSIT), gas=200_000),
        Send(vault, encode_call("Vault", "deposit_for", account, token, DEPOSIT)),
    )
    size = notional * 10**10 // PRICE
    await keeper.send(
        Send(perps, encode_call("Perps", "request_credit", 0, notional), gas=500_000),
        credit(venue, account, notional),
        Send(perps, encode_call("Perps", "increase", 0, ETH, size, 0), gas=2_000_000),
    )
    return account


def setting_of(spec: NetworkSpec) -> Setting:
    parameters = Parameters.decode(spec.parameters)
    rules = (TransferRule(),)
    return Setting(spec, parameters, b"d" * 32, 1, b"c" * 32, (b"m" * 20,), 0, 1, rules)


async def test_an_own_position_is_reduced_once_and_before_it_is_ill(
    anvil_binary: Path, tmp_path: Path
) -> None:
    async with chain_of(anvil_binary, HUB) as hub, chain_of(anvil_binary, VENUE) as venue:
        anvils = {HUB: hub, VENUE: venue}
        spec, secret = await deploy(anvils), hub.key(5)
        account = await open_one(
            spec, Wallet(hub.rpc, HUB, hub.key(0)), Wallet(venue.rpc, VENUE, secret)
        )
        urls = {chain: one.url for chain, one in anvils.items()}
        async with copies_of(spec, urls, CACHE) as copies:
            await copies.hire(secret)
            setting = setting_of(spec)
            council = Council(copies, setting, genesis(setting))
            with trio.fail_after(60):
                await reduces(council, account, secret, tmp_path)


async def fallen(council: Council, account: bytes, below_ppm: int) -> Snapshot:
    """Let the price fall until an account's health is below."""
    price = PRICE
    while True:
        await council.copies.publish({ETH: price})
        await council.derive()
        if council.snapshot.margins[account].health_ppm < below_ppm:
            return council.snapshot
        price = price * 98 // 100


async def decides_on(view: int, entries: list[Entry]) -> bool:
    """Return once the policy has decided on a view."""
    while True:
        await trio.sleep(0.02)
        if any(isinstance(one, Decided) and one.view == view for one in entries):
            return True


async def reduces(council: Council, account: bytes, secret: bytes, home: Path) -> None:
    setting, copies = council.setting, council.copies.by_chain
    start, target = 1_400_000, 1_700_000
    config = {"accounts": ["0x" + account.hex()], "start_ppm": start, "target_ppm": target}
    policy = PolicySpec("deleverage", "policies.deleverage:Deleverage", config, budget_ms=5_000)
    store, chains = Store(":memory:"), {chain: copy.chain for chain, copy in copies.items()}
    keys = {(chain, Lane.URGENT): lambda: secret for chain in chains}
    ledger = Ledger(store)
    executor = Executor(ledger, chains, Mode.LIVE, keys, poll_s=0.02)
    owner = Wallet(copies[HUB].anvil.rpc, HUB, secret).address

    def show(snapshot: Snapshot) -> api.MarketView:
        return market_view(setting, snapshot, (), (), {}, 0, account)

    entries: list[Entry] = []
    seat = Seat("deleverage", "own", policy, home, store, entries.append)
    own = OwnWork(setting.network, owner, seat, executor, chains, show)
    before = await fallen(council, account, start)
    assert before.margins[account].healthy
    async with trio.open_nursery() as nursery:
        nursery.start_soon(executor.run)
        nursery.start_soon(own.run)
        own.on_final(before)
        while not own.reduced:
            own.on_final(before)  # the same state again and again asks for nothing new
            await copies[VENUE].anvil.mine()
            await trio.sleep(0.05)
        after = await council.derive()
        assert start < after.margins[account].health_ppm
        assert len(after.legs[account]) >= 1
        own.on_final(after)
        assert await decides_on(after.header.view, entries)
        assert store.read("SELECT count(*) FROM tx_task") == [(1,)], "one reduction, once"
        nursery.cancel_scope.cancel()
    size = {leg.market: leg.size for leg in before.legs[account] if leg.size and leg.chain == VENUE}
    left = {leg.market: leg.size for leg in after.legs[account] if leg.size and leg.chain == VENUE}
    assert 0 < left[ETH] < size[ETH]
    refuses_strangers(own, before, account)


def refuses_strangers(own: OwnWork, snapshot: Snapshot, account: bytes) -> None:
    """What a policy may not ask for, whatever it says."""
    venue = own._venues[VENUE]
    assert venue is not None
    step = api.PlanStep(
        "r", VENUE, "reduce", venue, (("size", api.Wide(1)),),
        (("account", account), ("market", ETH)),
    )  # fmt: skip
    change = msgspec.structs.replace
    assert not isinstance(own._checked(step, snapshot), str)
    bad = [
        (change(step, blobs=(("account", b"\x01" * 32), ("market", ETH))), "none of this keeper's"),
        (change(step, kind="open"), "is no reduction"),
        (change(step, venue=b"\x01" * 20), "is no reduction"),
        (change(step, numbers=(("size", api.Wide(10**30)),)), "a size of"),
        (change(step, numbers=(("size", api.Wide(-1)),)), "a size of"),
        (change(step, blobs=(("account", account), ("market", b"x" * 32))), "no such position"),
    ]
    for one, why in bad:
        found = own._checked(one, snapshot)
        assert isinstance(found, str)
        assert why in found
