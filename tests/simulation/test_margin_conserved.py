"""The clearing sum checked while the node runs: it holds, and every way to break it shows."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from keeper.chain.port import BlockRef
from keeper.errors import RemoteFault
from keeper.hashing import keccak
from keeper.metrics import Metrics
from keeper.node.conserved import Conservation
from keeper.reasons import Reason
from tests.support.clearing_world import ETH, HOUSE, INSURANCE, UNIT, USD, A, B, World, trader

ALICE = trader(1)


@dataclass
class Tokens:
    """A chain's token contracts, which count for themselves; `held` is changed by thieves."""

    world: World
    stolen: int = 0
    down: bool = False

    async def call(self, to: bytes, data: bytes, at: BlockRef) -> bytes:
        assert data[:4] == keccak(b"balanceOf(address)")[:4]
        assert self.world.chains[at.chain].heads[at.number][0] == at.hash
        if self.down:
            raise RemoteFault(str(at.chain), Reason.MISSING_BLOCK)
        held = self.world.moved.get((at.chain, to), 0)
        return max(0, held - self.stolen).to_bytes(32, "big")


def world() -> World:
    net = World()
    net.deposit(ALICE, A, 1_000 * USD)
    net.deposit(INSURANCE, A, 100 * USD)
    net.request_credit(ALICE, 300 * USD)
    for decision in net.view().decisions:
        net.bring(decision)
    net.increase(ALICE, 2 * UNIT)
    net.view()
    net.prices[ETH] = net.prices[ETH] * 99 // 100
    net.close(ALICE)
    net.view()
    return net


async def checked(net: World, **broken: object) -> tuple[tuple[str, ...], str]:
    metrics = Metrics()
    tokens = Tokens(net, **broken)  # type: ignore[arg-type]  # the fields of Tokens
    work = Conservation(net.setting.network, {A: tokens, B: tokens}, metrics)
    tables = {chain: model.table for chain, model in net.chains.items()}
    found = await work.check(net.snapshot, tables)
    return found, metrics.exposition().decode()


async def test_the_sum_holds_and_is_shown() -> None:
    net = world()
    for _ in range(6):  # the loss moves from the vault of the loser
        found, shown = await checked(net)
        assert found == ()
        assert "keeper_clearing_faults 0.0" in shown
        assert f"keeper_clearing_checked_view {net.snapshot.header.view}.0" in shown
        for decision in net.view().decisions:
            net.bring(decision)
        net.view()
    assert net.balance(HOUSE, A) > 0


BREAKS: list[tuple[Callable[[World], None], str]] = [
    (lambda net: net.chains[B].add_realised(ALICE, 1), "realised results sum to 1"),
    (
        lambda net: net.chains[A].set_balance(ALICE, net.token(A), 10**15),
        "the vault holds",
    ),
]


@pytest.mark.parametrize(("broken", "word"), BREAKS)
async def test_a_unit_out_of_nowhere_is_noticed(broken: Callable[[World], None], word: str) -> None:
    net = world()
    broken(net)
    net.view()
    found, shown = await checked(net)
    assert any(word in text for text in found)
    assert f"keeper_clearing_faults {len(found)}.0" in shown


async def test_missing_tokens_are_noticed_and_gifts_are_not() -> None:
    net = world()
    found, _ = await checked(net, stolen=1)
    assert ["the vault holds" in text for text in found] == [True]
    found, _ = await checked(net, stolen=-1)
    assert found == ()


async def test_a_silent_chain_is_counted_and_the_other_sums_are_checked() -> None:
    net = world()
    found, shown = await checked(net, down=True)
    assert found == ()
    assert 'keeper_clearing_unread_total{chain="31501"} 2.0' in shown
    net.chains[B].add_realised(ALICE, 1)
    net.view()
    found, _ = await checked(net, down=True)
    assert found
