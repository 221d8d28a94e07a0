"""The contracts as package data: an installed wheel deploys its own network without a compiler.

    *.vy ──scripts/compile-contracts──▶ artifacts/NAME.json ──artifact(NAME)──▶ ABI, bytecode

`scripts/compile-contracts --check` proves that the committed artefacts are those of the sources.
Calls are encoded here with eth-abi, structs as tuples in field order.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from eth_abi.abi import decode, encode

from keeper.hashing import keccak


@dataclass(frozen=True, slots=True)
class Artifact:
    """One compiled contract.

    Args:
        name: of the source file.
        abi: the JSON ABI.
        bytecode: creation code, to be followed by the encoded constructor arguments.
    """

    name: str
    abi: tuple[Mapping[str, Any], ...]
    bytecode: bytes

    def entry(self, kind: str, name: str | None = None) -> Mapping[str, Any]:
        """Return one ABI entry: a "function", an "event" or the "constructor".

        Raises:
            KeyError: there is none.
        """
        for entry in self.abi:
            if entry["type"] == kind and (name is None or entry["name"] == name):
                return entry
        raise KeyError(f"{self.name} has no {kind} {name or ''}")


def abi_type(entry: Mapping[str, Any]) -> str:
    """Return the type of an ABI parameter with structs written as tuples."""
    kind = str(entry["type"])
    if not kind.startswith("tuple"):
        return kind
    inner = ",".join(abi_type(part) for part in entry["components"])
    return f"({inner}){kind.removeprefix('tuple')}"


def _types(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    return [abi_type(entry) for entry in entries]


@cache
def artifact(name: str) -> Artifact:
    """Return a contract by the name of its source file, for instance "Vault".

    Raises:
        FileNotFoundError: there is no such contract.
    """
    path = files("keeper.contracts") / "artifacts" / f"{name}.json"
    value = json.loads(path.read_text())
    return Artifact(name, tuple(value["abi"]), bytes.fromhex(value["bytecode"][2:]))


@cache
def _function(name: str, function: str) -> tuple[bytes, list[str], list[str]]:
    entry = artifact(name).entry("function", function)
    types = _types(entry["inputs"])
    return (
        keccak(f"{function}({','.join(types)})".encode())[:4],
        types,
        _types(entry["outputs"]),
    )


def deploy_data(name: str, *args: object) -> bytes:
    """Return the data of a transaction that deploys a contract."""
    made = artifact(name)
    try:
        types = _types(made.entry("constructor")["inputs"])
    except KeyError:
        types = []
    return made.bytecode + encode(types, args)


def encode_call(name: str, function: str, *args: object) -> bytes:
    """Return selector and encoded arguments of a call; structs are tuples in field order."""
    selector, types, _ = _function(name, function)
    return selector + encode(types, args)


def decode_result(name: str, function: str, data: bytes) -> tuple[Any, ...]:
    """Return the values a call answered."""
    return tuple(decode(_function(name, function)[2], data))


@cache
def topic(name: str, event: str) -> bytes:
    """Return the first topic of an event."""
    types = _types(artifact(name).entry("event", event)["inputs"])
    return keccak(f"{event}({','.join(types)})".encode())
