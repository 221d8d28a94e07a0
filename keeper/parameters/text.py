"""A set as people write it: JSON with the names of the fields, symbols as text.

    Parameters ── plain ──▶ {"margin": {"markets": [{"symbol": "ETH-USD", …}]}, …}
               ◀─ parse ──  every field named, none left out, none too many

The JSON is for reading and editing only; what is agreed on are the canonical bytes (whole.py).
"""

import dataclasses
from collections.abc import Iterator
from types import GenericAlias
from typing import Any, get_args, get_type_hints

from keeper.parameters.whole import Parameters
from keeper.units import symbol, symbol_text


def plain(value: Any) -> Any:
    """Return a value as dictionaries, lists, numbers and text."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return _text(value) if isinstance(value, bytes) else int(value)


def parse(value: Any) -> Parameters:
    """Return the set that `plain` wrote.

    Raises:
        ValueError: a field is missing, unknown, of the wrong type, or says the impossible.
    """
    made = _typed(Parameters, value, "parameters")
    return Parameters.decode(made.encode())


def differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (field, before, after) of what differs; a row that one set lacks is None there."""
    if dataclasses.is_dataclass(old):
        for one in dataclasses.fields(old):
            if one.init:
                inner = f"{name}.{one.name}".lstrip(".")
                yield from differences(getattr(old, one.name), getattr(new, one.name), inner)
    elif isinstance(old, tuple):
        for at in range(max(len(old), len(new))):
            before, after = (row[at] if at < len(row) else None for row in (old, new))
            if before is None or after is None:
                yield f"{name}[{at}]", _shown(before), _shown(after)
            else:
                yield from differences(before, after, f"{name}[{at}]")
    elif old != new:
        yield name, plain(old), plain(new)


def _shown(row: Any) -> Any:
    return None if row is None else plain(row)


def _text(raw: bytes) -> str:
    try:
        text = symbol_text(raw)
        return text if text.isprintable() and symbol(text) == raw else "0x" + raw.hex()
    except ValueError:
        return "0x" + raw.hex()


def _typed(kind: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        names = [f.name for f in dataclasses.fields(kind) if f.init]
        if not isinstance(value, dict) or set(value) != set(names):
            odd = set(value) ^ set(names) if isinstance(value, dict) else set(names)
            raise ValueError(f"{name}: {min(odd)} is missing or unknown")
        return kind(**{n: _typed(hints[n], value[n], f"{name}.{n}") for n in names})
    if isinstance(kind, GenericAlias):
        if not isinstance(value, list):
            raise ValueError(f"{name} is no list")
        item = get_args(kind)[0]
        return tuple(_typed(item, one, f"{name}[{at}]") for at, one in enumerate(value))
    base = getattr(kind, "__supertype__", kind)
    if base is bytes:
        return _raw(value, name)
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} is no whole number of 64 bits")
    return value


def _raw(value: Any, name: str) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    try:
        return bytes.fromhex(value[2:]) if value.startswith("0x") else symbol(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
