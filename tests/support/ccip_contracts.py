"""Unmodified CCIP 2.0 contracts on two local chains, and a token that keepers move between them.

    two anvils ─ Router, OnRamp, OffRamp, FeeQuoter, RMN, registry, CommitteeVerifier (3 of 4)
    USDC: locked in a box on the first chain (LockRelease), minted on the second (BurnMint)

The package is BUSL-1.1: fetched at test time, never committed. Contracts are set up as small as
they go.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eth_abi.abi import encode

from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.ecdsa import sign
from keeper.hashing import keccak
from keeper.keys import address_of
from keeper.route.bridges.ccip_facts import CcipEnd, Committee
from keeper.route.bridges.ccip_lane import Ccip
from keeper.route.bridges.port import Read, Terms, Timing, Transfer
from keeper.units import ChainId, symbol
from tests.support.anvil import chain_of
from tests.support.hyperlane_contracts import Site
from tests.support.policy_contracts import AAVE, ZERO, Contract, Workshop, package

CCIP = "@chainlink/contracts-ccip@2.0.0"
WETH = "artifacts/contracts/dependencies/weth/WETH9.sol/WETH9.json"
HOME, AWAY = ChainId(31_783), ChainId(31_784)
TAG = b"KEEP"
KEYS = tuple(keccak(f"signer {place}".encode()) for place in range(4))
THRESHOLD = 3
COMMITTEE = Committee(TAG, tuple(sorted(address_of(key) for key in KEYS)), THRESHOLD)
VERIFIER = keccak(b"the keepers")
USDC = symbol("USDC")
DECIMALS = 6
OPEN = (False, 0, 0)
"""A rate limit that does not count: (counts, size, tokens a second)."""
EVM_FAMILY = bytes.fromhex("2812d52c")


def selector(chain: ChainId) -> int:
    return 10**18 + chain


@cache
def artifact(name: str) -> tuple[list[Any], str]:
    folder = package(CCIP)
    abi = json.loads((folder / "abi" / "latest" / f"{name}.json").read_text())
    return abi, (folder / "bytecode" / "latest" / f"{name}.bin").read_text().strip()


@dataclass
class End:
    """One chain with CCIP's contracts."""

    site: Site
    parts: dict[str, Contract]

    @property
    def selector(self) -> int:
        return selector(self.site.chain.id)

    async def read(self, one: Read) -> bytes:
        (done,) = await self.site.chain.calls([one.call], (await self.site.chain.head()).ref)
        return done.output if done.ok else b""


async def _deploy(shop: Workshop, chain: ChainId) -> dict[str, Contract]:
    async def make(name: str, *args: Any) -> Contract:
        return await shop.deploy(*artifact(name), *args)

    parts = {"weth": await shop.make(AAVE, WETH), "link": await shop.token("LINK", 18)}
    parts["rmn"] = await make("rmn", [shop.me])
    proxy = parts["proxy"] = await make("rmn_proxy_contract", parts["rmn"].address)
    parts["router"] = await make("router", parts["weth"].address, proxy.address)
    registry = parts["registry"] = await make("token_admin_registry")
    link = parts["link"].address
    parts["fees"] = await make("fee_quoter", (2 * 10**20, link), [shop.me], [], [])
    dynamic = (shop.me, shop.me)
    parts["verifier"] = await make("committee_verifier", dynamic, ["ipfs://"], proxy.address, TAG)
    parts["resolver"] = await make("versioned_verifier_resolver")
    parts["executor"] = await make("executor", 10, (shop.me, bytes(4), False))
    number = selector(chain)
    parts["on"] = await make(
        "onramp",
        (number, proxy.address, 10_000_000, registry.address),
        (parts["fees"].address, False, shop.me),
    )
    ramp = (number, 5_000, proxy.address, registry.address, 12_000)
    parts["off"] = await make("offramp", ramp)
    parts["receiver"] = await make("maybe_revert_message_receiver", False)
    return parts


async def _join(here: End, there: End) -> None:
    """Open the lane from here to there, and take what comes from there."""
    mine, other = here.parts, there.selector
    limits = (True, 30_000, 3_000_000, 50_000, 16, EVM_FAMILY, 25, 90_000, 200_000, 10, 90)
    await mine["fees"].tx("applyDestChainConfigUpdates", [(other, limits)])
    prices = [(mine["link"].address, 15 * 10**18), (mine["weth"].address, 2_000 * 10**18)]
    await mine["fees"].tx("updatePrices", (prices, [(other, 10**12)]))
    router, resolver = mine["router"].address, mine["resolver"].address
    checks = (router, other, False, 10, 150_000, 6 + 64 * 4)
    await mine["verifier"].tx("applyRemoteChainConfigUpdates", [checks])
    signers = [here.site.shop.web3.to_checksum_address(address_of(key)) for key in KEYS]
    await mine["verifier"].tx("applySignatureConfigs", [], [(other, THRESHOLD, signers)])
    at = mine["verifier"].address
    await mine["resolver"].tx("applyInboundImplementationUpdates", [(TAG, at)])
    await mine["resolver"].tx("applyOutboundImplementationUpdates", [(other, at)])
    await mine["executor"].tx("applyDestChainUpdates", [], [(other, (5, True))])
    ramp: Any = (
        other, router, 20, False, 10, 25, 100_000, [resolver], [], mine["executor"].address,
        there.parts["off"].raw,
    )  # fmt: skip
    await mine["on"].tx("applyDestChainConfigUpdates", [ramp])
    from_there = [encode(["address"], [there.parts["on"].address])]
    source: Any = (router, other, True, from_there, [resolver], [])
    await mine["off"].tx("applySourceChainConfigUpdates", [source])
    await mine["router"].tx(
        "applyRampUpdates",
        [(other, mine["on"].address)],
        [],
        [(other, mine["off"].address)],
    )


@asynccontextmanager
async def joined(binary: Path) -> AsyncIterator[tuple[End, End]]:
    async with AsyncExitStack() as stack:
        ends = []
        for chain in (HOME, AWAY):
            anvil = await stack.enter_async_context(chain_of(binary, chain))
            port = EvmChain(chain, [anvil.url], Depth(1), attempt_s=10)
            stack.push_async_callback(port.aclose)
            shop = Workshop(anvil)
            ends.append(End(Site(shop, port, {}), await _deploy(shop, chain)))
        await _join(ends[0], ends[1])
        await _join(ends[1], ends[0])
        yield ends[0], ends[1]


@dataclass
class Pooled:
    """Two ends and a token with a pool on each."""

    ends: dict[ChainId, End]
    route: Ccip

    async def answers(self, reads: Sequence[Read]) -> list[bytes]:
        """Return the answers at the newest blocks."""
        return [await self.ends[read.chain].read(read) for read in reads]

    async def terms(self, place: int) -> Terms:
        """Return the terms of the first or the second crossing."""
        crossing = self.route.crossings()[place]
        return self.route.quoted(crossing, await self.answers(self.route.quote_reads(crossing)))

    async def limit(self, chain: ChainId, out: Any = OPEN, into: Any = OPEN) -> None:
        """Set the rate limits of a pool with the other chain."""
        end, (other,) = self.ends[chain], [at for at in self.ends if at != chain]
        await end.parts["pool"].tx("setRateLimitConfig", [(selector(other), False, out, into)])

    async def balance(self, chain: ChainId, of: str) -> int:
        held: int = await self.ends[chain].parts["token"].call("balanceOf", of)
        return held

    def signed(self, transfer: Transfer, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        digest = self.route.digest(transfer)
        return {address_of(key): sign(key, digest) for key in keys}


async def _locking(end: End) -> None:
    """A token of its own on this chain, locked in a box when it leaves."""
    parts, shop = end.parts, end.site.shop
    token = parts["token"] = await shop.token("USDC", DECIMALS)
    box = parts["box"] = await shop.deploy(*artifact("erc20_lock_box"), token.address)
    pool = parts["pool"] = await shop.deploy(
        *artifact("lock_release_token_pool"), token.address, DECIMALS, ZERO,
        parts["proxy"].address, parts["router"].address, box.address,
    )  # fmt: skip
    await box.tx("applyAuthorizedCallerUpdates", ([pool.address], []))


async def _minting(end: End) -> None:
    """A token that its pool mints when it arrives here."""
    parts, shop = end.parts, end.site.shop
    named = ("USDC", "USDC", 0, 0, ZERO, DECIMALS, shop.me)
    token = parts["token"] = await shop.deploy(
        *artifact("cross_chain_token"), named, shop.me, shop.me
    )
    pool = parts["pool"] = await shop.deploy(
        *artifact("burn_mint_token_pool"), token.address, DECIMALS, ZERO,
        parts["proxy"].address, parts["router"].address,
    )  # fmt: skip
    await token.tx("grantMintAndBurnRoles", pool.address)


async def _serve(here: End, there: End) -> None:
    """Register the pool of a token, and tell it of the other one."""
    registry, token, pool = (here.parts[name] for name in ("registry", "token", "pool"))
    await registry.tx("proposeAdministrator", token.address, here.site.shop.me)
    await registry.tx("acceptAdminRole", token.address)
    await registry.tx("setPool", token.address, pool.address)
    far = [encode(["address"], [there.parts[name].address]) for name in ("pool", "token")]
    await pool.tx("applyChainUpdates", [], [(there.selector, far[:1], far[1], OPEN, OPEN)])


def end_of(end: End) -> CcipEnd:
    """Return what an operator writes of an end."""
    names = {"on_ramp": "on", "off_ramp": "off", "rmn": "proxy"}
    fields = ("router", *names, "registry", "resolver", "verifier", "token", "pool")
    places = {field: end.parts[names.get(field, field)].raw for field in fields}
    if "box" in end.parts:
        places["lock_box"] = end.parts["box"].raw
    return CcipEnd(end.site.chain.id, end.selector, first_block=0, **places)


@asynccontextmanager
async def pooled(binary: Path) -> AsyncIterator[Pooled]:
    """Two chains with CCIP, and USDC with its pools."""
    async with joined(binary) as (home, away):
        await _locking(home)
        await _minting(away)
        await _serve(home, away)
        await _serve(away, home)
        route = Ccip(
            USDC, DECIMALS, [end_of(home), end_of(away)], COMMITTEE,
            verifier=VERIFIER, timing=Timing(15_000, 60_000),
        )  # fmt: skip
        yield Pooled({HOME: home, AWAY: away}, route)


def section(route: Ccip) -> dict[str, Any]:
    """Return the token as an operator writes it."""
    chains: dict[str, dict[str, Any]] = {}
    for end in route.ends:
        row = asdict(end)
        del row["chain"]
        chains[str(end.chain)] = {
            key: value if key == "selector" else "0x" + value.hex()
            for key, value in row.items()
            if value
        }
    committee = route.committee
    return {
        "kind": "ccip", "asset": "USDC", "decimals": DECIMALS, "threshold": committee.threshold,
        "signers": ["0x" + signer.hex() for signer in committee.signers],
        "tag": "0x" + committee.tag.hex(), "p95_s": 60, "p50_s": 15, "chains": chains,
    }  # fmt: skip
