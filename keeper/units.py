"""Names for bare numbers, and integer arithmetic whose rounding is in its name.

Money, ratios and digests are Python integers everywhere:

    quote, equity   µUSD    10**-6 dollars      price    10**-8 dollars
    size            10**-decimals of a market   rate     ppm, 10**-6
    funding index   10**-12

What an account owns is floored (towards minus infinity), what it owes is ceiled, so rounding
never favours the account.
"""

from typing import NewType

ChainId = NewType("ChainId", int)
"""EVM chain id, the `eip155:` reference of CAIP-2."""
BlockNumber = NewType("BlockNumber", int)
Timestamp = NewType("Timestamp", int)
"""Unix seconds, as a chain says."""
Instant = NewType("Instant", float)
"""This node's monotonic clock in seconds; never on the wire."""
Wei = NewType("Wei", int)

PPM = 1_000_000
PRICE_DECIMALS = 8
QUOTE_DECIMALS = 6
FUNDING_DECIMALS = 12


def ceil_div(numerator: int, denominator: int) -> int:
    """Return numerator / denominator rounded towards plus infinity (denominator > 0)."""
    return -(-numerator // denominator)


def ppm_floor(amount: int, rate_ppm: int) -> int:
    """Return amount · rate rounded towards minus infinity: what an account owns."""
    return amount * rate_ppm // PPM


def ppm_ceil(amount: int, rate_ppm: int) -> int:
    """Return amount · rate rounded towards plus infinity: what an account owes."""
    return -(-amount * rate_ppm // PPM)


def symbol(text: str) -> bytes:
    """Return the 32-byte id of a market or an asset: its ASCII symbol padded with zeros.

    Raises:
        ValueError: the symbol is empty, not ASCII, or longer than 32 bytes.
    """
    raw = text.encode("ascii")
    if not 0 < len(raw) <= 32:
        raise ValueError(f"symbol {text!r} must have 1 to 32 ASCII characters")
    return raw.ljust(32, b"\0")


def symbol_text(raw: bytes) -> str:
    """Return the text of a 32-byte symbol."""
    return raw.rstrip(b"\0").decode("ascii")
