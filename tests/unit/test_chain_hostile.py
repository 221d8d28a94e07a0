"""What an endpoint may send to harm us, and what becomes of it: its fault, never our end."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing

from keeper.chain import codec
from keeper.chain.evm import EvmChain
from keeper.chain.finality import Anchored, Depth
from keeper.chain.port import Call, ChainEvent, Fees, Level
from keeper.chain.rpc import Request, RpcError, down
from keeper.chain.tracker import Tracker, Wants
from keeper.errors import RemoteFault
from keeper.execute import fees
from keeper.hashing import keccak
from keeper.reasons import Reason
from keeper.units import BlockNumber, ChainId, Wei
from tests.support.light_client import execution_block

CHAIN = ChainId(7)
BLOCK = execution_block(5, b"\x04" * 32, 1_700_000_000)
OURS, STRANGER, TOPIC = b"\xaa" * 20, b"\xbb" * 20, b"\x07" * 32
ENDLESS = "0x" + "f" * 70_000


class Scripted:
    """An endpoint whose answers a test writes; silence is an answer that never comes."""

    def __init__(self, name: str, answers: dict[str, Any]) -> None:
        self.name, self.answers, self.delay = name, answers, 0.0
        self.asked, self.answered = list[str](), list[str]()

    async def run(self) -> None:
        await trio.sleep_forever()

    async def call(self, method: str, params: Sequence[Any] = ()) -> Any:
        self.asked.append(method)
        answer = self.answers.get(method)
        if answer == "silence":
            await trio.sleep_forever()
        await trio.sleep(self.delay)
        self.answered.append(method)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def batch(self, requests: Sequence[Request]) -> list[Any]:
        return [await self.call(*request) for request in requests]

    async def aclose(self) -> None:
        self.answers = {}


def chain_of(*endpoints: Scripted, **options: Any) -> EvmChain:
    return EvmChain(CHAIN, endpoints, options.pop("finality", Depth(1)), **options)


def numbered(number: int, parent: bytes) -> dict[str, Any]:
    return execution_block(number, parent, 1_700_000_000 + number)


# sizes -----------------------------------------------------------------------------------------


DEEP = """
import sys
import eth_account
from keeper.chain import rpc
from keeper.cli.main import LazyGroup
from keeper.errors import RemoteFault

assert sys.getrecursionlimit() > 10_000
LazyGroup().get_command(None, "tx")
for deep in (b"[" * 200_000, b'{"result":' * 100_000):
    try:
        rpc.decode("it", deep)
    except RemoteFault as fault:
        print(fault.reason.value)
"""


def test_json_that_is_nested_too_deeply_does_not_end_the_node() -> None:
    """In a process of its own: with the limit that py_ecc sets, it would not come back."""
    done = subprocess.run([sys.executable, "-c", DEEP], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["malformed"] * 2


@pytest.mark.parametrize("value", [ENDLESS, "0x1" + "0" * 64, "0x-1", "1", 1, None, [], "0x"])
def test_a_quantity_has_256_bits(value: Any) -> None:
    assert codec.quantity("0x" + "f" * 64) == 2**256 - 1
    with pytest.raises(ValueError, match=r".") as caught:
        codec.quantity(value)
    assert len(str(caught.value)) < 200, "nor does it flood the log"


@pytest.mark.parametrize("field", ["number", "timestamp", "gasLimit", "gasUsed"])
def test_a_header_that_hashes_well_may_still_be_impossible(field: str) -> None:
    block = {**BLOCK, field: hex(2**63)}
    block["hash"] = codec.to_hex(keccak(codec.header_rlp(block)))
    with pytest.raises(ValueError, match="too large"):
        codec.header(CHAIN, block)
    block[field] = hex(2**63 - 1)
    block["hash"] = codec.to_hex(keccak(codec.header_rlp(block)))
    codec.header(CHAIN, block)


def test_a_field_cannot_take_the_place_of_another() -> None:
    """The same RLP, read with another fork's names, would have another base fee."""
    london = {name: value for name, value in BLOCK.items() if name not in _LATER}
    block_hash = codec.to_hex(keccak(codec.header_rlp(london)))
    assert codec.header(CHAIN, {**london, "hash": block_hash}).base_fee == 7
    moved = {**london, "blobGasUsed": london["baseFeePerGas"], "hash": block_hash}
    del moved["baseFeePerGas"]
    with pytest.raises(ValueError, match="without an earlier"):
        codec.header(CHAIN, moved)


_LATER = ("withdrawalsRoot", "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot")


RECEIPT = {
    "transactionHash": "0x" + "aa" * 32,
    "blockNumber": "0x5",
    "blockHash": BLOCK["hash"],
    "status": "0x1",
    "gasUsed": "0x5208",
    "effectiveGasPrice": "0x7",
    "logs": [],
}


@pytest.mark.parametrize("field", ["blockNumber", "gasUsed", "effectiveGasPrice", "status"])
def test_a_receipt_that_no_database_can_hold_is_the_endpoints_fault(field: str) -> None:
    assert codec.receipt(CHAIN, RECEIPT).fee == 21_000 * 7
    with pytest.raises(ValueError, match=r"."):
        codec.receipt(CHAIN, {**RECEIPT, field: ENDLESS})


# links -----------------------------------------------------------------------------------------


def test_a_block_counts_on_from_its_parent() -> None:
    genesis = codec.header(CHAIN, numbered(5, bytes(32)))
    tracker = Tracker()
    tracker.offer(genesis)
    for number in (5, 7, 2**40):
        skipping = codec.header(CHAIN, numbered(number, genesis.ref.hash))
        with pytest.raises(RemoteFault) as caught:
            tracker.offer(skipping)
        assert caught.value.reason is Reason.MALFORMED
        assert tracker.head == genesis
    child = codec.header(CHAIN, numbered(6, genesis.ref.hash))
    grandchild = codec.header(CHAIN, numbered(9, child.ref.hash))
    assert tracker.offer(grandchild) == Wants(child.ref.hash)
    with pytest.raises(RemoteFault):
        tracker.offer(child)
    assert tracker.offer(child)
    assert tracker.head == child, "the honest branch is taken afterwards"


# time and price --------------------------------------------------------------------------------


def told(base: int, tip: int) -> dict[str, Any]:
    return {"eth_feeHistory": {"baseFeePerGas": [hex(base)], "reward": [[hex(tip)]]}}


@pytest.mark.parametrize("lie", [(10**30, 10**30), (0, 0)])
async def test_one_endpoint_does_not_make_the_price(
    lie: tuple[int, int], autojump_clock: trio.testing.MockClock
) -> None:
    honest = [Scripted(name, told(30, 2)) for name in ("a", "b")]
    chain = chain_of(*honest, Scripted("liar", told(*lie)))
    assert await chain.fees() == Fees(Wei(30), Wei(2))
    two = chain_of(honest[0], Scripted("liar", told(*lie)))
    assert await two.fees() == min(Fees(Wei(30), Wei(2)), Fees(*map(Wei, lie)), key=_base)
    assert fees.cautious(await two.fees(), Wei(29)).base >= 29, "the agreed head is no hint"


def _base(market: Fees) -> int:
    return market.base


async def test_of_two_estimates_the_higher_counts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What is not used is not paid; what is missing makes the transaction fail, and is paid."""

    def estimate(gas: int) -> dict[str, Any]:
        block = numbered(5, bytes(32))
        return {"eth_call": "0x", "eth_estimateGas": hex(gas), "eth_getBlockByNumber": block}

    for gases in ((50_000, 21_000), (21_000, 50_000)):
        chain = chain_of(*[Scripted(str(gas), estimate(gas)) for gas in gases])
        ran = await chain.simulate(Call(OURS))
        assert (ran.ok, ran.gas) == (True, 50_000)


async def test_a_silent_endpoint_costs_no_time(autojump_clock: trio.testing.MockClock) -> None:
    block = numbered(5, bytes(32))
    good = {"eth_getBlockByNumber": block, "eth_sendRawTransaction": "0x", **told(1, 1)}
    silent = Scripted("silent", dict.fromkeys(good, "silence"))
    chain = chain_of(Scripted("a", good), silent, Scripted("b", good), attempt_s=2.0)
    actions: list[Callable[[], Any]] = [
        chain.head,
        chain.fees,
        lambda: chain.submit(b"raw"),
        lambda: chain.known([bytes(32)]),
    ]
    for action in actions:
        started = trio.current_time()
        await action()
        assert trio.current_time() - started < 0.2
    for _ in range(4):
        await chain.head()
    started = trio.current_time()
    await chain.head()
    assert trio.current_time() == started, "once it is known to be silent, nobody waits for it"
    assert len(silent.asked) > 5, "but it is asked, and may come back"


async def test_a_broadcast_reaches_whoever_is_out_of_favour(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One that takes transactions and keeps them to itself must not be the only one to have it."""
    good = {"eth_sendRawTransaction": "0x", "eth_getBlockByNumber": numbered(5, bytes(32))}
    censor, slow = Scripted("censor", good), Scripted("slow", good)
    slow.delay = 0.04
    chain = chain_of(censor, slow, quorum=1)
    chain.endpoints.health[1].open_until = trio.current_time() + 60
    await chain.head()
    assert slow.answered == [], "a hint is not waited for"
    await chain.submit(b"raw")
    assert slow.answered == ["eth_sendRawTransaction"]


async def test_too_few_answers_are_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """The negative of the above: without a quorum nothing is decided early."""
    good = {"eth_getBlockByNumber": numbered(5, bytes(32))}
    silent = [Scripted(name, dict.fromkeys(good, "silence")) for name in ("b", "c")]
    chain = chain_of(Scripted("a", good), *silent, attempt_s=2.0)
    started = trio.current_time()
    with pytest.raises(RemoteFault) as caught:
        await chain.head()
    assert caught.value.reason is Reason.NO_QUORUM
    assert trio.current_time() - started == pytest.approx(2.0)


async def test_a_refusal_and_a_silence_are_no_refusal(
    autojump_clock: trio.testing.MockClock,
) -> None:
    refusing = {"eth_sendRawTransaction": RpcError("a", -32000, "nonce too low")}
    for other, reason in (
        ("silence", Reason.ENDPOINT_DOWN),
        (down("b", "refused"), Reason.ENDPOINT_DOWN),
        (refusing["eth_sendRawTransaction"], Reason.TX_REFUSED),
    ):
        chain = chain_of(Scripted("a", refusing), Scripted("b", {"eth_sendRawTransaction": other}))
        with pytest.raises(RemoteFault) as caught:
            await chain.submit(b"raw")
        assert caught.value.reason is reason


async def test_an_endpoint_that_cries_wolf_is_not_obeyed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    endpoint = Scripted("a", {"eth_getBlockByNumber": numbered(5, bytes(32))})
    chain = chain_of(endpoint)

    async def cry() -> None:
        while True:
            chain.poke()
            await trio.sleep(0.01)

    async def emit(event: ChainEvent) -> None: ...

    async with trio.open_nursery() as nursery:
        nursery.start_soon(chain.run, emit)
        nursery.start_soon(cry)
        await trio.sleep(1.0)
        asked = len(endpoint.asked)
        await trio.sleep(2.0)
        assert 15 < len(endpoint.asked) - asked < 25, "ten looks a second"
        nursery.cancel_scope.cancel()


# logs ------------------------------------------------------------------------------------------


def logged(**changes: Any) -> dict[str, Any]:
    entry = {
        "blockHash": BLOCK["hash"],
        "blockNumber": BLOCK["number"],
        "logIndex": "0x0",
        "transactionHash": "0x" + "aa" * 32,
        "address": codec.to_hex(OURS),
        "topics": [codec.to_hex(TOPIC)],
        "data": "0x",
    }
    return entry | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"address": codec.to_hex(STRANGER)},
        {"topics": ["0x" + "08" * 32]},
        {"topics": []},
        {"blockNumber": "0x6"},
        {"blockHash": "0x" + "09" * 32},
    ],
)
async def test_logs_that_nobody_asked_for_are_a_lie(changes: dict[str, Any]) -> None:
    endpoint = Scripted("a", {"eth_getBlockByHash": BLOCK, "eth_getBlockByNumber": BLOCK})
    chain, at = chain_of(endpoint), codec.header(CHAIN, BLOCK).ref
    endpoint.answers["eth_getLogs"] = [logged()]
    assert len(await chain.logs([OURS], at, [TOPIC])) == 1
    assert len(await chain.history([OURS], BlockNumber(1), at, [TOPIC])) == 1
    endpoint.answers["eth_getLogs"] = [logged(), logged(**changes)]
    with pytest.raises(RemoteFault):
        await chain.logs([OURS], at, [TOPIC])
    if "blockHash" not in changes:
        with pytest.raises(RemoteFault):
            await chain.history([OURS], BlockNumber(1), at, [TOPIC])


async def test_a_receipt_in_a_block_that_finality_excludes_is_a_lie() -> None:
    first = numbered(5, bytes(32))
    second = numbered(6, codec.data(first["hash"]))
    endpoint = Scripted("a", {"eth_getTransactionReceipt": {**RECEIPT, "blockHash": first["hash"]}})
    chain, transaction = chain_of(endpoint), codec.data(RECEIPT["transactionHash"])
    tracker = chain._follower.tracker
    for block in (first, second):
        tracker.offer(codec.header(CHAIN, block))
    forged = {**RECEIPT, "blockHash": "0x" + "0f" * 32}
    endpoint.answers["eth_getTransactionReceipt"] = forged
    assert await chain.receipt(transaction), "nothing is final: who knows"
    tracker.finalize(codec.header(CHAIN, first))
    with pytest.raises(RemoteFault):
        await chain.receipt(transaction)
    endpoint.answers["eth_getTransactionReceipt"] = {**RECEIPT, "blockHash": first["hash"]}
    assert await chain.receipt(transaction)
    endpoint.answers["eth_getTransactionReceipt"] = {**forged, "blockNumber": "0x6"}
    assert await chain.receipt(transaction), "nor is this height"


# finality --------------------------------------------------------------------------------------


async def test_what_a_light_client_proved_is_asked_of_nobody() -> None:
    final = codec.header(CHAIN, BLOCK)
    proven = [final]
    nobody = Scripted("nobody", {})
    chain = chain_of(nobody, finality=Anchored(lambda: proven[-1] if proven else None))
    assert await chain.head(Level.FINAL) == final
    proven.clear()
    with pytest.raises(RemoteFault) as caught:
        await chain.head(Level.FINAL)
    assert caught.value.reason is Reason.MISSING_BLOCK
    assert nobody.asked == []
