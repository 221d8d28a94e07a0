"""Ranking, hedging, circuits and votes, on virtual time."""

from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from keeper.chain.endpoints import Endpoints
from keeper.chain.rpc import Request, Rpc, RpcError, down
from keeper.errors import ConfigError, RemoteFault
from keeper.reasons import Reason


class Fake:
    """An endpoint that answers `value` after `delay` seconds, or raises it."""

    def __init__(self, name: str, value: Any = 1, delay: float = 0.01) -> None:
        self.name, self.value, self.delay, self.asked = name, value, delay, 0

    async def run(self) -> None:
        await trio.sleep_forever()

    async def call(self, method: str, params: Sequence[Any] = ()) -> Any:
        self.asked += 1
        await trio.sleep(self.delay)
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    async def batch(self, requests: Sequence[Request]) -> list[Any]:
        return [await self.call(*request) for request in requests]

    async def aclose(self) -> None:
        self.value = down(self.name, "closed")


async def value(rpc: Rpc) -> Any:
    return await rpc.call("eth_x")


def reverted(name: str) -> RpcError:
    return RpcError(name, 3, "execution reverted")


async def test_the_quickest_is_asked_first(autojump_clock: trio.testing.MockClock) -> None:
    slow, quick = Fake("slow", delay=0.2), Fake("quick", delay=0.01)
    endpoints = Endpoints([slow, quick])
    for _ in range(5):
        await endpoints.poll(value)
    assert [each.rpc.name for each in endpoints.ranked()] == ["quick", "slow"]
    before = slow.asked
    assert await endpoints.call("eth_x") == 1
    assert await endpoints.batch([("eth_x", [])]) == [1]
    assert slow.asked == before


async def test_a_late_answer_is_hedged(autojump_clock: trio.testing.MockClock) -> None:
    stuck, spare = Fake("stuck", 1, delay=1.5), Fake("spare", 2)
    endpoints = Endpoints([stuck, spare])
    started = trio.current_time()
    assert await endpoints.ask(value) == 2
    assert trio.current_time() - started < 0.3
    assert stuck.asked == 1


async def test_a_dead_one_is_asked_last_until_it_recovers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    dead, alive = Fake("dead", down("dead", "refused"), delay=0), Fake("alive")
    endpoints = Endpoints([dead, alive], quorum=1)
    for _ in range(6):
        assert await endpoints.ask(value) == 1
    assert dead.asked <= 3
    assert endpoints.ranked()[0].rpc.name == "alive"
    await trio.sleep(6)
    dead.value = 1
    for _ in range(30):
        await endpoints.poll(value)
    assert endpoints.ranked()[0].rpc.name == "dead", "it is the quicker one"


async def test_all_down_says_so(autojump_clock: trio.testing.MockClock) -> None:
    endpoints = Endpoints([Fake("a", delay=9), Fake("b", down("b", "refused"))], attempt_s=1)
    with pytest.raises(RemoteFault) as caught:
        await endpoints.ask(value)
    assert caught.value.reason is Reason.ENDPOINT_DOWN
    with pytest.raises(RemoteFault) as caught:
        await endpoints.agree(value)
    assert caught.value.reason is Reason.NO_QUORUM
    assert await endpoints.poll(value) == []
    found = await endpoints.tell("eth_sendRawTransaction", ["0x"])
    assert all(isinstance(each, RemoteFault) for each in found)


async def test_a_revert_is_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    endpoints = Endpoints([Fake("a", reverted("a")), Fake("b", reverted("b"), delay=0.3)])
    for ask in (endpoints.ask, endpoints.agree):
        with pytest.raises(RemoteFault) as caught:
            await ask(value)
        assert caught.value.reason is Reason.REVERTED


async def test_votes(autojump_clock: trio.testing.MockClock) -> None:
    honest = [Fake("a", 7), Fake("b", 7, delay=0.05)]
    liar = Fake("liar", 8, delay=0)
    endpoints = Endpoints([*honest, liar])
    assert endpoints.quorum == 2
    assert await endpoints.agree(value) == 7
    assert [each.lies for each in endpoints.health] == [0, 0, 1]
    assert endpoints.ranked()[-1].rpc.name == "liar"
    honest[1].value = 9
    with pytest.raises(RemoteFault) as caught:
        await endpoints.agree(value)
    assert caught.value.reason is Reason.NO_QUORUM
    honest[1].value = reverted("b")
    with pytest.raises(RemoteFault) as caught:
        await endpoints.agree(value)
    assert caught.value.reason is Reason.NO_QUORUM


async def test_a_quorum_does_not_wait_for_the_last(
    autojump_clock: trio.testing.MockClock,
) -> None:
    endpoints = Endpoints([Fake("a", 7), Fake("b", 7), Fake("stuck", 7, delay=1.9)])
    started = trio.current_time()
    assert await endpoints.agree(value) == 7
    assert trio.current_time() - started < 0.1


def test_impossible_quorums_are_refused() -> None:
    with pytest.raises(ConfigError):
        Endpoints([])
    for quorum in (0, 3):
        with pytest.raises(ConfigError):
            Endpoints([Fake("a"), Fake("b")], quorum=quorum)
    assert [Endpoints([Fake("x")] * n).quorum for n in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]
