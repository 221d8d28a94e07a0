"""A whole liquidation over two real chains: collateral on one, the position on the other.

Every bid, observation and transaction is really signed, and every decision carries a real threshold
signature of a quorum.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from keeper.compete.heads import contradicted
from keeper.contracts import encode_call
from keeper.devnet.wallet import Send
from keeper.errors import LocalError
from keeper.hashing import keccak
from keeper.observe.observation import SeenHead
from keeper.snapshot.decisions import Decision
from keeper.units import ChainId
from keeper.venue.book import house_account
from tests.support.two_chains import BOND, E8, ETH, HUB, USD, VENUE, TwoChains, two_chains

pytestmark = pytest.mark.anvil
OPENED, FALLEN = 2_000, 1_820
SIZE = 4 * E8


def ints(*values: object) -> list[int]:
    """Return values that are integers by the decision's own layout."""
    found = []
    for value in values:
        assert isinstance(value, int)
        found.append(value)
    return found


@asynccontextmanager
async def opened(binary: Path, keepers: int) -> AsyncIterator[tuple[TwoChains, bytes]]:
    """Yield two chains on which alice, with dollars on the hub only, holds 4 ETH at the venue."""
    async with two_chains(binary, keepers) as net:
        secret = net.indexes[VENUE].anvil.key(5)
        owner = net.wallet(VENUE, secret).address
        alice = net.network.account(owner)
        await net.deposit(HUB, alice, 1_000 * USD)
        await net.deposit(HUB, house_account(net.network, VENUE), 5_000 * USD)
        await net.transact(VENUE, "Perps", "request_credit", 0, 420 * USD, secret=secret)
        await net.view()
        await net.bring(net.only("Credit"))
        await net.transact(VENUE, "Perps", "increase", 0, ETH, SIZE, 0, secret=secret)
        assert (await net.view()).margins[alice].healthy
        yield net, alice


async def awarded(net: TwoChains, alice: bytes) -> Decision:
    """Let the price fall, and every keeper bid; return the award."""
    await net.set_price(FALLEN)
    assert not (await net.view()).margins[alice].healthy
    return await net.auction()


async def balance(net: TwoChains, account: bytes) -> int:
    return int(await net.ask(HUB, "Vault", "balance_of", account, net.token(HUB)))


@pytest.mark.parametrize("keepers", [4, 7, 16])
async def test_the_winner_liquidates_and_is_paid_on_the_other_chain(
    anvil_binary: Path, keepers: int
) -> None:
    async with opened(anvil_binary, keepers) as (net, alice):
        award = await awarded(net, alice)
        ranks = award.fields[6]
        assert isinstance(ranks, tuple)
        best = [one.address for one in reversed(net.keepers)]
        assert list(ranks) == best[: net.parameters.competition.ranks]
        size, price, start = ints(award.fields[4], award.fields[5], award.fields[7])
        await net.mine_to(VENUE, start)
        with pytest.raises(LocalError, match="reverted"):  # the same calldata, another sender
            await net.execute(award, ranks[1])
        done = await net.execute(award, ranks[0])
        with pytest.raises(LocalError, match="reverted"):
            await net.execute(award, ranks[0])
        purse = net.network.account(ranks[0])
        pot = await net.ask(VENUE, "Perps", "pot")
        assert await net.ask(VENUE, "Perps", "realised", pot) == price
        bonus = price + await net.ask(VENUE, "Perps", "realised", purse)
        snapshot = await net.view()
        assert net.competition.awards == ()
        assert snapshot.margins[alice].healthy
        (left,) = [leg for leg in snapshot.legs[alice] if leg.market == ETH and leg.size]
        assert left.size == SIZE - size
        before = await balance(net, alice)
        await net.settle()
        assert await balance(net, purse) == bonus - price
        assert await balance(net, alice) < before
        assert net.competition.no_shows == ()
        await told(net, done.transaction, done.gas_used)


async def told(net: TwoChains, transaction: str, gas_used: int) -> None:
    """Check what the event says the winner's transaction cost, for its refund."""
    rpc = net.indexes[VENUE].anvil.rpc
    receipt = await rpc.call("eth_getTransactionReceipt", [transaction])
    rows = [
        row["data"]
        for row in receipt["logs"]
        if row["address"] == "0x" + net.contract(VENUE, "Awards").hex() and len(row["data"]) > 300
    ]
    spent = int(rows[0][-64:], 16) // int(receipt["effectiveGasPrice"], 16)
    assert abs(spent - gas_used) < gas_used // 50


async def test_a_silent_winner_pays_half_to_who_stepped_in(anvil_binary: Path) -> None:
    async with opened(anvil_binary, 4) as (net, alice):
        award = await awarded(net, alice)
        ranks = award.fields[6]
        assert isinstance(ranks, tuple)
        start, exclusive, lock = ints(*award.fields[7:9], award.fields[12])
        await net.mine_to(VENUE, start + exclusive)
        with pytest.raises(LocalError, match="reverted"):
            await net.execute(award, ranks[0])  # too late
        await net.execute(award, ranks[1])
        await net.view()
        penalty = net.only("Penalty")
        assert penalty.fields[:4] == (award.fields[0], ranks[0], lock, ranks[1])
        await net.bring(penalty)
        amount, locked, _, no_shows, _ = await net.ask(HUB, "Bonds", "stake", ranks[0])
        assert (amount, locked, no_shows) == (BOND - lock, 0, 1)
        assert await net.ask(HUB, "Bonds", "claimable", ranks[1]) == lock // 2
        assert await net.ask(HUB, "Bonds", "insurance") == lock - lock // 2
        payee = keccak(b"payee")[:20]
        await net.transact(HUB, "Bonds", "claim", payee, secret=net.keeper(ranks[1]).secret)
        rpc = net.indexes[HUB].anvil.rpc
        assert int(await rpc.call("eth_getBalance", ["0x" + payee.hex(), "latest"]), 16) == (
            lock // 2
        )
        held = await rpc.call("eth_getBalance", ["0x" + net.contract(HUB, "Bonds").hex(), "latest"])
        assert int(held, 16) == 4 * BOND - lock // 2
        await net.view()
        assert net.competition.flying == ()
        assert net.competition.no_shows == ((ranks[0], 1),)


async def test_with_all_keepers_gone_an_ordinary_account_liquidates(anvil_binary: Path) -> None:
    async with opened(anvil_binary, 4) as (net, alice):
        passer_by = net.indexes[VENUE].anvil.key(7)
        purse = net.network.account(net.wallet(VENUE, passer_by).address)
        perps = net.contract(VENUE, "Perps")
        flag = Send(perps, encode_call("Perps", "flag", alice), gas=500_000)
        take = Send(perps, encode_call("Perps", "liquidate_public", alice, ETH, SIZE, purse))
        with pytest.raises(LocalError, match="reverted"):  # within its credit
            await net.send(VENUE, passer_by, flag)
        await net.set_price(FALLEN)
        (flagged,) = await net.send(VENUE, passer_by, flag)
        public = flagged.block + net.parameters.liquidation.public_after_blocks
        await net.mine_to(VENUE, public - 1)
        with pytest.raises(LocalError, match="reverted"):
            await net.send(VENUE, passer_by, take)
        await net.send(VENUE, passer_by, take)
        size, _, _ = await net.ask(VENUE, "Perps", "position", alice, ETH)
        assert size == 0
        assert await net.ask(VENUE, "Perps", "realised", purse) > 0


async def test_a_false_head_of_the_venue_takes_the_bond_on_the_hub(anvil_binary: Path) -> None:
    async with opened(anvil_binary, 4) as (net, _):
        liar, honest = net.keepers[0], net.keepers[1]

        def lie(head: SeenHead) -> SeenHead:
            return replace(head, hash=keccak(b"never")) if head.chain == VENUE else head

        net.lies[liar.address] = lie
        await net.view()

        def known(chain: int, number: int) -> bytes | None:
            return next((h for n, h in net.indexes[ChainId(chain)].heads if n == number), None)

        (found,) = contradicted(net.observed, known)
        assert net.committee.members[found.signed.signer].address == liar.address
        await net.send(
            VENUE,
            honest.secret,
            Send(
                net.contract(VENUE, "Committee"),
                encode_call("Committee", "accuse_head", *found.arguments()),
            ),
        )
        del net.lies[liar.address]
        await net.view()
        penalty = net.only("Penalty")
        assert penalty.fields[:4] == (keccak(b"never"), liar.address, BOND, bytes(20))
        await net.bring(penalty)
        amount, *_ = await net.ask(HUB, "Bonds", "stake", liar.address)
        assert amount == 0
        assert await net.ask(HUB, "Bonds", "insurance") == BOND
        assert await net.ask(HUB, "Bonds", "is_active", liar.address) is False
        assert await net.ask(HUB, "Bonds", "is_active", honest.address) is True
