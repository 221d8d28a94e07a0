"""Traders of a scenario: funded accounts that deposit, ask for credit, trade, close, withdraw.

    collateral on the hub (some also on the venue) ─▶ credit at the venue ─▶ positions
    … prices move …                                 ─▶ some close ─▶ their result is cleared ─▶ out

Who trades what follows from a seed. They know contracts only, no keeper.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from keeper.contracts import decode_result, encode_call
from keeper.devnet.cluster import Cluster
from keeper.devnet.wallet import Send, Sent, Wallet, broadcast
from keeper.network import ChainSpec
from keeper.units import PPM, ChainId, ceil_div, symbol

USD = 10**6
FIRST_ACCOUNT = 10
"""Mnemonic accounts below are the deployer's and spare ones."""
HOUSE_FUNDS = 3_000_000 * USD
SAFE_LEVERAGE_PPM = (1_500_000, 2_500_000, 3_500_000)
BOLD_LEVERAGE_PPM = (6_400_000, 6_800_000, 7_200_000)
"""Under a fall of 12 % longs of the second kind need liquidation, those of the first do not."""
CREDIT_SLACK_PPM = 1_050_000
"""Credit asked for beyond the venue's own margin: the opening fee counts against it."""


@dataclass(frozen=True, slots=True)
class Trader:
    """One trader: deposits and credit in µUSD, position in 10**-8 ETH, signed."""

    secret: bytes
    owner: bytes
    account: bytes
    on_hub: int
    on_venue: int
    size: int
    credit: int


def make_traders(cluster: Cluster, seed: int, count: int, price_e8: int) -> list[Trader]:
    """Return traders drawn from a seed: longs and shorts, safe and bold."""
    draw = random.Random(seed)
    traders = []
    for at in range(count):
        deposit = draw.randrange(2_000, 20_000) * USD
        leverage = draw.choice(BOLD_LEVERAGE_PPM if draw.random() < 0.4 else SAFE_LEVERAGE_PPM)
        short = draw.random() < 0.25
        on_venue = deposit // 5 if at % 4 == 3 else 0
        traders.append(make_trader(cluster, at, deposit, leverage, price_e8, on_venue, short=short))
    return traders


def make_trader(
    cluster: Cluster,
    at: int,
    deposit: int,
    leverage_ppm: int,
    price_e8: int,
    on_venue: int = 0,
    *,
    short: bool = False,
) -> Trader:
    """Return the trader of a mnemonic account with so much collateral and leverage."""
    market = cluster.parameters.margin.market_of[symbol("ETH-USD")]
    secret = cluster.hub.key(FIRST_ACCOUNT + at)
    owner = Wallet(cluster.hub.rpc, cluster.spec.hub, secret).address
    notional = deposit * leverage_ppm // PPM
    size = notional * 10 ** (market.decimals + 2) // price_e8
    credit = ceil_div(ceil_div(notional * market.initial_ppm, PPM) * CREDIT_SLACK_PPM, PPM)
    return Trader(
        secret,
        owner,
        cluster.spec.account(owner),
        deposit - on_venue,
        on_venue,
        -size if short else size,
        credit,
    )


class Desk:
    """Acts for all traders: one batch per step and chain."""

    def __init__(
        self, cluster: Cluster, traders: Sequence[Trader], venue: ChainSpec | None = None
    ) -> None:
        self.cluster, self.traders = cluster, traders
        self.venue = venue or venue_chain(cluster)

    def _wallet(self, trader: Trader, chain: ChainId) -> Wallet:
        return Wallet(self.cluster.chains[chain].rpc, chain, trader.secret)

    async def _each(
        self, chain: ChainId, sends: Sequence[tuple[Trader, Sequence[Send]]]
    ) -> list[Sent]:
        raws: list[str] = []
        for trader, wanted in sends:
            raws += await self._wallet(trader, chain).sign(wanted)
        return await broadcast(self.cluster.chains[chain].rpc, raws) if raws else []

    async def fund(self) -> None:
        """Give the house its liquidity and every trader tokens."""
        for chain in self.cluster.spec.chains:
            wallet, token, vault = self._money(chain)
            house = self.cluster.spec.account(_contract(self.venue, "Perps"))
            sends = [
                Send(token, encode_call("DevToken", "mint", trader.owner, amount), gas=200_000)
                for trader in self.traders
                for amount in (self._deposit(trader, chain.id),)
                if amount
            ]
            sends += [
                Send(token, encode_call("DevToken", "mint", wallet.address, HOUSE_FUNDS)),
                Send(token, encode_call("DevToken", "approve", vault, HOUSE_FUNDS)),
                Send(vault, encode_call("Vault", "deposit_for", house, token, HOUSE_FUNDS)),
            ]
            await wallet.send(*sends)

    def _money(self, chain: ChainSpec) -> tuple[Wallet, bytes, bytes]:
        return self.cluster.wallets[chain.id], chain.tokens[0].address, _contract(chain, "Vault")

    def _deposit(self, trader: Trader, chain: ChainId) -> int:
        if chain == self.cluster.spec.hub:
            return trader.on_hub
        return trader.on_venue if chain == self.venue.id else 0

    async def deposit_and_ask(self) -> None:
        """Deposit on every chain, and ask for credit at the venue."""
        for chain in self.cluster.spec.chains:
            _, token, vault = self._money(chain)
            await self._each(
                chain.id,
                [
                    (
                        trader,
                        [
                            Send(token, encode_call("DevToken", "approve", vault, amount)),
                            Send(vault, encode_call("Vault", "deposit", 0, token, amount)),
                        ],
                    )
                    for trader in self.traders
                    for amount in (self._deposit(trader, chain.id),)
                    if amount
                ],
            )
        perps = _contract(self.venue, "Perps")
        await self._each(
            self.venue.id,
            [
                (trader, [Send(perps, encode_call("Perps", "request_credit", 0, trader.credit))])
                for trader in self.traders
            ],
        )

    async def credited(self) -> int:
        """Return how many traders have the credit they asked for."""
        perps = _contract(self.venue, "Perps")
        rpc = self.cluster.chains[self.venue.id].rpc
        answers = await rpc.batch(
            [
                (
                    "eth_call",
                    [
                        {
                            "to": "0x" + perps.hex(),
                            "data": "0x" + encode_call("Perps", "credit", trader.account).hex(),
                        },
                        "latest",
                    ],
                )
                for trader in self.traders
            ]
        )
        limits = [
            decode_result("Perps", "credit", bytes.fromhex(answer[2:]))[0][0] for answer in answers
        ]
        return sum(
            limit >= trader.credit for limit, trader in zip(limits, self.traders, strict=True)
        )

    async def open(self) -> list[Sent]:
        """Open every trader's position."""
        perps = _contract(self.venue, "Perps")
        market = symbol("ETH-USD")
        return await self._each(
            self.venue.id,
            [
                (trader, [Send(perps, encode_call("Perps", "increase", 0, market, trader.size, 0))])
                for trader in self.traders
            ],
        )

    async def close(self, traders: Sequence[Trader]) -> list[Sent]:
        """Close these traders' positions whole."""
        perps, market = _contract(self.venue, "Perps"), symbol("ETH-USD")
        return await self._each(
            self.venue.id,
            [
                (
                    trader,
                    [Send(perps, encode_call("Perps", "reduce", 0, market, abs(trader.size), 0))],
                )
                for trader in traders
            ],
        )

    async def ask_back(self, traders: Sequence[Trader], share_ppm: int) -> None:
        """Ask to withdraw a share of what was deposited on the hub."""
        hub = self.cluster.spec.chain(self.cluster.spec.hub)
        _, token, vault = self._money(hub)
        await self._each(
            hub.id,
            [
                (
                    trader,
                    [
                        Send(
                            vault,
                            encode_call(
                                "Vault",
                                "request_withdraw",
                                0,
                                token,
                                trader.on_hub * share_ppm // PPM,
                                trader.owner,
                            ),
                        )
                    ],
                )
                for trader in traders
            ],
        )

    async def tokens_of(self, traders: Sequence[Trader]) -> list[int]:
        """Return the hub tokens in these traders' own hands."""
        hub = self.cluster.spec.chain(self.cluster.spec.hub)
        _, token, _ = self._money(hub)
        answers = await self.cluster.hub.rpc.batch(
            [
                (
                    "eth_call",
                    [
                        {
                            "to": "0x" + token.hex(),
                            "data": "0x" + encode_call("DevToken", "balanceOf", one.owner).hex(),
                        },
                        "latest",
                    ],
                )
                for one in traders
            ]
        )
        return [int(answer, 16) for answer in answers]


def venue_chain(cluster: Cluster) -> ChainSpec:
    """Return the first chain that has the reference venue."""
    return next(chain for chain in cluster.spec.chains if chain.contract("Perps") is not None)


def _contract(chain: ChainSpec, name: str) -> bytes:
    address = chain.contract(name)
    assert address is not None, f"chain {chain.id} has no {name}"
    return address
