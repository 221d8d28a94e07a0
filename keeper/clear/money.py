"""Purses: what an account can pay with in which vault, in which order, for how much.

    settlement assets at par ─▶ other assets at the certified price, less their haircut
    same chain as the venue  ─▶ other chains

Amounts paid are rounded up and values got for them down, so rounding is against who pays. Paying a
winner uses the price without haircut: what a loser's haircut left over stays with the house until
prices have moved, and a winner is never paid less than it won by the price.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from keeper.clear.outstanding import Holding
from keeper.snapshot.decisions import Context
from keeper.units import PPM, PRICE_DECIMALS, QUOTE_DECIMALS, ChainId, ceil_div
from keeper.venue.vault import balances

PAR_E8 = 10**PRICE_DECIMALS


@dataclass(frozen=True, slots=True)
class Purse:
    """Tokens of one account in one vault that nothing has taken yet.

    Args:
        chain, vault, account, token: where and whose.
        rank: order of the asset: settlement assets first, then by haircut.
        amount: in the token's smallest unit.
        divisor: amount · price / divisor is µUSD.
        price_e8: 10**-8 USD; par for a settlement asset.
        haircut_ppm: taken off when a loser pays.
    """

    chain: ChainId
    vault: bytes
    account: bytes
    token: bytes
    rank: int
    amount: int
    divisor: int
    price_e8: int
    haircut_ppm: int


class Purses:
    """All purses of a view, as they are spent.

    Invariants: an amount never falls below zero; iteration order is a pure function of the content.
    """

    def __init__(self, purses: list[Purse]) -> None:
        self._left = {(p.chain, p.account, p.token): p.amount for p in purses}
        self._purses: dict[bytes, list[Purse]] = {}
        for purse in purses:
            self._purses.setdefault(purse.account, []).append(purse)

    def of(self, account: bytes, home: ChainId, receiver: bytes | None = None) -> list[Purse]:
        """Return what an account can still pay with, best first.

        Args:
            account: who pays.
            home: chain of the venue, preferred.
            receiver: who is paid: a chain where it holds something already is preferred.
        """
        liked = {purse.chain for purse in self._purses.get(receiver or b"", ())}
        found = []
        for purse in self._purses.get(account, ()):
            left = self._left[purse.chain, purse.account, purse.token]
            if left:
                found.append(
                    Purse(
                        purse.chain,
                        purse.vault,
                        purse.account,
                        purse.token,
                        purse.rank,
                        left,
                        purse.divisor,
                        purse.price_e8,
                        purse.haircut_ppm,
                    )
                )
        found.sort(key=lambda p: (p.rank, p.chain not in liked, p.chain != home, p.chain, p.token))
        return found

    def take(self, purse: Purse, amount: int) -> None:
        """Take an amount out."""
        key = (purse.chain, purse.account, purse.token)
        self._left[key] -= amount
        assert self._left[key] >= 0, "a purse paid more than it holds"


def available(context: Context, taken: Mapping[Holding, int]) -> Purses:
    """Return every account's purses; assets without a fresh price cannot pay."""
    clearing, assets = context.parameters.clearing, context.parameters.margin.asset_of
    order = {asset: rank for rank, asset in enumerate(clearing.settlement_assets)}
    purses = []
    for spec in context.network.chains:
        records, vault = context.tables.get(spec.id), spec.contract("Vault")
        if records is None or vault is None or spec.id not in context.cut:
            continue
        tokens = {token.address: token for token in spec.tokens}
        for account, at, held in balances(spec, records):
            token = tokens.get(at)
            left = held - taken.get((spec.id, account, at), 0)
            if token is None or left <= 0:
                continue
            divisor = 10 ** (token.decimals + PRICE_DECIMALS - QUOTE_DECIMALS)
            rank, price, haircut = order.get(token.asset, -1), PAR_E8, 0
            if rank < 0:
                mark, asset = context.prices.get(token.asset), assets.get(token.asset)
                if mark is None or asset is None or mark.stale or mark.price_e8 <= 0:
                    continue
                rank = len(order) + asset.haircut_ppm
                price, haircut = mark.price_e8, asset.haircut_ppm
            purses.append(Purse(spec.id, vault, account, at, rank, left, divisor, price, haircut))
    return Purses(purses)


def paying_value(purse: Purse) -> int:
    """Return what a whole purse is worth to a winner, µUSD, rounded down."""
    return purse.amount * purse.price_e8 // purse.divisor


def paying_amount(purse: Purse, value: int, *, to_owner: bool = False) -> tuple[int, int]:
    """Return (tokens, µUSD they clear) to pay at most `value` from a purse.

    Args:
        purse: what pays.
        value: µUSD to clear.
        to_owner: a profit is paid out: no haircut, and tokens are rounded down.
    """
    price, unit = purse.price_e8, purse.divisor
    if not to_owner:
        price, unit = price * (PPM - purse.haircut_ppm), unit * PPM
    if price <= 0:
        return 0, 0
    if to_owner:
        amount = min(purse.amount, value * unit // price)
        return amount, min(value, ceil_div(amount * price, unit))
    amount = ceil_div(value * unit, price)
    if amount <= purse.amount:
        return amount, value
    return purse.amount, purse.amount * price // unit
