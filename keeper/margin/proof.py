"""One fact of a sealed snapshot as a JSON file: all that a stranger needs to check it offline.

    fact (type, values) ─ proof ─▶ state | watch | price root ∈ header (type, values)
                                                                    │ keccak
    seal ◀─ decision root ◀─ proof ─ Header(…, headerHash) ◀────────┘

A decision needs no header: its leaf is under the decision root itself. Types are EIP-712 struct
strings, so this file knows no struct by heart; only which header field a tree's root must be is
fixed here. The seal's signature is checked by a function the caller brings.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from eth_abi.exceptions import EncodingError, ParseError

from keeper.hashing import abi_hash, leaf_hash, type_hash
from keeper.merkle import verify_proof

VERSION = 1
MAX_PROOF = 64
ROOT_FIELDS = {"state": "state", "watch": "watch", "price": "prices"}
"""Tree → the field of the header that must be its root."""
HEADER_LEAF = "Header"
DECISION = "decision"

Value = int | bytes | tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Struct:
    """A typed struct: `Name(type field,…)` and its values in order."""

    type: str
    values: tuple[Value, ...]

    def fields(self) -> list[tuple[str, str]]:
        """Return (type, name) of every field.

        Raises:
            ValueError: the type string is not of the form `Name(type field,…)`.
        """
        name, _, rest = self.type.partition("(")
        pairs = [tuple(part.split(" ")) for part in rest.removesuffix(")").split(",")]
        if not name or not rest.endswith(")") or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"{self.type!r} is no struct type")
        if len(pairs) != len(self.values):
            raise ValueError(f"{name} has {len(pairs)} fields, not {len(self.values)}")
        return [(kind, field) for kind, field in pairs]

    def value(self, field: str) -> Value:
        """Return a field's value.

        Raises:
            ValueError: there is no such field.
        """
        for (_, name), value in zip(self.fields(), self.values, strict=True):
            if name == field:
                return value
        raise ValueError(f"{self.type.partition('(')[0]} has no field {field}")

    @property
    def name(self) -> str:
        """The struct's name."""
        return self.type.partition("(")[0]

    def leaf(self) -> bytes:
        """Return the double-keccak leaf."""
        return leaf_hash(self.type, [kind for kind, _ in self.fields()], list(self.values))

    def hash(self) -> bytes:
        """Return the struct hash, as EIP-712."""
        kinds = ["bytes32", *(kind for kind, _ in self.fields())]
        return abi_hash(kinds, (type_hash(self.type), *self.values))


@dataclass(frozen=True, slots=True)
class SealedFact:
    """A fact with its way to a seal.

    Args:
        tree: state, watch, price or decision.
        fact: the leaf's struct.
        proof: siblings from the fact up to its tree's root.
        header, header_leaf, header_proof: absent for a decision.
        network: 32 bytes.
        seal: the group signature over the decision root.
        group_key: x coordinate of the key it is checked against.
    """

    tree: str
    fact: Struct
    proof: tuple[bytes, ...]
    header: Struct | None
    header_leaf: Struct | None
    header_proof: tuple[bytes, ...]
    network: bytes
    epoch: int
    view: int
    root: bytes
    rx: int
    s: int
    group_key: int


SealCheck = Callable[[SealedFact], bool]
"""Whether the seal of a fact is the group's signature over its root."""


def fault(fact: SealedFact, check_seal: SealCheck) -> str | None:
    """Return what is wrong with a fact, in words, or None if it is proven."""
    try:
        return _fault(fact, check_seal)
    except (ValueError, EncodingError, ParseError) as error:
        return f"the proof is malformed: {error}"


def _fault(fact: SealedFact, check_seal: SealCheck) -> str | None:
    for struct in (fact.fact, fact.header_leaf):
        if struct is not None and _elsewhere(struct, fact):
            return f"{struct.name} is of another network or epoch than the seal"
    if fact.tree == DECISION:
        if not verify_proof(fact.root, fact.fact.leaf(), fact.proof):
            return "the decision is not under the sealed root"
    elif fact.tree in ROOT_FIELDS:
        wrong = _header_fault(fact)
        if wrong is not None:
            return wrong
    else:
        return f"there is no tree {fact.tree!r}"
    return None if check_seal(fact) else "the seal is not the group's signature over the root"


def _elsewhere(struct: Struct, fact: SealedFact) -> bool:
    """Return whether a struct that names network and epoch names others than the seal's."""
    placed = struct.fields()[:2] == [("bytes32", "network"), ("uint32", "epoch")]
    return placed and struct.values[:2] != (fact.network, fact.epoch)


def _header_fault(fact: SealedFact) -> str | None:
    header, leaf = fact.header, fact.header_leaf
    if header is None or leaf is None:
        return "the header is missing"
    if leaf.name != HEADER_LEAF or leaf.value("headerHash") != header.hash():
        return "the header is not the one the snapshot sealed"
    if (leaf.value("view"), header.value("view")) != (fact.view, fact.view):
        return "the header is of another view than the seal"
    root = header.value(ROOT_FIELDS[fact.tree])
    if not isinstance(root, bytes) or not verify_proof(root, fact.fact.leaf(), fact.proof):
        return f"the fact is not under the header's {fact.tree} root"
    if not verify_proof(fact.root, leaf.leaf(), fact.header_proof):
        return "the header is not under the sealed root"
    return None


def dumps(fact: SealedFact) -> str:
    """Return the file: JSON with bytes as 0x text."""
    body = {"format": "flowkeeper-proof", "version": VERSION, **asdict(fact)}
    return json.dumps(body, default=lambda raw: "0x" + raw.hex(), indent=1) + "\n"


def loads(text: str) -> SealedFact:
    """Return the fact of a file.

    Raises:
        ValueError: it is no such file, or of another version.
    """
    try:
        body = json.loads(text)
        if body.pop("format") != "flowkeeper-proof" or body.pop("version") != VERSION:
            raise ValueError("another format or version")
        numbers = {name: body[name] for name in ("epoch", "view", "rx", "s", "group_key")}
        if not all(type(number) is int for number in numbers.values()):
            raise ValueError("a number is no integer")
        return SealedFact(
            tree=str(body["tree"]),
            fact=_struct(body["fact"]),
            proof=_siblings(body["proof"]),
            header=_optional(body["header"]),
            header_leaf=_optional(body["header_leaf"]),
            header_proof=_siblings(body["header_proof"]),
            network=_bytes(body["network"]),
            root=_bytes(body["root"]),
            **numbers,
        )
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a proof file: {error}") from error


def _optional(value: object) -> Struct | None:
    return None if value is None else _struct(value)


def _struct(value: object) -> Struct:
    if not isinstance(value, dict):
        raise TypeError("a struct is an object of type and values")
    return Struct(str(value["type"]), tuple(_value(item) for item in value["values"]))


def _value(item: object) -> Value:
    if isinstance(item, list):
        return tuple(_bytes(one) for one in item)
    if type(item) is int:
        return item
    return _bytes(item)


def _bytes(item: object) -> bytes:
    if not isinstance(item, str) or not item.startswith("0x"):
        raise TypeError("bytes are 0x text")
    return bytes.fromhex(item[2:])


def _siblings(items: object) -> tuple[bytes, ...]:
    if not isinstance(items, list) or len(items) > MAX_PROOF:
        raise TypeError(f"a proof is an array of at most {MAX_PROOF} nodes")
    return tuple(_bytes(item) for item in items)
