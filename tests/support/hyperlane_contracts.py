"""Unmodified Hyperlane contracts on local chains, and keepers that validate for them.

    two anvils ─ Mailbox, MerkleTreeHook, t-of-n StaticMessageIdMultisigIsm, gas paymaster, oracle
    a warp route: collateral on the first chain, minted on the second

The package ships bytecode inside its typechain factories; it is read from there as text.
"""

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.chain.port import Receipt
from keeper.hashing import keccak
from keeper.keys import address_of
from keeper.route.bridges.hyperlane import End, Hyperlane
from keeper.route.bridges.port import Read, Send, Terms, Timing
from keeper.units import ChainId, symbol
from tests.support.anvil import chain_of
from tests.support.policy_contracts import ZERO, Contract, Workshop, package

PACKAGE = "@hyperlane-xyz/core@5.11.5"
USDC = symbol("USDC")
CHAINS = (ChainId(31_781), ChainId(31_782))
KEYS = tuple(keccak(f"validator {place}".encode()) for place in range(4))
"""Of four keepers; their addresses are the multisig's validators, in this order."""
THRESHOLD = 3
VERIFIER = keccak(b"the keepers")


@cache
def factory(name: str) -> tuple[list[Any], str]:
    """Return ABI and bytecode of a contract."""
    (path,) = (package(PACKAGE) / "dist" / "factories").glob(f"**/{name}__factory.js")
    text = path.read_text()
    start = text.index("const _abi = ") + len("const _abi = ")
    literal = text[start : text.index("\n];", start) + 2]
    quoted = re.sub(r"(?m)^(\s*)(\w+):", r'\1"\2":', literal)
    code = re.search(r'const _bytecode =\s*"(0x[0-9a-fA-F]*)"', text)
    return json.loads(re.sub(r",(\s*[\]}])", r"\1", quoted)), code[1] if code else ""


@dataclass
class Site:
    """One chain with Hyperlane's core."""

    shop: Workshop
    chain: EvmChain
    parts: dict[str, Contract]

    async def run(self, sends: Sequence[Send], sender: str | None = None) -> list[Receipt]:
        """Mine transactions, and one empty block so that they are final.

        Raises:
            AssertionError: one reverted.
        """
        receipts = []
        for one in sends:
            receipt = await self.attempt(one, sender)
            assert receipt.succeeded, one
            receipts.append(receipt)
        return receipts

    async def attempt(self, send: Send, sender: str | None = None) -> Receipt:
        """Mine one transaction, whether it reverts or not, and one empty block."""
        request = {
            "from": sender or self.shop.me, "to": "0x" + send.to.hex(),
            "data": "0x" + send.data.hex(), "value": hex(send.value), "gas": hex(5_000_000),
        }  # fmt: skip
        name = await self.shop.anvil.rpc.call("eth_sendTransaction", [request])
        await self.shop.anvil.mine()
        receipt = await self.chain.receipt(bytes.fromhex(name[2:]))
        assert receipt is not None
        return receipt


@dataclass
class Bridged:
    """Two sites and a warp route between them."""

    sites: dict[ChainId, Site]
    route: Hyperlane
    token: Contract
    synthetic: Contract

    async def answers(self, reads: Sequence[Read]) -> list[bytes]:
        """Return the answers at the newest blocks."""
        found = []
        for read in reads:
            chain = self.sites[read.chain].chain
            (done,) = await chain.calls([read.call], (await chain.head()).ref)
            found.append(done.output if done.ok else b"")
        return found

    async def terms(self, place: int) -> Terms:
        """Return the terms of the first or the second crossing."""
        crossing = self.route.crossings()[place]
        return self.route.quoted(crossing, await self.answers(self.route.quote_reads(crossing)))


async def _core(shop: Workshop, chain: ChainId, remote: ChainId) -> dict[str, Contract]:
    async def make(name: str, *args: Any) -> Contract:
        return await shop.deploy(*factory(name), *args)

    mailbox = await make("Mailbox", chain)
    hook = await make("MerkleTreeHook", mailbox.address)
    modules = await make("StaticMessageIdMultisigIsmFactory")
    signers = ["0x" + address_of(key).hex() for key in KEYS]
    checksummed = [shop.web3.to_checksum_address(one) for one in signers]
    await modules.tx("deploy(address[],uint8)", checksummed, THRESHOLD)
    at = await modules.call("getAddress(address[],uint8)", checksummed, THRESHOLD)
    module = Contract(
        shop, shop.web3.to_checksum_address(at), factory("StaticMessageIdMultisigIsm")[0]
    )
    paymaster, oracle = await make("InterchainGasPaymaster"), await make("StorageGasOracle")
    await paymaster.tx("initialize", shop.me, shop.me)
    await oracle.tx("setRemoteGasDataConfigs", [(remote, 10**10, 10**9)])
    await paymaster.tx("setDestinationGasConfigs", [(remote, (oracle.address, 50_000))])
    await mailbox.tx("initialize", shop.me, module.address, paymaster.address, hook.address)
    return {"mailbox": mailbox, "hook": hook, "module": module, "modules": modules}


@asynccontextmanager
async def bridged(binary: Path) -> AsyncIterator[Bridged]:
    """Two chains, the core on both, and a warp route for USDC."""
    async with AsyncExitStack() as stack:
        sites = {}
        for chain, remote in (CHAINS, CHAINS[::-1]):
            anvil = await stack.enter_async_context(chain_of(binary, chain))
            port = EvmChain(chain, [anvil.url], Depth(1), attempt_s=10)
            stack.push_async_callback(port.aclose)
            shop = Workshop(anvil)
            sites[chain] = Site(shop, port, await _core(shop, chain, remote))
        here, there = (sites[chain] for chain in CHAINS)
        token = await here.shop.token("USDC", 6)
        locked = await here.shop.deploy(
            *factory("HypERC20Collateral"), token.address, here.parts["mailbox"].address
        )
        minted = await there.shop.deploy(*factory("HypERC20"), 6, there.parts["mailbox"].address)
        await locked.tx("initialize", ZERO, ZERO, here.shop.me)
        await minted.tx("initialize", 0, "hypUSDC", "hypUSDC", ZERO, ZERO, there.shop.me)
        await locked.tx("enrollRemoteRouter", CHAINS[1], minted.raw.rjust(32, b"\0"))
        await minted.tx("enrollRemoteRouter", CHAINS[0], locked.raw.rjust(32, b"\0"))
        ends = [
            End(
                chain, chain, router.raw, site.parts["mailbox"].raw, site.parts["hook"].raw,
                site.parts["module"].raw, held,
            )
            for chain, site, router, held in (
                (CHAINS[0], here, locked, token.raw), (CHAINS[1], there, minted, b""),
            )
        ]  # fmt: skip
        validators = [address_of(key) for key in KEYS]
        route = Hyperlane(
            USDC, ends, validators, THRESHOLD, verifier=VERIFIER, timing=Timing(15_000, 60_000)
        )
        yield Bridged(sites, route, token, minted)
