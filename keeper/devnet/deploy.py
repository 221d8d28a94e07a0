"""Deploys a network's contracts on every chain from the committed artefacts.

    hub chain     Committee Snapshots Breaker Bonds Awards Vault       Escrow Intents feeds
    venue chains  Committee Snapshots Breaker       Awards Vault Perps Escrow Intents feeds

All creations of a chain go out in one batch: addresses follow from the deployer and its nonces, so
constructors can name contracts that come later in the same batch. The deployer keeps no right over
what holds value: Committee.genesis and the binds work once. It stays the breaker's governor, and as
such limits in the same batch what each vault lets out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keeper.contracts import deploy_data, encode_call
from keeper.devnet.wallet import Send, Wallet, created
from keeper.hashing import abi_hash
from keeper.network import ChainSpec, Feed, Token
from keeper.parameters import Parameters
from keeper.units import ChainId, symbol

BIG_DELAY_BLOCKS, EXIT_DELAY_BLOCKS = 30, 120
BIG_TRANSFER = 10_000_000 * 10**6
ESCAPE_BLOCKS, ESCAPE_S = 7 * 86_400, 7 * 86_400
MIN_BOND_WEI = 10**18
UNBONDING_S, JAIL_S, LOCK_LIFE_S = 14 * 86_400, 86_400, 7 * 86_400
REPORTER_PPM = 100_000
TIMELOCK_BLOCKS, GRACE_BLOCKS = 20, 100
BREAKER_GRACE_S = 60
FEED_AGE_S = 3_600
FEE_PPM, MAX_FUNDING_PPM = 500, 10_000
SKEW_SCALE = 10**14


@dataclass(frozen=True, slots=True)
class Market:
    """A perp market of the devnet and its first price, 10**-8 USD."""

    symbol: bytes
    price_e8: int


def account_id(network: bytes, owner: bytes, index: int = 0) -> bytes:
    """Return the id of an owner's account."""
    return abi_hash(("bytes32", "address", "uint256"), (network, owner, index))


def _markets(
    parameters: Parameters, markets: Sequence[Market], feeds: Mapping[bytes, bytes]
) -> list[tuple[object, ...]]:
    table = parameters.margin.market_of
    return [
        (
            market.symbol,
            feeds[market.symbol],
            FEED_AGE_S,
            table[market.symbol].decimals,
            table[market.symbol].initial_ppm,
            table[market.symbol].maintenance_ppm,
            FEE_PPM,
            parameters.liquidation.bonus_max_ppm,
            MAX_FUNDING_PPM,
            SKEW_SCALE,
        )
        for market in markets
    ]


async def deploy_chain(
    wallet: Wallet,
    network: bytes,
    parameters: Parameters,
    *,
    hub: bool,
    venue: bool,
    markets: Sequence[Market],
    assets: Sequence[tuple[str, int]],
    receivers: Sequence[bytes],
) -> ChainSpec:
    """Deploy one chain's contracts and return its part of the descriptor.

    Args:
        wallet: the deployer, funded.
        network: 32-byte network id.
        parameters: what governance set; the venue's margin ratios follow it.
        hub: whether bonds live here.
        venue: whether a Perps venue is deployed here.
        markets: perp markets with first prices.
        assets: (symbol, price in 10**-8 USD) of the tokens to make, six decimals each.
        receivers: accounts of insurance, committee, consistency pool and protocol.
    """
    batch = _Batch(wallet.address, await wallet.nonce())
    committee = batch.create("Committee", network, TIMELOCK_BLOCKS, GRACE_BLOCKS)
    snapshots = batch.create("Snapshots", committee)
    limits = parameters.breakers
    steps = (limits.step_ppm, limits.step_delay_s, limits.step_expiry_s)
    breaker = batch.create("Breaker", snapshots, wallet.address, BREAKER_GRACE_S, *steps)
    contracts = {"Committee": committee, "Snapshots": snapshots, "Breaker": breaker}
    bonds = bytes(20)
    if hub:
        bonds = contracts["Bonds"] = batch.create(
            "Bonds",
            snapshots,
            wallet.address,
            MIN_BOND_WEI,
            UNBONDING_S,
            JAIL_S,
            LOCK_LIFE_S,
            REPORTER_PPM,
        )
    awards = contracts["Awards"] = batch.create("Awards", snapshots, bonds)
    if hub:
        batch.call("Bonds", bonds, "bind", awards)
    tokens = [
        Token(symbol(text), batch.create("DevToken", f"Devnet {text}", text, 6), 6)
        for text, _ in assets
    ]
    feeds = {
        market.symbol: batch.create(
            "DevFeed", market.symbol.rstrip(b"\0").decode(), market.price_e8
        )
        for market in markets
        if venue
    }
    feeds |= {symbol(text): batch.create("DevFeed", text, price) for text, price in assets if hub}
    contracts["Escrow"] = batch.create("Escrow", snapshots, ESCAPE_BLOCKS)
    venues = []
    if venue:
        house = account_id(network, batch.next_address)
        contracts["Perps"] = batch.create(
            "Perps",
            snapshots,
            awards,
            contracts["Escrow"],
            house,
            list(receivers),
            parameters.liquidation.public_after_blocks,
            _markets(parameters, markets, feeds),
        )
        venues.append(contracts["Perps"])
        batch.call("Perps", contracts["Perps"], "bind", breaker)
    contracts["Vault"] = batch.create(
        "Vault",
        snapshots,
        BIG_DELAY_BLOCKS,
        EXIT_DELAY_BLOCKS,
        [(token.address, BIG_TRANSFER) for token in tokens],
        venues,
    )
    batch.call("Vault", contracts["Vault"], "bind", breaker)
    prices = [price for _, price in assets]
    _limit(batch, breaker, contracts["Vault"], parameters, list(zip(tokens, prices, strict=True)))
    contracts["Intents"] = batch.create("Intents", snapshots, ESCAPE_S)
    sent = await wallet.send(*batch.sends)
    return ChainSpec(
        id=wallet.chain,
        contracts=tuple(sorted(contracts.items())),
        tokens=tuple(sorted(tokens, key=lambda token: token.asset)),
        feeds=tuple(sorted((Feed(m, at) for m, at in feeds.items()), key=lambda feed: feed.market)),
        start_block=min(one.block for one in sent),
        finality_depth=2,
    )


class _Batch:
    """Creations and calls of one deployer, in nonce order."""

    def __init__(self, deployer: bytes, nonce: int) -> None:
        self._deployer, self._nonce = deployer, nonce
        self.sends: list[Send] = []

    @property
    def next_address(self) -> bytes:
        """The address that the next creation gets."""
        return created(self._deployer, self._nonce + len(self.sends))

    def create(self, name: str, *args: object) -> bytes:
        """Add a creation and return its address."""
        address = self.next_address
        self.sends.append(Send(None, deploy_data(name, *args)))
        return address

    def call(self, name: str, to: bytes, function: str, *args: object) -> None:
        """Add a call."""
        self.sends.append(Send(to, encode_call(name, function, *args), gas=500_000))


def _limit(
    batch: _Batch,
    breaker: bytes,
    vault: bytes,
    parameters: Parameters,
    tokens: Sequence[tuple[Token, int]],
) -> None:
    """Make an empty vault a guard, and give its (token, price) pairs a bucket and a net outflow."""
    limits = parameters.breakers
    batch.call("Breaker", breaker, "set_guard", vault, True)
    for token, price_e8 in tokens:
        scope = token.address.rjust(32, b"\0")
        capacity, rate, begin = (
            micro_usd * 100 * 10**token.decimals // price_e8
            for micro_usd in (limits.lane_capacity, limits.lane_rate, limits.outflow_begin)
        )
        batch.call("Breaker", breaker, "set_lane", scope, False, capacity, rate)
        window = (limits.outflow_window_s, limits.outflow_retained_ppm)
        batch.call("Breaker", breaker, "set_outflow", scope, *window, begin, 0)


async def install_committee(
    wallets: Mapping[ChainId, Wallet],
    chains: Sequence[ChainSpec],
    *,
    epoch: int,
    group_key: int,
    config: bytes,
    members: Sequence[bytes],
) -> None:
    """Register the first committee's key on every chain; the deployer can do this once."""
    for chain in chains:
        committee = chain.contract("Committee")
        data = encode_call("Committee", "genesis", epoch, group_key, config, list(members))
        await wallets[chain.id].send(Send(committee, data, gas=2_000_000))
