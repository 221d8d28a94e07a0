"""Decisions and plan steps as calldata for the reference contracts.

    Credit      Perps.apply_credit      Award        Awards.execute on its chain, Bonds.lock on hub
    Release     Vault.release           Attestation  Awards.void
    Transfer    Vault.transfer          Penalty      Bonds.penalise
    FlowOutcome Escrow.settle           Filled       Intents.claim    Unfilled  Intents.refund
    CommitteeChange  Committee.propose_change
    Stop        Vault.stop

A decision's fields are the call's arguments after seal and proof, in order. Anyone may bring one;
only an award looks at who does. The layout of `Award` is that of contracts/awarding.vy.
"""

from collections.abc import Sequence
from typing import Protocol

from eth_abi.abi import encode

from keeper.hashing import keccak
from keeper.plan import Step, StepKind
from keeper.units import ChainId
from keeper.venue.port import Call

SEAL = "(uint32,uint64,bytes32,uint256,uint256,uint256)"
PROOF = "bytes32[]"
AWARD = (
    "(bytes32,bytes32,address,bytes32,uint256,uint256,address[],"
    "uint64,uint64,uint64,uint64,uint64,uint256)"
)

CHANGE = "(uint32,uint256,bytes32,bytes32,uint64)"

SealTuple = tuple[int, int, bytes, int, int, int]
"""(epoch, view, root, rx, ry, s) of contracts/proofs.vy."""
Value = int | bytes | str | tuple[bytes, ...]

_BRING: dict[str, tuple[str, tuple[str, ...]]] = {
    "Credit": ("apply_credit", ("bytes32", "uint256", "uint64", "uint64")),
    "Release": (
        "release",
        ("bytes32", "address", "uint256", "address", "uint64", "uint64"),
    ),
    "Transfer": (
        "transfer",
        ("bytes32", "bytes32", "address", "uint256", "uint64", "uint64"),
    ),
    "Attestation": ("void", ("bytes32",)),
    "Penalty": ("penalise", ("bytes32", "address", "uint256", "address", "uint64", "uint64")),
    "BreakerChange": ("change", ("bytes32", "uint8", "uint8", "uint64", "uint64")),
    "FlowOutcome": ("settle", ("bytes32", "uint8", "uint16")),
    "Filled": ("claim", ("bytes32", "address")),
    "Unfilled": ("refund", ("bytes32",)),
    "CommitteeChange": ("propose_change", (CHANGE,)),
    "Stop": ("stop", ("bytes32",)),
}


class Sealed(Protocol):
    """A decision under a seal; `keeper.snapshot.decisions.Decision` is one."""

    @property
    def kind(self) -> str:
        """The struct name of its leaf."""

    @property
    def chain(self) -> ChainId:
        """Where it goes."""

    @property
    def contract(self) -> bytes:
        """Who takes it."""

    @property
    def fields(self) -> tuple[int | bytes | tuple[bytes, ...], ...]:
        """Arguments after seal and proof."""


def calldata(name: str, types: Sequence[str], values: Sequence[object]) -> bytes:
    """Return selector and arguments of a function."""
    selector = keccak(f"{name}({','.join(types)})".encode())[:4]
    return selector + encode(types, values)


def bring(decision: Sealed, seal: SealTuple, proof: Sequence[bytes]) -> Call:
    """Return the call that brings a decision to its contract; an award needs `execute` instead.

    Raises:
        KeyError: the kind is not one of this room's.
    """
    name, types = _BRING[decision.kind]
    fields = (decision.fields,) if types == (CHANGE,) else decision.fields
    values = (seal, list(proof), *fields)
    data = calldata(name, (SEAL, PROOF, *types), values)
    return Call(decision.chain, decision.contract, data)


def _award(fields: Sequence[object]) -> tuple[object, ...]:
    return tuple(list(value) if isinstance(value, tuple) else value for value in fields)


def execute(
    decision: Sealed, seal: SealTuple, proof: Sequence[bytes], size: int, purse: bytes
) -> Call:
    """Return the winner's call: close `size`, credit the bonus less the price to `purse`."""
    types = (SEAL, PROOF, AWARD, "uint256", "bytes32")
    values = (seal, list(proof), _award(decision.fields), size, purse)
    return Call(decision.chain, decision.contract, calldata("execute", types, values))


def lock(
    decision: Sealed, seal: SealTuple, proof: Sequence[bytes], hub: ChainId, bonds: bytes
) -> Call:
    """Return the call that locks the winner's bond on the hub."""
    types = (SEAL, PROOF, "uint64", "address", AWARD)
    place = (decision.chain, decision.contract)
    values = (seal, list(proof), *place, _award(decision.fields))
    return Call(hub, bonds, calldata("lock", types, values))


_STEPS: dict[StepKind, tuple[str, tuple[tuple[str, str], ...]]] = {
    StepKind.OPEN: (
        "increase",
        (("index", "uint256"), ("market", "bytes32"), ("size", "int256"), ("limit", "uint256")),
    ),
    StepKind.REDUCE: (
        "reduce",
        (("index", "uint256"), ("market", "bytes32"), ("size", "uint256"), ("limit", "uint256")),
    ),
    StepKind.DEPOSIT: (
        "deposit",
        (("index", "uint256"), ("token", "address"), ("amount", "uint256")),
    ),
    StepKind.WITHDRAW: (
        "request_withdraw",
        (("index", "uint256"), ("token", "address"), ("amount", "uint256"), ("to", "address")),
    ),
}


def step_call(step: Step) -> Call:
    """Return the call of a plan step on the reference contracts; missing numbers are 0.

    Raises:
        KeyError: the kind is not one of the reference contracts', or bytes are missing.
    """
    name, arguments = _STEPS[step.kind]
    given = dict(step.args)
    types = [kind for _, kind in arguments]
    values = [given.get(key, 0) if "int" in kind else given[key] for key, kind in arguments]
    return Call(step.chain, step.venue, calldata(name, types, values))
