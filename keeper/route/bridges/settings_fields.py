"""What sections of `[bridges.NAME]` have in common: keys, addresses, whole numbers, times."""

from collections.abc import Mapping, Sequence
from typing import Any

from keeper.route.bridges.port import Timing


def known(row: Mapping[str, Any], keys: set[str]) -> None:
    """Refuse a key that is not known.

    Raises:
        ValueError: there is one.
    """
    unknown = set(row) - keys
    if unknown:
        raise ValueError(f"unknown key {min(unknown)!r}")


def address(text: str) -> bytes:
    """Return the 20 bytes of an address.

    Raises:
        ValueError: it is none, or the zero address, which no contract and no signer has.
    """
    raw = bytes.fromhex(text.removeprefix("0x"))
    if len(raw) != 20 or not any(raw):
        raise ValueError(f"{text!r} is no address")
    return raw


def whole(row: Mapping[str, Any], key: str, without: int | None = None) -> int:
    """Return a whole number that is not negative.

    Args:
        row: a section.
        key: which of its fields.
        without: what it is where it is missing, if it may be.

    Raises:
        ValueError: it is another thing.
        KeyError: it is missing.
    """
    value = row[key] if without is None else row.get(key, without)
    if type(value) is not int or value < 0:
        raise ValueError(f"{key} is a whole number, not {value!r}")
    return value


def signers(texts: Sequence[str], threshold: int, called: str) -> tuple[bytes, ...]:
    """Return the addresses of those who sign.

    Raises:
        ValueError: two are the same, or they cannot reach the threshold.
    """
    found = tuple(address(text) for text in texts)
    if len(set(found)) != len(found) or not 0 < threshold <= len(found):
        raise ValueError(f"{called} are different, and at least as many as the threshold")
    return found


def timing(row: Mapping[str, Any]) -> Timing:
    """Return the advertised times: `p95_s`, and `p50_s` or half of it.

    Raises:
        ValueError: they are no times.
        KeyError: `p95_s` is missing.
    """
    p95_ms = whole(row, "p95_s") * 1000
    p50_ms = whole(row, "p50_s") * 1000 if "p50_s" in row else p95_ms // 2
    if not 0 < p50_ms <= p95_ms:
        raise ValueError("p50_s is above 0 and at most p95_s")
    return Timing(p50_ms, p95_ms)
