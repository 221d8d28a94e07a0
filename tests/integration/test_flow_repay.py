"""Legs of a committed flow repay debt at an unmodified Aave v3, and heal the accounts that owe.

Committee, Snapshots, Escrow and Repay are the committed artefacts; the seal is that of a group of
one test key, and the committee verifies it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from coincurve import PrivateKey

from keeper import leaves
from keeper.contracts import artifact
from keeper.hashing import keccak
from keeper.merkle import merkle_proof, merkle_root
from keeper.units import ChainId
from keeper.venue.escrow import Flow, Leg, Terms
from keeper.venue.records import word
from tests.support.anvil import anvil_binary, chain_of
from tests.support.contracts import EPOCH, NETWORK, make_seal, members
from tests.support.policy_contracts import (
    MOST,
    RAY,
    Aave,
    Contract,
    Workshop,
    deploy_aave,
    list_reserve,
)

pytestmark = [pytest.mark.anvil, pytest.mark.npm]
__all__ = ["anvil_binary"]
CHAIN = ChainId(31779)
USD, ETHER, E8 = 10**6, 10**18, 10**8
COMMIT = 1
PRICE, THRESHOLD_BPS = 1_750, 8_250
GROUP = PrivateKey(keccak(b"dealer"))


@dataclass
class Market:
    """Aave with two people who owe dollars against ETH, and an escrow with a Repay beside it."""

    shop: Workshop
    aave: Aave
    usdc: Contract
    escrow: Contract
    repay: Contract
    debt: Contract
    view: int = 0

    @property
    def payer(self) -> str:
        return self.shop.people[6]

    async def health(self, user: str) -> int:
        data = await self.aave.pool.call("getUserAccountData", user)
        return int(data[5])

    async def index(self) -> int:
        """Return what one scaled unit of debt was worth when the pool last counted."""
        data = await self.aave.pool.call("getReserveData", self.usdc.address)
        return int(data[3])

    async def scaled(self, user: str) -> int:
        return int(await self.debt.call("scaledBalanceOf", user))

    async def committed(self, *parts: tuple[str, int]) -> Flow:
        """Lock a leg per (debtor, amount) into Repay, and bring the commit."""
        legs = [
            Leg(
                chain=CHAIN,
                escrow=self.escrow.raw,
                payer=bytes.fromhex(self.payer[2:]),
                token=self.usdc.raw,
                amount=amount,
                receiver=word(bytes.fromhex(debtor[2:])),
                vault=self.repay.raw,
            )
            for debtor, amount in parts
        ]
        block = await self.shop.anvil.rpc.call("eth_getBlockByNumber", ["latest", False])
        terms = Terms(EPOCH, self.view, 0, int(block["timestamp"], 16) + 3_600)
        flow = Flow.of(NETWORK, terms, legs)
        for at in range(len(legs)):
            await self.escrow.tx("prepare", *flow.entry(at), sender=self.payer)
        self.view += 1
        place = (NETWORK, EPOCH, CHAIN, self.escrow.raw)
        leaf = leaves.flow_outcome_leaf(*place, flow=flow.id, outcome=COMMIT, late=0)
        rows = (leaf, keccak(b"another decision"))
        seal = make_seal(GROUP, EPOCH, self.view, merkle_root(rows))
        await self.escrow.tx("settle", seal, merkle_proof(rows, 0), flow.id, COMMIT, 0)
        return flow

    async def pay(self, flow: Flow, at: int) -> int:
        """Have a stranger pay a leg; return the gas it took."""
        leg = flow.legs[at].struct
        receipt = await self.escrow.tx("pay", flow.id, leg, sender=self.shop.people[7])
        return int(receipt["gasUsed"], 16)


async def own(shop: Workshop, name: str, *args: object) -> Contract:
    made = artifact(name)
    return await shop.deploy(list(made.abi), made.bytecode.hex(), *args)


@asynccontextmanager
async def market(binary: Path, debts: dict[int, int]) -> AsyncIterator[Market]:
    """Two reserves, a lender, and a debt in dollars for each person named; then ETH falls."""
    async with chain_of(binary, CHAIN) as anvil:
        shop = Workshop(anvil)
        weth, usdc = await shop.token("WETH", 18), await shop.token("USDC", 6)
        aave, feed = await deploy_aave(shop), await shop.feed(2_000 * E8)
        await list_reserve(shop, aave, weth, 18, feed, (8_000, THRESHOLD_BPS, 10_500))
        await list_reserve(shop, aave, usdc, 6, await shop.feed(E8), (7_500, 8_000, 10_400))
        lender = shop.people[1]
        supplies = [(weth, shop.people[at], 10 * ETHER) for at in debts]
        for token, who, amount in ((usdc, lender, 10**6 * USD), *supplies):
            await token.tx("mint", amount, sender=who)
            await token.tx("approve", aave.pool.address, MOST, sender=who)
            await aave.pool.tx("supply", token.address, amount, who, 0, sender=who)
        for at, debt in debts.items():
            who = shop.people[at]
            await aave.pool.tx("borrow", usdc.address, debt, 2, 0, who, sender=who)
        await anvil.rpc.call("evm_increaseTime", [86_400])
        await feed.tx("updateAnswer", PRICE * E8)
        committee = await own(shop, "Committee", NETWORK, 10, 100)
        key = int.from_bytes(GROUP.public_key.format()[1:], "big")
        await committee.tx("genesis", EPOCH, key, keccak(b"config"), members())
        snapshots = await own(shop, "Snapshots", committee.address)
        escrow = await own(shop, "Escrow", snapshots.address, 1_000)
        repay = await own(shop, "Repay", aave.pool.address)
        reserve = await aave.pool.call("getReserveData", usdc.address)
        debt_token = Contract(shop, reserve[10], aave.parts["VariableDebtToken"].abi)
        made = Market(shop, aave, usdc, escrow, repay, debt_token)
        await usdc.tx("mint", 10**6 * USD, sender=made.payer)
        await usdc.tx("approve", escrow.address, MOST, sender=made.payer)
        yield made


def ray_mul(left: int, right: int) -> int:
    return (left * right + RAY // 2) // RAY


def ray_div(left: int, right: int) -> int:
    return (left * RAY + right // 2) // right


def health_of(debt: int) -> int:
    """Return the health of ten ETH against a debt in dollars, rounded as the pool rounds."""
    weighted = (10 * PRICE * E8 * THRESHOLD_BPS + 5_000) // 10_000
    owed = debt * E8 // USD
    return (weighted * ETHER + owed // 2) // owed


async def test_a_committed_flow_repays_at_aave(anvil_binary: Path) -> None:
    async with market(anvil_binary, {2: 15_000 * USD, 3: 14_900 * USD}) as made:
        ill, other = made.shop.people[2], made.shop.people[3]
        assert await made.health(ill) < ETHER
        assert await made.health(other) < ETHER
        flow = await made.committed((ill, 5_000 * USD), (other, 20_000 * USD))
        owed = await made.scaled(ill)
        assert await made.pay(flow, 0) < 600_000
        index = await made.index()
        left = ray_mul(owed - ray_div(5_000 * USD, index), index)
        assert 10_000 * USD < left < 10_010 * USD, "what was repaid, and a day's interest"
        assert await made.debt.call("balanceOf", ill) == left
        assert await made.health(ill) == health_of(left) > ETHER
        assert await made.usdc.call("balanceOf", ill) == 15_000 * USD, "only what was borrowed"
        owed = await made.scaled(other)
        await made.pay(flow, 1)
        debt = ray_mul(owed, await made.index())
        assert await made.scaled(other) == 0
        assert await made.health(other) == MOST
        assert await made.usdc.call("balanceOf", other) == 14_900 * USD + 20_000 * USD - debt
        await nothing_stays(made)
        await a_refused_leg_ends(made, ill)


async def a_refused_leg_ends(made: Market, user: str) -> None:
    """A paused reserve, and an account without debt: the address is paid instead."""
    before = await made.usdc.call("balanceOf", user)
    owed, free = await made.scaled(user), made.shop.people[4]
    flow = await made.committed((user, 1_000 * USD), (free, 70 * USD))
    await made.aave.configurator.tx("setReservePause", made.usdc.address, True)
    await made.pay(flow, 0)
    await made.aave.configurator.tx("setReservePause", made.usdc.address, False)
    await made.pay(flow, 1)
    assert await made.scaled(user) == owed
    assert await made.usdc.call("balanceOf", user) == before + 1_000 * USD
    assert await made.usdc.call("balanceOf", free) == 70 * USD
    await nothing_stays(made)


async def nothing_stays(made: Market) -> None:
    repay = made.repay.address
    assert await made.usdc.call("balanceOf", repay) == 0
    assert await made.usdc.call("allowance", repay, made.aave.pool.address) == 0
    assert await made.usdc.call("balanceOf", made.escrow.address) == 0
