"""An EVM chain over several JSON-RPC endpoints that need not be trusted one by one.

    heads        a quorum agrees on one block hash; `following.py` makes events of them
    headers      prove themselves: the fields hash to the hash that was asked for
    state        at that hash, by EIP-1898; proven (`proof`) or by quorum (`calls`, `logs`)
    broadcast    to everybody

Subscriptions only wake the follower. A quorum on "latest" would fail whenever heads differ, so a
hash is agreed first and everything else is read at it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import trio

from keeper.chain import codec, mpt, receipts
from keeper.chain.endpoints import Endpoints
from keeper.chain.finality import Anchored, Depth, FinalityRule, Tag
from keeper.chain.following import Follower
from keeper.chain.http import HttpRpc
from keeper.chain.mux import MuxRpc, is_mux
from keeper.chain.port import (
    AccountProof,
    BlockRef,
    Call,
    Emit,
    Fees,
    Header,
    Level,
    Log,
    Receipt,
    Simulation,
)
from keeper.chain.rpc import Rpc, RpcError
from keeper.chain.tracker import WINDOW
from keeper.errors import RemoteFault
from keeper.hashing import keccak
from keeper.reasons import Reason
from keeper.units import BlockNumber, ChainId, Wei

T = TypeVar("T")

_TAGS = {Level.UNSAFE: "latest", Level.SAFE: "safe", Level.FINAL: "finalized"}
_LOG_SPAN = 1_000
"""Blocks in one log query: public providers refuse more."""
_KNOWN = (
    "already known",
    "already imported",
    "alreadyknown",
    "known transaction",
    "already exists",
)
_FEE_BLOCKS = 5


def connect(url: str) -> Rpc:
    """Return the transport for an address: http(s), ws(s), or a socket path."""
    return MuxRpc(url) if is_mux(url) else HttpRpc(url)


class EvmChain:
    """One EVM chain, seen by one keeper.

    Args:
        chain: the id that every endpoint must have.
        endpoints: addresses or transports.
        finality: when a block counts as final.
        quorum: endpoints that must agree; a majority by default.
        poll_s: how often to look when no subscription wakes us.
        stall_s: without a new block for so long, the chain counts as stalled.
        attempt_s: how long one endpoint may take for one answer.
        prove_logs: rebuild the receipts trie of every block read, so that `logs` believes no
            endpoint at all; for chains whose receipts are encoded as Ethereum's.
    """

    def __init__(
        self,
        chain: ChainId,
        endpoints: Sequence[str | Rpc],
        finality: FinalityRule | None = None,
        *,
        quorum: int | None = None,
        poll_s: float = 0.5,
        stall_s: float = 30.0,
        attempt_s: float = 2.0,
        window: int = WINDOW,
        prove_logs: bool = False,
    ) -> None:
        rpcs = [connect(each) if isinstance(each, str) else each for each in endpoints]
        self.id = chain
        self.endpoints = Endpoints(rpcs, quorum=quorum, attempt_s=attempt_s)
        self.finality: FinalityRule = finality or Tag()
        self._follower = Follower(
            chain, self, self.finality, window=window, poll_s=poll_s, stall_s=stall_s
        )
        self._prove_logs = prove_logs

    # following -------------------------------------------------------------------------------

    async def run(self, emit: Emit) -> None:
        """Follow the chain until cancelled; return only after a DeepReorg beyond the window."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.endpoints.run)
                for each in self.endpoints.health:
                    if isinstance(each.rpc, MuxRpc):
                        nursery.start_soon(each.rpc.follow_heads, self.poke)
                await self._follower.run(emit)
                nursery.cancel_scope.cancel()
        finally:
            await self.aclose()

    def poke(self) -> None:
        """Look for a new head now."""
        self._follower.poke()

    # heads and headers -----------------------------------------------------------------------

    async def head(self, level: Level = Level.UNSAFE) -> Header:
        """Return the newest block that a quorum has.

        Raises:
            RemoteFault: NO_QUORUM.
        """
        if level is Level.FINAL and not isinstance(self.finality, Tag):
            return await self._ruled_final()
        tag, quorum = _TAGS[level], self.endpoints.quorum

        async def newest(rpc: Rpc) -> Header:
            return self._header(rpc, await rpc.call("eth_getBlockByNumber", [tag, False]))

        answers = await self.endpoints.poll(newest, enough=quorum)
        if len(answers) < quorum:
            down = [each.last_error for each in self.endpoints.health if each.failures]
            raise RemoteFault(
                "endpoints", Reason.NO_QUORUM, f"{len(answers)} of {quorum} answer: {down}"
            )
        heads = sorted((header for _, header in answers), key=lambda h: -h.ref.number)
        common = heads[quorum - 1]
        if sum(header.ref.hash == common.ref.hash for header in heads) >= quorum:
            return common
        number = common.ref.number
        return await self.endpoints.agree(lambda rpc: self._numbered(rpc, number))

    async def _ruled_final(self) -> Header:
        """Return the final block of a rule that is not the endpoints' own."""
        match self.finality:
            case Depth(blocks):
                head = await self.head()
                return (await self.by_number([max(head.ref.number - blocks, 0)]))[0]
            case Anchored(anchor):
                found = anchor()
                if found is None:
                    raise RemoteFault("light client", Reason.MISSING_BLOCK, "nothing is final yet")
                return found
            case Tag():
                raise AssertionError("a tag is asked of the endpoints")

    async def _numbered(self, rpc: Rpc, number: int) -> Header:
        return self._header(rpc, await rpc.call("eth_getBlockByNumber", [hex(number), False]))

    async def by_number(self, numbers: Sequence[int]) -> list[Header]:
        """Return the headers at these heights, as a quorum has them."""

        async def fetch(rpc: Rpc) -> tuple[Header, ...]:
            found = await rpc.batch([("eth_getBlockByNumber", [hex(n), False]) for n in numbers])
            return tuple([self._header(rpc, _raised(block)) for block in found])

        return list(await self.endpoints.agree(fetch))

    def _header(self, rpc: Rpc, block: Any) -> Header:
        return _decoded(rpc, lambda: codec.header(self.id, block))

    async def block(self, block_hash: bytes) -> Header | None:
        """Return the header with this hash; no endpoint can forge it."""

        async def fetch(rpc: Rpc) -> Header | None:
            found = await rpc.call("eth_getBlockByHash", [codec.to_hex(block_hash), False])
            if found is None:
                return None
            header = self._header(rpc, found)
            if header.ref.hash != block_hash:
                raise RemoteFault(rpc.name, Reason.ENDPOINT_LIED, "answered another block")
            return header

        return await self.endpoints.ask(fetch)

    # reads at a block ------------------------------------------------------------------------

    async def logs(
        self, addresses: Sequence[bytes], at: BlockRef, topics: Sequence[bytes] = ()
    ) -> tuple[Log, ...]:
        """Return the logs of one block: proven, or as a quorum has them."""
        if self._prove_logs:
            return await self._proven_logs(addresses, at, topics)
        query = {**codec.log_filter(addresses, topics), "blockHash": codec.to_hex(at.hash)}

        async def fetch(rpc: Rpc) -> tuple[Log, ...] | None:
            block, found = await rpc.batch(
                [
                    ("eth_getBlockByHash", [codec.to_hex(at.hash), False]),
                    ("eth_getLogs", [query]),
                ]
            )
            if _raised(block) is None:
                return None
            logs = _decoded(rpc, lambda: codec.logs(self.id, _raised(found)))
            if any(log.block != at for log in logs):
                raise RemoteFault(rpc.name, Reason.ENDPOINT_LIED, "logs of another block")
            return _wanted(rpc, logs, addresses, topics)

        logs = await self.endpoints.agree(fetch)
        if logs is None:
            raise RemoteFault("endpoints", Reason.MISSING_BLOCK, str(at))
        return logs

    async def _proven_logs(
        self, addresses: Sequence[bytes], at: BlockRef, topics: Sequence[bytes]
    ) -> tuple[Log, ...]:
        header = await self.block(at.hash)
        if header is None:
            raise RemoteFault("endpoints", Reason.MISSING_BLOCK, str(at))
        params = [codec.to_hex(at.hash)]

        async def fetch(rpc: Rpc) -> tuple[Log, ...]:
            found = await rpc.call("eth_getBlockReceipts", params)
            try:
                return receipts.proven_logs(header, found)
            except mpt.BadProof as error:
                raise RemoteFault(rpc.name, Reason.BAD_PROOF, str(error)) from error
            except ValueError as error:
                raise RemoteFault(rpc.name, Reason.MALFORMED, str(error)) from error

        logs = await self.endpoints.ask(fetch)
        wanted, first = frozenset(addresses), frozenset(topics)
        return tuple(
            [
                log
                for log in logs
                if log.address in wanted and (not first or first.intersection(log.topics[:1]))
            ]
        )

    async def history(
        self,
        addresses: Sequence[bytes],
        first: BlockNumber,
        last: BlockRef,
        topics: Sequence[bytes] = (),
    ) -> tuple[Log, ...]:
        """Return the logs of first..last in order; MISSING_BLOCK if `last` is not canonical."""
        logs: list[Log] = []
        for start, end in _spans(first, last.number):
            query = {
                **codec.log_filter(addresses, topics),
                "fromBlock": hex(start),
                "toBlock": hex(end),
            }

            async def fetch(rpc: Rpc, query: dict[str, Any] = query) -> tuple[Log, ...]:
                found = await rpc.call("eth_getLogs", [query])
                logs = _decoded(rpc, lambda: codec.logs(self.id, found))
                low, high = (codec.quantity(query[end]) for end in ("fromBlock", "toBlock"))
                if any(not low <= log.block.number <= high for log in logs):
                    raise RemoteFault(rpc.name, Reason.ENDPOINT_LIED, "logs of other blocks")
                return _wanted(rpc, logs, addresses, topics)

            logs += await self.endpoints.agree(fetch)
        await self._check_canonical(last)
        return tuple(logs)

    async def _check_canonical(self, at: BlockRef) -> None:
        found = await self.endpoints.agree(lambda rpc: self._numbered(rpc, at.number))
        if found.ref.hash != at.hash:
            raise RemoteFault("endpoints", Reason.MISSING_BLOCK, str(at))

    async def _at(
        self,
        at: BlockRef,
        action: Callable[[Rpc], Any],
        merge: Callable[[Any, Any], Any] = lambda first, _: first,
    ) -> Any:
        """Agree on a read at a block; an error of a block that is gone is MISSING_BLOCK."""
        try:
            return await self.endpoints.agree(action, merge)
        except RpcError as error:
            if error.reason is not Reason.REVERTED:
                await self._check_canonical(at)
            raise

    async def calls(self, calls: Sequence[Call], at: BlockRef) -> tuple[Simulation, ...]:
        """Run calls on the state of a block, as a quorum sees it."""
        requests = [("eth_call", [codec.message(call), codec.pin(at)]) for call in calls]

        async def fetch(rpc: Rpc) -> tuple[Simulation, ...]:
            found = await rpc.batch(requests)
            return tuple([_simulation(rpc, each) for each in found])

        answer: tuple[Simulation, ...] = await self._at(at, fetch)
        return answer

    async def call(self, to: bytes, data: bytes, at: BlockRef) -> bytes:
        """Return what a contract answers at a block; a revert raises REVERTED."""
        (found,) = await self.calls([Call(to, data)], at)
        if not found.ok:
            raise RemoteFault(codec.to_hex(to), Reason.REVERTED, found.reason)
        return found.output

    async def simulate(self, call: Call, at: BlockRef | None = None) -> Simulation:
        """Run a would-be transaction and estimate its gas."""
        ref = (await self.head()).ref if at is None else at
        params = [codec.message(call), codec.pin(ref)]

        async def fetch(rpc: Rpc) -> Simulation:
            output, gas = await rpc.batch([("eth_call", params), ("eth_estimateGas", params)])
            ran = _simulation(rpc, output)
            if not ran.ok or isinstance(gas, RpcError):
                return ran if not ran.ok else _simulation(rpc, gas)
            return Simulation(True, ran.output, _decoded(rpc, lambda: codec.count(gas)))

        answer: Simulation = await self._at(ref, fetch, _dearer)
        return answer

    async def proof(self, address: bytes, slots: Sequence[int], at: Header) -> AccountProof:
        """Return an account with slots, proven against the header's state root."""
        params = [codec.to_hex(address), [f"0x{slot:064x}" for slot in slots], codec.pin(at.ref)]

        async def fetch(rpc: Rpc) -> AccountProof:
            found = await rpc.call("eth_getProof", params)
            try:
                return codec.account_proof(at, address, slots, found)
            except mpt.BadProof as error:
                raise RemoteFault(rpc.name, Reason.BAD_PROOF, str(error)) from error
            except ValueError as error:
                raise RemoteFault(rpc.name, Reason.MALFORMED, str(error)) from error

        return await self.endpoints.ask(fetch)

    async def nonce(self, account: bytes, at: BlockRef | None = None) -> int:
        """Return how many transactions of the account are mined."""
        ref = (await self.head()).ref if at is None else at
        params = [codec.to_hex(account), codec.pin(ref)]

        async def fetch(rpc: Rpc) -> int:
            found = await rpc.call("eth_getTransactionCount", params)
            return _decoded(rpc, lambda: codec.count(found))

        answer: int = await self._at(ref, fetch)
        return answer

    # transactions ----------------------------------------------------------------------------

    async def fees(self) -> Fees:
        """Return the next block's base fee and the usual tip: hints, each the endpoints' median.

        One of two or three endpoints can neither stop a lane by a price that no cap allows, nor
        make it offer nothing: of an even number, the lower median counts, and the agreed head's
        own base fee is below no offer (`fees.cautious`).
        """

        async def fetch(rpc: Rpc) -> Fees:
            found = await rpc.call("eth_feeHistory", [hex(_FEE_BLOCKS), "latest", [50]])

            def read() -> Fees:
                try:
                    tips = sorted(codec.quantity(row[0]) for row in found.get("reward") or [])
                    base = codec.quantity(found["baseFeePerGas"][-1])
                except (KeyError, IndexError, TypeError, AttributeError) as error:
                    raise ValueError(f"fee history lacks a field: {error}") from error
                return Fees(Wei(base), Wei(tips[len(tips) // 2] if tips else 0))

            return _decoded(rpc, read)

        answers = await self.endpoints.poll(fetch, enough=self.endpoints.quorum)
        if not answers:
            raise RemoteFault("endpoints", Reason.ENDPOINT_DOWN, "nobody tells the fees")
        middle = (len(answers) - 1) // 2
        bases, tips = (
            sorted(each) for each in zip(*[(f.base, f.tip) for _, f in answers], strict=True)
        )
        return Fees(bases[middle], tips[middle])

    async def submit(self, raw: bytes) -> bytes:
        """Broadcast a signed transaction to every endpoint and return its hash."""
        transaction = keccak(raw)
        answers = await self.endpoints.tell("eth_sendRawTransaction", [codec.to_hex(raw)])
        refusals: list[str] = []
        for answer in answers:
            if not isinstance(answer, RemoteFault):
                return transaction
            text = answer.detail.lower()
            if any(known in text for known in _KNOWN):
                return transaction
            if isinstance(answer, RpcError):
                refusals.append(answer.detail)
        if (await self.known([transaction]))[0]:
            return transaction
        if len(refusals) < len(self.endpoints.health):
            raise RemoteFault("endpoints", Reason.ENDPOINT_DOWN, f"broadcast: {answers}")
        raise RemoteFault("endpoints", Reason.TX_REFUSED, refusals[0])

    async def known(self, transactions: Sequence[bytes]) -> tuple[bool, ...]:
        """Return for each whether some endpoint has it, mined or not."""
        if not transactions:
            return ()
        requests = [("eth_getTransactionByHash", [codec.to_hex(each)]) for each in transactions]
        answers = await self.endpoints.poll(
            lambda rpc: rpc.batch(requests), enough=self.endpoints.quorum
        )
        if not answers:
            raise RemoteFault("endpoints", Reason.ENDPOINT_DOWN, "nobody answers")
        rows = [row for _, row in answers]
        return tuple([any(_exists(each) for each in column) for column in zip(*rows, strict=True)])

    async def receipts(self, transactions: Sequence[bytes]) -> tuple[Receipt | None, ...]:
        """Return the receipt of each as a quorum has them, or None."""
        if not transactions:
            return ()
        requests = [("eth_getTransactionReceipt", [codec.to_hex(each)]) for each in transactions]

        async def fetch(rpc: Rpc) -> tuple[Receipt | None, ...]:
            found = [_raised(each) for each in await rpc.batch(requests)]
            return tuple(
                [self._receipt(rpc, *pair) for pair in zip(transactions, found, strict=True)]
            )

        return await self.endpoints.agree(fetch)

    async def receipt(self, transaction: bytes) -> Receipt | None:
        """Return one receipt."""
        return (await self.receipts([transaction]))[0]

    def _receipt(self, rpc: Rpc, transaction: bytes, found: Any) -> Receipt | None:
        if found is None or (isinstance(found, dict) and found.get("blockHash") is None):
            return None
        receipt = _decoded(rpc, lambda: codec.receipt(self.id, found))
        if receipt.transaction != transaction:
            raise RemoteFault(rpc.name, Reason.ENDPOINT_LIED, "another transaction's receipt")
        final = self._follower.tracker.final_at(receipt.block.number)
        if final is not None and final.ref != receipt.block:
            raise RemoteFault(rpc.name, Reason.ENDPOINT_LIED, f"{receipt.block} is not final")
        return receipt

    async def aclose(self) -> None:
        """Close all connections."""
        await self.endpoints.aclose()


def _dearer(one: Simulation, other: Simulation) -> Simulation:
    """Return the one that needs more gas: too much is not paid, too little fails and is."""
    return max(one, other, key=lambda each: each.gas)


def _wanted(
    rpc: Rpc, logs: tuple[Log, ...], addresses: Sequence[bytes], topics: Sequence[bytes]
) -> tuple[Log, ...]:
    """Return the logs if all of them were asked for."""
    if any(
        log.address not in addresses or (topics and log.topics[:1] not in [(t,) for t in topics])
        for log in logs
    ):
        raise RemoteFault(rpc.name, Reason.ENDPOINT_LIED, "logs that nobody asked for")
    return logs


def _spans(first: int, last: int) -> Iterator[tuple[int, int]]:
    for start in range(first, last + 1, _LOG_SPAN):
        yield start, min(start + _LOG_SPAN - 1, last)


def _raised(found: Any) -> Any:
    if isinstance(found, RpcError):
        raise found
    return found


def _decoded(rpc: Rpc, read: Callable[[], T]) -> T:
    """Return what `read` returns; nonsense is the endpoint's fault."""
    try:
        return read()
    except ValueError as error:
        raise RemoteFault(rpc.name, Reason.MALFORMED, str(error)) from error


def _exists(found: Any) -> bool:
    return found is not None and not isinstance(found, RpcError)


def _simulation(rpc: Rpc, found: Any) -> Simulation:
    if not isinstance(found, RpcError):
        return Simulation(True, _decoded(rpc, lambda: codec.data(found)))
    if found.reason is not Reason.REVERTED:
        raise found
    shown = found.data if isinstance(found.data, str) and found.data.startswith("0x") else "0x"
    return Simulation(False, _decoded(rpc, lambda: codec.data(shown)), 0, found.message)
