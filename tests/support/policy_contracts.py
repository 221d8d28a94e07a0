"""Unmodified Aave v3, Perpetual Protocol v2 and Uniswap v3 on a local chain, for tests only.

Artefacts come from packages pinned by version and digest, fetched once into `.cache/npm` and never
committed (some are under other licences than this project). The one contract of our own is a price
feed that can be moved.
"""

import hashlib
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from functools import cache
from math import isqrt
from pathlib import Path
from typing import Any

import pytest
import trio
from eth_account import Account
from eth_utils.address import to_checksum_address
from vyper import compile_code
from web3 import Web3

from keeper.devnet.chains import Anvil

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "npm"
PACKAGES = {
    "@aave/core-v3@1.19.3": "a7bd560885fa804a",
    "@perp/curie-deployments@2023.4.12-1681295833590": "b2216515ea6199b6",
    "@chainlink/contracts-ccip@2.0.0": "59c3ea7be405d68c",
    "@hyperlane-xyz/core@5.11.5": "690e594c00d06844",
    "@uniswap/v3-core@1.0.1": "141b001e2a376fff",
    "@uniswap/v3-periphery@1.4.4": "7177174c4b8c66bd",
}
AAVE = "@aave/core-v3@1.19.3"
PERP = "@perp/curie-deployments@2023.4.12-1681295833590"
CORE = "@uniswap/v3-core@1.0.1"
PERIPHERY = "@uniswap/v3-periphery@1.4.4"
ZERO = "0x" + "00" * 20
MOST = 2**256 - 1
LATER = 2**40
RAY = 10**27

FEED = """
# A price feed that can be moved: the AggregatorV3 interface and the older latestAnswer.
round: public(uint80)
answers: HashMap[uint80, int256]
times: HashMap[uint80, uint256]

@deploy
def __init__(answer: int256):
    self._update(answer)

@internal
def _update(answer: int256):
    self.round += 1
    self.answers[self.round] = answer
    self.times[self.round] = block.timestamp

@external
def updateAnswer(answer: int256):
    self._update(answer)

@external
@view
def decimals() -> uint8:
    return 8

@external
@view
def latestAnswer() -> int256:
    return self.answers[self.round]

@external
@view
def latestRoundData() -> (uint80, int256, uint256, uint256, uint80):
    r: uint80 = self.round
    return r, self.answers[r], self.times[r], self.times[r], r

@external
@view
def getRoundData(r: uint80) -> (uint80, int256, uint256, uint256, uint80):
    return r, self.answers[r], self.times[r], self.times[r], r
"""


def package(name: str) -> Path:
    """Return the unpacked folder of a pinned npm package, or skip saying why there is none."""
    target = CACHE / name.replace("/", "_").replace("@", "_")
    if target.is_dir():
        return target
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"needs npm once, to fetch {name}")
    CACHE.mkdir(parents=True, exist_ok=True)
    scratch = CACHE / f"{target.name}.part"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    done = subprocess.run(
        [npm, "pack", "--silent", name], cwd=scratch, capture_output=True, check=False, timeout=120
    )
    archives = list(scratch.glob("*.tgz"))
    if done.returncode or not archives:
        pytest.skip(f"{name} cannot be fetched: {done.stderr.decode()[:200]}")
    digest = hashlib.sha256(archives[0].read_bytes()).hexdigest()
    assert digest.startswith(PACKAGES[name]), f"{name} has digest {digest}"
    with tarfile.open(archives[0]) as files:
        if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on
            files.extraction_filter = tarfile.data_filter
        files.extractall(scratch)  # its digest is the pinned one
    (scratch / "package").rename(target)
    shutil.rmtree(scratch)
    return target


@cache
def feed_artifact() -> tuple[list[Any], str]:
    """Return ABI and bytecode of the movable feed."""
    made = compile_code(FEED, output_formats=("abi", "bytecode"))
    return made["abi"], made["bytecode"]


def _linked(artifact: dict[str, Any], libraries: dict[str, str]) -> str:
    body: str = artifact["bytecode"][2:]
    for names in artifact.get("linkReferences", {}).values():
        for name, places in names.items():
            for place in places:
                at = 2 * place["start"]
                body = body[:at] + libraries[name][2:].lower() + body[at + 40 :]
    return "0x" + body


@dataclass
class Contract:
    """One deployed contract: `tx` waits for success, `call` reads."""

    chain: "Workshop"
    address: str
    abi: list[Any]

    def data(self, name: str, *args: Any) -> str:
        shape = self.chain.web3.eth.contract(abi=self.abi)
        encoded: str = shape.encode_abi(name, args=list(args))
        return encoded

    async def tx(self, name: str, *args: Any, sender: str | None = None) -> dict[str, Any]:
        return await self.chain.send(self.address, self.data(name, *args), sender)

    async def call(self, name: str, *args: Any) -> Any:
        request = {"to": self.address, "data": self.data(name, *args)}
        raw = bytes.fromhex((await self.chain.anvil.rpc.call("eth_call", [request, "latest"]))[2:])
        entry = next(x for x in self.abi if x.get("name") == name.partition("(")[0])
        kinds = [self._kind(out) for out in entry["outputs"]]
        values = self.chain.web3.codec.decode(kinds, raw)
        return values[0] if len(values) == 1 else values

    def _kind(self, entry: dict[str, Any]) -> str:
        if not entry["type"].startswith("tuple"):
            return str(entry["type"])
        inner = ",".join(self._kind(one) for one in entry["components"])
        return f"({inner}){entry['type'][5:]}"

    @property
    def raw(self) -> bytes:
        return bytes.fromhex(self.address[2:])


class Workshop:
    """Deploys artefacts from unlocked accounts of an anvil."""

    def __init__(self, anvil: Anvil) -> None:
        self.anvil = anvil
        self.web3 = Web3()
        self.people = [str(Account.from_key(anvil.key(index)).address) for index in range(8)]
        self.me = self.people[0]

    async def send(self, to: str | None, data: str, sender: str | None = None) -> dict[str, Any]:
        """Send and return the receipt.

        Raises:
            AssertionError: it reverted.
        """
        request: dict[str, Any] = {"from": sender or self.me, "data": data, "gas": hex(29_000_000)}
        if to is not None:
            request["to"] = to
        hash_ = await self.anvil.rpc.call("eth_sendTransaction", [request])
        receipt: dict[str, Any] | None = None
        with trio.fail_after(20):
            while receipt is None:  # mining follows the answer by a moment
                receipt = await self.anvil.rpc.call("eth_getTransactionReceipt", [hash_])
        assert int(receipt["status"], 16) == 1, f"{to} {data[:10]} reverted"
        return receipt

    async def deploy(self, abi: list[Any], code: str, *args: Any) -> Contract:
        shape = self.web3.eth.contract(abi=abi, bytecode=code)
        receipt = await self.send(None, str(shape.constructor(*args).data_in_transaction))
        return Contract(self, to_checksum_address(receipt["contractAddress"]), abi)

    async def make(
        self, pack: str, path: str, *args: Any, libraries: dict[str, str] | None = None
    ) -> Contract:
        artifact = self.artifact(pack, path)
        code = _linked(artifact, libraries or {})
        return await self.deploy(artifact["abi"], code, *args)

    def artifact(self, pack: str, path: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((package(pack) / path).read_text())
        return found

    def at(self, pack: str, path: str, address: str) -> Contract:
        return Contract(self, to_checksum_address(address), self.artifact(pack, path)["abi"])

    async def feed(self, price: int) -> Contract:
        abi, code = feed_artifact()
        return await self.deploy(abi, code, price)

    async def token(self, name: str, decimals: int) -> Contract:
        path = "artifacts/contracts/mocks/tokens/MintableERC20.sol/MintableERC20.json"
        return await self.make(AAVE, path, name, name, decimals)


@dataclass
class Aave:
    """A pool with its oracle and the tokens listed in it."""

    pool: Contract
    oracle: Contract
    data: Contract
    configurator: Contract
    parts: dict[str, Contract]


def _aave(path: str) -> str:
    return f"artifacts/contracts/{path}/{path.rsplit('/', 1)[-1].removesuffix('.sol')}.json"


async def deploy_aave(shop: Workshop) -> Aave:
    """Deploy the whole of Aave v3 core."""
    libraries: dict[str, str] = {}
    for name in (
        "SupplyLogic", "BorrowLogic", "LiquidationLogic", "EModeLogic", "BridgeLogic",
        "ConfiguratorLogic", "PoolLogic", "FlashLoanLogic",
    ):  # fmt: skip
        made = await shop.make(
            AAVE, _aave(f"protocol/libraries/logic/{name}.sol"), libraries=libraries
        )
        libraries[name] = made.address
    conf = "protocol/configuration"
    book = await shop.make(AAVE, _aave(f"{conf}/PoolAddressesProvider.sol"), "KeeperTest", shop.me)
    pool = await shop.make(AAVE, _aave("protocol/pool/Pool.sol"), book.address, libraries=libraries)
    setter = await shop.make(AAVE, _aave("protocol/pool/PoolConfigurator.sol"), libraries=libraries)
    await book.tx("setACLAdmin", shop.me)
    acl = await shop.make(AAVE, _aave(f"{conf}/ACLManager.sol"), book.address)
    await book.tx("setACLManager", acl.address)
    for role in ("addPoolAdmin", "addEmergencyAdmin", "addAssetListingAdmin", "addRiskAdmin"):
        await acl.tx(role, shop.me)
    oracle = await shop.make(
        AAVE, _aave("misc/AaveOracle.sol"), book.address, [], [], ZERO, ZERO, 10**8
    )
    await book.tx("setPriceOracle", oracle.address)
    await book.tx("setPoolImpl", pool.address)
    await book.tx("setPoolConfiguratorImpl", setter.address)
    pool = shop.at(AAVE, _aave("protocol/pool/Pool.sol"), await book.call("getPool"))
    setter = shop.at(
        AAVE, _aave("protocol/pool/PoolConfigurator.sol"), await book.call("getPoolConfigurator")
    )
    data = await shop.make(AAVE, _aave("misc/AaveProtocolDataProvider.sol"), book.address)
    await book.tx("setPoolDataProvider", data.address)
    parts = {
        name: await shop.make(AAVE, _aave(f"protocol/tokenization/{name}.sol"), pool.address)
        for name in ("AToken", "StableDebtToken", "VariableDebtToken")
    }
    parts["rates"] = await shop.make(
        AAVE,
        _aave("protocol/pool/DefaultReserveInterestRateStrategy.sol"),
        book.address, RAY * 8 // 10, 0, RAY * 4 // 100, RAY * 75 // 100, RAY * 5 // 1000,
        RAY * 75 // 100, RAY // 100, RAY * 8 // 100, RAY * 20 // 100,
    )  # fmt: skip
    return Aave(pool, oracle, data, setter, parts)


async def list_reserve(
    shop: Workshop,
    aave: Aave,
    token: Contract,
    decimals: int,
    feed: Contract,
    bps: tuple[int, int, int],
) -> None:
    """List a token with (loan to value, threshold, bonus) in basis points."""
    await aave.oracle.tx("setAssetSources", [token.address], [feed.address])
    parts = aave.parts
    entry = (
        parts["AToken"].address, parts["StableDebtToken"].address,
        parts["VariableDebtToken"].address, decimals, parts["rates"].address, token.address,
        shop.me, ZERO, "a", "a", "v", "v", "s", "s", b"",
    )  # fmt: skip
    await aave.configurator.tx("initReserves", [entry])
    await aave.configurator.tx("configureReserveAsCollateral", token.address, *bps)
    await aave.configurator.tx("setReserveBorrowing", token.address, True)


@dataclass
class Uniswap:
    """Uniswap v3: factory, router, positions, quoter."""

    factory: Contract
    router: Contract
    positions: Contract
    quoter: Contract


async def deploy_uniswap(shop: Workshop, weth: str) -> Uniswap:
    """Deploy Uniswap v3 core and periphery."""
    base = "artifacts/contracts"
    factory = await shop.make(CORE, f"{base}/UniswapV3Factory.sol/UniswapV3Factory.json")
    made = [
        await shop.make(PERIPHERY, f"{base}/{path}", factory.address, weth, *more)
        for path, *more in (
            ("SwapRouter.sol/SwapRouter.json",),
            ("NonfungiblePositionManager.sol/NonfungiblePositionManager.json", ZERO),
            ("lens/QuoterV2.sol/QuoterV2.json",),
        )
    ]
    return Uniswap(factory, *made)


async def add_pool(
    shop: Workshop,
    dex: Uniswap,
    pair: tuple[Contract, Contract],
    amounts: tuple[int, int],
    fee: int = 500,
) -> None:
    """Open a pool at the price the two amounts imply, with liquidity over its whole range."""
    (first, second), (left, right) = pair, amounts
    if int(first.address, 16) > int(second.address, 16):
        first, second, left, right = second, first, right, left
    root = isqrt((right << 192) // left)
    await dex.positions.tx(
        "createAndInitializePoolIfNecessary", first.address, second.address, fee, root
    )
    for token, amount in ((first, left), (second, right)):
        await token.tx("mint", amount * 2)
        await token.tx("approve", dex.positions.address, MOST)
    edge = 887_270
    await dex.positions.tx(
        "mint", (first.address, second.address, fee, -edge, edge, left, right, 0, 0, shop.me, LATER)
    )


@dataclass
class Perpetual:
    """Perpetual Protocol v2 with one market."""

    clearing: Contract
    balance: Contract
    vault: Contract
    config: Contract
    base: Contract
    feed: Contract
    usdc: Contract


async def deploy_perpetual(shop: Workshop, usdc: Contract, price: int) -> Perpetual:
    """Deploy Perpetual Protocol v2 and open one market at `price` dollars."""
    core = "optimism/core/artifacts/contracts"
    feeds = "optimism/core/artifacts/oracle-contracts/contracts"
    at = {
        name: await shop.make(PERP, f"{core}/{name}.sol/{name}.json")
        for name in (
            "ClearingHouseConfig", "QuoteToken", "MarketRegistry", "OrderBook", "Exchange",
            "AccountBalance", "InsuranceFund", "Vault", "CollateralManager", "ClearingHouse",
            "DelegateApproval",
        )
    }  # fmt: skip
    factory = await shop.make(
        CORE, "artifacts/contracts/UniswapV3Factory.sol/UniswapV3Factory.json"
    )
    to = {name: made.address for name, made in at.items()}
    await at["ClearingHouseConfig"].tx("initialize")
    await at["QuoteToken"].tx("initialize", "vUSD", "vUSD")
    await at["MarketRegistry"].tx("initialize", factory.address, to["QuoteToken"])
    await at["OrderBook"].tx("initialize", to["MarketRegistry"])
    await at["Exchange"].tx(
        "initialize", to["MarketRegistry"], to["OrderBook"], to["ClearingHouseConfig"]
    )
    await at["OrderBook"].tx("setExchange", to["Exchange"])
    await at["AccountBalance"].tx("initialize", to["ClearingHouseConfig"], to["OrderBook"])
    await at["InsuranceFund"].tx("initialize", usdc.address)
    await at["Vault"].tx(
        "initialize",
        to["InsuranceFund"],
        to["ClearingHouseConfig"],
        to["AccountBalance"],
        to["Exchange"],
    )
    await at["InsuranceFund"].tx("setVault", to["Vault"])
    await at["AccountBalance"].tx("setVault", to["Vault"])
    await at["CollateralManager"].tx(
        "initialize", to["ClearingHouseConfig"], to["Vault"], 5, 750_000, 500_000, 2_000, 30_000,
        10_000 * 10**6, 500 * 10**6,
    )  # fmt: skip
    await at["Vault"].tx("setCollateralManager", to["CollateralManager"])
    await at["ClearingHouse"].tx(
        "initialize", to["ClearingHouseConfig"], to["Vault"], to["QuoteToken"], factory.address,
        to["Exchange"], to["AccountBalance"], to["InsuranceFund"],
    )  # fmt: skip
    await at["DelegateApproval"].tx("initialize")
    await at["ClearingHouse"].tx("setDelegateApproval", to["DelegateApproval"])
    await at["ClearingHouseConfig"].tx("setSettlementTokenBalanceCap", MOST)
    await at["QuoteToken"].tx("mintMaximumTo", to["ClearingHouse"])
    await at["QuoteToken"].tx("addWhitelist", to["ClearingHouse"])
    for name in ("MarketRegistry", "OrderBook", "Exchange", "AccountBalance", "Vault"):
        await at[name].tx("setClearingHouse", to["ClearingHouse"])
    await at["Exchange"].tx("setAccountBalance", to["AccountBalance"])
    feed = await shop.feed(price * 10**8)
    chainlink = await shop.make(
        PERP, f"{feeds}/ChainlinkPriceFeedV3.sol/ChainlinkPriceFeedV3.json", feed.address, 2400, 0
    )
    dispatcher = await shop.make(
        PERP, f"{feeds}/PriceFeedDispatcher.sol/PriceFeedDispatcher.json", chainlink.address
    )
    base = await shop.make(PERP, f"{core}/BaseToken.sol/BaseToken.json")
    while int(base.address, 16) > int(to["QuoteToken"], 16):
        base = await shop.make(PERP, f"{core}/BaseToken.sol/BaseToken.json")
    await base.tx("initialize", "vETH", "vETH", dispatcher.address)
    await factory.tx("createPool", base.address, to["QuoteToken"], 3000)
    pool = shop.at(
        CORE,
        "artifacts/contracts/UniswapV3Pool.sol/UniswapV3Pool.json",
        await factory.call("getPool", base.address, to["QuoteToken"], 3000),
    )
    await pool.tx("initialize", isqrt(price << 192))
    await pool.tx("increaseObservationCardinalityNext", 200)
    await base.tx("mintMaximumTo", to["ClearingHouse"])
    for friend in (to["ClearingHouse"], pool.address):
        await base.tx("addWhitelist", friend)
    await at["QuoteToken"].tx("addWhitelist", pool.address)
    await at["MarketRegistry"].tx("addPool", base.address, 3000)
    await at["Exchange"].tx("setMaxTickCrossedWithinBlock", base.address, 1000)
    await shop.anvil.rpc.call("evm_increaseTime", [3600])
    await shop.anvil.mine()
    made = Perpetual(
        at["ClearingHouse"], at["AccountBalance"], at["Vault"], at["ClearingHouseConfig"], base,
        feed, usdc,
    )  # fmt: skip
    await move_perpetual(shop, made, price * 10**8)
    return made


async def move_perpetual(shop: Workshop, perp: Perpetual, price: int) -> None:
    """Publish an index price and let its time-weighted mean catch up."""
    await perp.feed.tx("updateAnswer", price)
    await perp.base.tx("cacheTwap", 900)
    await shop.anvil.rpc.call("evm_increaseTime", [2000])
    await shop.anvil.mine()
    await perp.feed.tx("updateAnswer", price)
    await perp.base.tx("cacheTwap", 900)
