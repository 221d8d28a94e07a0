"""What a CCIP lane's contracts must say of themselves before anything is sent over it.

    origin        router ─▶ on-ramp ─▶ off-ramp there    resolver ─▶ verifier    not cursed
                  registry ─▶ pool ─▶ pool and token there
    destination   off-ramp ─▶ on-ramp, and one verifier: the resolver's, with our signers
                  registry ─▶ pool ─▶ pool and token of the origin    not cursed

Each fact is one read and what is right about the answer. Whoever owns a router, a ramp, a resolver
or a pool can change all of this in one transaction: a second on-ramp, signer, verifier version or
remote pool is another way to be paid out without having paid in, so each must be the only one.
Layouts: OnRamp, OffRamp, TokenPool, CommitteeVerifier and VersionedVerifierResolver 2.0.0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keeper.chain.port import Call
from keeper.route.bridges.ccip import cursed_read
from keeper.route.bridges.port import Read
from keeper.units import ChainId
from keeper.venue.abi import address, answers, calldata

LOCKS = "LockReleaseTokenPool 2.0.0"
MINTS = frozenset(
    f"{name} 2.0.0"
    for name in (
        *("BurnMintTokenPool", "BurnFromMintTokenPool", "BurnWithFromMintTokenPool"),
        "CrossChainPoolToken",
    )
)
"""Pools that pay out by their right to mint. All others hold funds in ways of their own."""
_ON_RAMP = "(uint64,address,uint32,address)"
_LANE_OUT = "(address,uint64,uint8,bool,uint16,uint16,uint32,address,address[],address[],bytes)"
"""Router, …, verifiers every message needs, verifiers by default, off-ramp."""
_OFF_RAMP = "(uint64,uint16,address,address,uint32)"
_LANE_IN = "(address,bool,bytes[],address[],address[])"
"""Router, enabled, on-ramps, verifiers by default, verifiers every message needs."""
MOST_ANSWER = 8192
"""Bytes of a sound answer, 200 signers included. Lists of bytes may point to the same bytes again
and again: a megabyte can be made to unpack to gigabytes."""
_ODD = "its contracts do not answer as CCIP 2.0's do"


@dataclass(frozen=True, slots=True)
class CcipEnd:
    """A token's end of CCIP on one chain.

    Args:
        chain: where; `selector` is its number in CCIP.
        router, on_ramp, off_ramp, registry, rmn: CCIP's contracts; of the RMN, the proxy.
        resolver: the verifier as ramps name it; `verifier` is the contract behind it.
        token, pool: what is moved, and who locks, burns, releases or mints it.
        lock_box: who holds what the pool locks, or empty where it mints and burns.
        first_block: from which a courier reads messages.
    """

    chain: ChainId
    selector: int
    router: bytes
    on_ramp: bytes
    off_ramp: bytes
    registry: bytes
    rmn: bytes
    resolver: bytes
    verifier: bytes
    token: bytes
    pool: bytes
    lock_box: bytes = b""
    first_block: int = 0


@dataclass(frozen=True, slots=True)
class Committee:
    """Who signs messages: any `threshold` of the signers, over a version tag of 4 bytes.

    Signers are sorted: a proof has them by rising address, and so do turns.
    """

    tag: bytes
    signers: tuple[bytes, ...]
    threshold: int


@dataclass(frozen=True, slots=True)
class Fact:
    """One read, and why the lane must not be used if the answer is not right."""

    read: Read
    kinds: tuple[str, ...]
    right: Callable[[tuple[Any, ...]], bool]
    fault: str

    def judge(self, answer: bytes) -> str:
        """Return the fault, or nothing."""
        if len(answer) > MOST_ANSWER:
            return _ODD
        try:
            told = answers(self.kinds, answer)
        except ValueError:
            return _ODD
        return "" if self.right(told) else self.fault


def word(address_: bytes) -> bytes:
    """Return an address of the source chain as messages and pools hold it: a word."""
    return address_.rjust(32, b"\0")


def facts(here: CcipEnd, there: CcipEnd, committee: Committee, decimals: int) -> tuple[Fact, ...]:
    """Return everything that must be so, what stops a lane first."""
    return (
        _uncursed(here, there),
        _uncursed(there, here),
        *_out(here, there),
        *_in(there, here, committee),
        *_pool(here, there, decimals),
        *_pool(there, here, decimals),
    )


def _uncursed(at: CcipEnd, far: CcipEnd) -> Fact:
    read = cursed_read(at.chain, at.rmn, far.selector)
    return Fact(read, ("bool",), lambda told: told == (False,), f"cursed on chain {at.chain}")


def _asks(at: CcipEnd, to: bytes, signature: str, *values: Any) -> Read:
    return Read(at.chain, Call(to, calldata(signature, *values)))


def _is(wanted: bytes) -> Callable[[tuple[Any, ...]], bool]:
    return lambda told: address(told[0]) == wanted


def _only(resolver: bytes, default: Any, mandated: Any) -> bool:
    """Return whether a resolver is the one verifier of a token's message."""
    needed, always = ([address(one) for one in named] for named in (default, mandated))
    return needed == [resolver] and always in ([], [resolver])


def _out(here: CcipEnd, there: CcipEnd) -> tuple[Fact, ...]:
    """Return what is so where messages leave."""

    def lane(told: tuple[Any, ...]) -> bool:
        router, *_, mandated, default, off_ramp = told[0]
        ends = address(router) == here.router and off_ramp == there.off_ramp
        return ends and _only(here.resolver, default, mandated)

    def fixed(told: tuple[Any, ...]) -> bool:
        selector, rmn, _, registry = told[0]
        named = (selector, address(rmn), address(registry))
        return named == (here.selector, here.rmn, here.registry)

    return (
        Fact(
            _asks(here, here.router, "getOnRamp(uint64)", there.selector),
            ("address",), _is(here.on_ramp), "its router uses another on-ramp",
        ),
        Fact(
            _asks(here, here.on_ramp, "getStaticConfig()"),
            (_ON_RAMP,), fixed, "its on-ramp has another chain, registry or RMN",
        ),
        Fact(
            _asks(here, here.on_ramp, "getDestChainConfig(uint64)", there.selector),
            (_LANE_OUT,), lane, "its on-ramp has another router, off-ramp or verifier",
        ),
        Fact(
            _asks(
                here, here.resolver, "getOutboundImplementation(uint64,bytes)", there.selector, b""
            ),
            ("address",), _is(here.verifier), "another verifier takes its messages",
        ),
    )  # fmt: skip


def _in(here: CcipEnd, there: CcipEnd, committee: Committee) -> tuple[Fact, ...]:
    """Return what is so where messages from `there` arrive."""

    def lane(told: tuple[Any, ...]) -> bool:
        router, enabled, on_ramps, default, mandated = told[0]
        ends = address(router) == here.router and tuple(on_ramps) == (word(there.on_ramp),)
        return enabled and ends and _only(here.resolver, default, mandated)

    def fixed(told: tuple[Any, ...]) -> bool:
        selector, _, rmn, registry, _ = told[0]
        named = (selector, address(rmn), address(registry))
        return named == (here.selector, here.rmn, here.registry)

    def versions(told: tuple[Any, ...]) -> bool:
        found = [(tag, address(verifier)) for tag, verifier in told[0]]
        return found == [(committee.tag, here.verifier)]

    def signed(told: tuple[Any, ...]) -> bool:
        signers, threshold = told
        known = tuple(sorted(map(address, signers))) == committee.signers
        return known and threshold == committee.threshold

    return (
        Fact(
            _asks(here, here.router, "isOffRamp(uint64,address)", there.selector, here.off_ramp),
            ("bool",), lambda told: told == (True,), "its router does not know the off-ramp",
        ),
        Fact(
            _asks(here, here.off_ramp, "getStaticConfig()"),
            (_OFF_RAMP,), fixed, "its off-ramp has another chain, registry or RMN",
        ),
        Fact(
            _asks(here, here.off_ramp, "getSourceChainConfig(uint64)", there.selector),
            (_LANE_IN,), lane, "its off-ramp is closed, or has another on-ramp or verifier",
        ),
        Fact(
            _asks(here, here.resolver, "getAllInboundImplementations()"),
            ("(bytes4,address)[]",), versions, "another verifier checks its messages",
        ),
        Fact(
            _asks(here, here.verifier, "getSignatureConfig(uint64)", there.selector),
            ("address[]", "uint8"), signed, "its verifier has other signers or another threshold",
        ),
    )  # fmt: skip


def _pool(at: CcipEnd, far: CcipEnd, decimals: int) -> tuple[Fact, ...]:
    """Return what is so of a token's pool on one chain, which the other end belongs to."""
    pool = at.pool
    kinds = {LOCKS} if at.lock_box else MINTS
    found = [
        Fact(
            _asks(at, at.registry, "getPool(address)", at.token),
            ("address",), _is(pool), "another pool serves its token",
        ),
        Fact(
            _asks(at, pool, "getRemoteToken(uint64)", far.selector),
            ("bytes",), lambda told: told == (word(far.token),), "its tokens are not each other's",
        ),
        Fact(
            _asks(at, pool, "getRemotePools(uint64)", far.selector),
            ("bytes[]",), lambda told: tuple(told[0]) == (word(far.pool),),
            "its pools do not name each other, and only each other",
        ),
        Fact(
            _asks(at, pool, "typeAndVersion()"),
            ("string",), lambda told: told[0] in kinds, "its pool is of another kind",
        ),
        Fact(
            _asks(at, pool, "getTokenDecimals()"),
            ("uint8",), lambda told: told == (decimals,), "its token has other decimals",
        ),
        Fact(
            _asks(at, pool, "getDynamicConfig()"),
            ("address", "address", "address"), _is(at.router), "its pool obeys another router",
        ),
        Fact(
            _asks(at, pool, "getAdvancedPoolHooks()"),
            ("address",), _is(bytes(20)), "its pool asks a contract that is not known",
        ),
    ]  # fmt: skip
    if at.lock_box:
        found.append(
            Fact(
                _asks(at, pool, "getLockBox()"),
                ("address",), _is(at.lock_box), "its pool locks elsewhere",
            )
        )  # fmt: skip
    return tuple(found)
