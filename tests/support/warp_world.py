"""A warp route between two chains in memory, as its contracts behave, and what may go wrong there.

HOME  collateral: token.approve, router.transferRemote ─▶ Dispatch
AWAY  minted: mailbox.process(…, message) ─▶ ProcessId, ReceivedTransferRemote
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from eth_abi.abi import decode, encode

from keeper.chain.finality import Depth
from keeper.chain.port import Log
from keeper.chain.simulated import Frame, Reverted, SimulatedChain
from keeper.devnet.chains import mnemonic_key
from keeper.execute.fees import Offer
from keeper.execute.profit import TRANSFER
from keeper.execute.signer import Envelope, Signer
from keeper.hashing import keccak
from keeper.network import ChainSpec, NetworkSpec, Token
from keeper.route.bridges.hyperlane import DISPATCH, PROCESSED, RECEIVED, End, Hyperlane, word
from keeper.route.bridges.message import HyperlaneMessage, decode_hyperlane
from keeper.route.bridges.port import Timing
from keeper.units import ChainId, Wei, symbol

HOME, AWAY = ChainId(1), ChainId(2)
USDC = symbol("USDC")
ETHER = 10**18
VALIDATORS = (b"\x71" * 20, b"\x72" * 20)
STRANGER = Signer(mnemonic_key(7))
COIN = 7
"""What a transfer costs in wei."""


def _end(chain: ChainId, token: bytes) -> End:
    router, mailbox, hook, module = (keccak(bytes([chain, at]))[:20] for at in range(4))
    return End(chain, int(chain), router, mailbox, hook, module, token)


ENDS = {HOME: _end(HOME, b"\x0e" * 20), AWAY: _end(AWAY, b"")}


def _selector(text: str) -> bytes:
    return keccak(text.encode())[:4]


def _slot(*parts: bytes) -> int:
    return int.from_bytes(keccak(b"|".join(parts)), "big")


def _add(frame: Frame, token: bytes, owner: bytes, amount: int) -> None:
    place = token, _slot(b"balance", owner)
    left = frame.world.storage.get(place, 0) + amount
    if left < 0:
        raise Reverted(b"balance")
    frame.world.storage[place] = left


def _token(frame: Frame) -> bytes | None:
    """Answer as an ERC-20 of the called address."""
    call, storage = frame.call, frame.world.storage
    selector, body = call.data[:4], call.data[4:]
    if selector == _selector("balanceOf(address)"):
        return storage.get((frame.address, _slot(b"balance", body[12:32])), 0).to_bytes(32, "big")
    if selector == _selector("approve(address,uint256)"):
        place = frame.address, _slot(b"allowance", call.sender, body[12:32])
        storage[place] = int.from_bytes(body[32:64], "big")
        return (1).to_bytes(32, "big")
    return None


@dataclass
class WarpWorld:
    """Both chains, the route over them, and knobs.

    Args:
        fault: changes what the routers say of each other.
        divert: whom a transfer pays, whatever it says.
        unpaid: a delivery is logged by the router, and not made.
        sent: every message that was ever dispatched, forks included.
    """

    fault: bool = False
    divert: bytes = b""
    unpaid: bool = False
    sent: dict[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chains = {
            chain: SimulatedChain(
                chain,
                Depth(2),
                balances={STRANGER.address: ETHER},
                contracts=self._contracts(chain),
            )
            for chain in (HOME, AWAY)
        }
        self.route = Hyperlane(
            USDC, list(ENDS.values()), VALIDATORS, 2, verifier=keccak(b"us"),
            timing=Timing(20_000, 60_000),
        )  # fmt: skip
        specs = tuple(
            ChainSpec(chain, (), (Token(USDC, end.token or end.router, 6),))
            for chain, end in ENDS.items()
        )
        self.network = NetworkSpec(keccak(b"net"), 0, 500, HOME, specs)

    def fund(self, chain: ChainId, owner: bytes, amount: int, coin: int = ETHER) -> None:
        """Give tokens and coin at the present head."""
        end, world = ENDS[chain], self.chains[chain]._blocks[-1].world
        place = end.token or end.router, _slot(b"balance", owner)
        world.storage[place] = world.storage.get(place, 0) + amount
        world.balances[owner] = world.balances.get(owner, 0) + coin

    def held(self, chain: ChainId, owner: bytes) -> int:
        """Return the tokens of an owner at the newest block."""
        end, world = ENDS[chain], self.chains[chain]._blocks[-1].world
        return world.storage.get((end.token or end.router, _slot(b"balance", owner)), 0)

    def mine(self, blocks: int = 1) -> None:
        for chain in self.chains.values():
            chain.mine(blocks)

    # contracts

    def _contracts(self, chain: ChainId) -> dict[bytes, Callable[[Frame], bytes]]:
        end = ENDS[chain]
        made: dict[bytes, Callable[[Frame], bytes]] = {
            end.router: self._router(end), end.mailbox: self._mailbox(end), end.ism: _module,
        }  # fmt: skip
        if end.token:
            made[end.token] = lambda frame: _token(frame) or b""
        return made

    def _router(self, end: End) -> Callable[[Frame], bytes]:
        def run(frame: Frame) -> bytes:
            selector, body = frame.call.data[:4], frame.call.data[4:]
            if selector == _selector("quoteGasPayment(uint32)"):
                return COIN.to_bytes(32, "big")
            if selector == _selector("routers(uint32)"):
                there = ENDS[ChainId(int.from_bytes(body[:32], "big"))]
                return word(b"\x66" * 20 if self.fault else there.router)
            if selector == _selector("wrappedToken()"):
                return word(end.token)
            if selector == _selector("transferRemote(uint32,bytes32,uint256)"):
                return self._transfer(end, frame, *decode(["uint32", "bytes32", "uint256"], body))
            return _token(frame) or b""

        return run

    def _transfer(self, end: End, frame: Frame, to: int, recipient: bytes, amount: int) -> bytes:
        call, storage = frame.call, frame.world.storage
        if call.value < COIN:
            raise Reverted(b"fee")
        if end.token:
            place = end.token, _slot(b"allowance", call.sender, end.router)
            if storage.get(place, 0) < amount:
                raise Reverted(b"allowance")
            storage[place] = storage.get(place, 0) - amount
            _add(frame, end.token, end.router, amount)
        _add(frame, end.token or end.router, call.sender, -amount)
        nonce = storage.get((end.mailbox, 0), 0)
        storage[(end.mailbox, 0)] = nonce + 1
        there = ENDS[ChainId(to)]
        body = word(self.divert or recipient[12:]) + amount.to_bytes(32, "big")
        message = HyperlaneMessage(
            nonce, end.domain, word(end.router), to, word(there.router), body
        )
        raw = message.encode()
        self.sent[message.id] = raw
        topics = (DISPATCH, word(end.router), to.to_bytes(32, "big"), word(there.router))
        frame.logs.append((end.mailbox, topics, encode(["bytes"], [raw])))
        return message.id

    def _mailbox(self, end: End) -> Callable[[Frame], bytes]:
        def run(frame: Frame) -> bytes:
            selector, body = frame.call.data[:4], frame.call.data[4:]
            if selector == _selector("recipientIsm(address)"):
                return word(end.ism)
            if selector == _selector("delivered(bytes32)"):
                done = frame.world.storage.get((end.mailbox, _slot(b"done", body[:32])), 0)
                return done.to_bytes(32, "big")
            if selector == _selector("process(bytes,bytes)"):
                _, raw = decode(["bytes", "bytes"], body)
                self._process(end, frame, raw)
            return b""

        return run

    def _process(self, end: End, frame: Frame, raw: bytes) -> None:
        message = decode_hyperlane(raw)
        place = end.mailbox, _slot(b"done", message.id)
        if frame.world.storage.get(place):
            raise Reverted(b"delivered")
        frame.world.storage[place] = 1
        recipient, amount = message.body[12:32], int.from_bytes(message.body[32:64], "big")
        frame.logs.append((end.mailbox, (PROCESSED, message.id), b""))
        if not self.unpaid:
            if end.token:
                _add(frame, end.token, end.router, -amount)
            token = end.token or end.router
            _add(frame, token, recipient, amount)
            topics = (TRANSFER, bytes(32), word(recipient))
            frame.logs.append((token, topics, amount.to_bytes(32, "big")))
        topics = (RECEIVED, message.origin.to_bytes(32, "big"), word(recipient))
        frame.logs.append((end.router, topics, amount.to_bytes(32, "big")))

    # others

    async def dispatched(self, chain: ChainId) -> list[Log]:
        """Return what was sent from a chain, on its present branch."""
        port = self.chains[chain]
        head = await port.head()
        return list(await port.history([ENDS[chain].mailbox], port._blocks[0].header.ref.number,
                                       head.ref, [DISPATCH]))  # fmt: skip

    async def deliver(self) -> int:
        """Let a stranger bring what was sent and is final; return how many messages."""
        count = 0
        for origin in ENDS:
            port = self.chains[origin]
            final = len(port._blocks) - 1 - 2
            for log in await self.dispatched(origin):
                if log.block.number > final:
                    continue
                raw = decode(["bytes"], log.data)[0]
                end = ENDS[ChainId(decode_hyperlane(raw).destination)]
                data = _selector("process(bytes,bytes)") + encode(["bytes", "bytes"], [b"", raw])
                there = self.chains[end.chain]
                nonce = await there.nonce(STRANGER.address)
                offer = Offer(Wei(10**9), Wei(10**10))
                envelope = Envelope(end.chain, nonce, end.mailbox, data, 0, 500_000, offer)
                await there.submit(STRANGER.sign(envelope)[1])
                there.mine()
                count += 1
        return count


def _module(frame: Frame) -> bytes:
    signers = ["0x" + one.hex() for one in VALIDATORS]
    return encode(["address[]", "uint8"], [signers, 2])
