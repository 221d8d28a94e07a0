"""The whole set of an epoch, its canonical bytes, and its digest.

encode() ── msgpack [version, sections as arrays in field order] ── digest = keccak

Bytes come from a descriptor file or from a proposal on chain, so they are hostile until decoded:
the types must be exact, the bytes canonical, and the numbers possible (checks.py).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from types import GenericAlias
from typing import Any, get_args, get_type_hints

import msgpack

from keeper.hashing import keccak
from keeper.parameters.breakers import BreakerParameters
from keeper.parameters.checks import faults
from keeper.parameters.clearing import ClearingParameters
from keeper.parameters.competition import CompetitionParameters
from keeper.parameters.liquidation import LiquidationParameters
from keeper.parameters.margin import MarginParameters
from keeper.parameters.rotation import RotationParameters

VERSION = 2


@dataclass(frozen=True, slots=True)
class Parameters:
    """Everything governance set for one epoch."""

    margin: MarginParameters
    liquidation: LiquidationParameters
    breakers: BreakerParameters
    clearing: ClearingParameters
    competition: CompetitionParameters
    rotation: RotationParameters

    def encode(self) -> bytes:
        """Return the canonical bytes: version, then sections as arrays in field order."""
        packed: bytes = msgpack.packb([VERSION, _plain(self)])
        return packed

    @classmethod
    def decode(cls, raw: bytes) -> "Parameters":
        """Return the parameters of canonical bytes.

        Raises:
            ValueError: the bytes are not canonical, of another version, or say the impossible.
        """
        try:
            version, body = msgpack.unpackb(raw, use_list=False)
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
            # no words of the library: a refusal's text is agreed on by keepers of any version
            raise ValueError("parameters do not decode") from error
        if version != VERSION:
            raise ValueError(f"parameters have version {version}, not {VERSION}")
        value = _typed(cls, body)
        if not isinstance(value, Parameters) or value.encode() != raw:
            raise ValueError("parameters are not in canonical form")
        wrong = faults(
            value.margin,
            value.liquidation,
            value.breakers,
            value.clearing,
            value.competition,
            value.rotation,
        )
        if wrong:
            raise ValueError(f"parameters are impossible: {wrong[0]}")
        return value

    @property
    def digest(self) -> bytes:
        """Keccak of the canonical bytes: what keepers compare."""
        return keccak(self.encode())

    @classmethod
    def devnet(cls, chains: Sequence[int] = (31337, 31338)) -> "Parameters":
        """Return values that are safe for a devnet only."""
        from keeper.parameters import devnet

        return cls(
            devnet.margin(chains),
            devnet.LIQUIDATION,
            devnet.BREAKERS,
            devnet.CLEARING,
            devnet.COMPETITION,
            devnet.ROTATION,
        )


def _plain(value: object) -> object:
    """Return the value as nested lists of integers, bytes and text."""
    if dataclasses.is_dataclass(value):
        return [_plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init]
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, int) else value


def _typed(kind: Any, value: Any) -> Any:
    """Return nested tuples as the dataclasses and scalars of a type."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        names = [f.name for f in dataclasses.fields(kind) if f.init]
        if not isinstance(value, tuple) or len(value) != len(names):
            raise ValueError(f"{kind.__name__} needs {len(names)} fields")
        items = zip(names, value, strict=True)
        return kind(**{name: _typed(hints[name], item) for name, item in items})
    if isinstance(kind, GenericAlias):
        if not isinstance(value, tuple):
            raise ValueError("expected an array")
        return tuple(_typed(get_args(kind)[0], item) for item in value)
    base = getattr(kind, "__supertype__", kind)
    if type(value) is not base:
        raise ValueError(f"expected {base.__name__}, not {type(value).__name__}")
    return value
