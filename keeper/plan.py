"""What a policy asks for: a plan is a small graph of steps, never a transaction.

    Step a ──▶ Step b ──▶ Step d        a step runs when all it `needs` are done;
       └─────▶ Step c ─────▲            `rollback` names the step that undoes it

A plan holds no gas, nonce, key or endpoint: those belong to keeper/execute.
"""

from dataclasses import dataclass
from enum import StrEnum

from keeper.units import ChainId

MAX_STEPS = 32
"""A plan larger than this is a mistake or an attack: every built-in needs fewer than ten."""


class StepKind(StrEnum):
    """What a venue or bridge adapter turns into calls."""

    LIQUIDATE = "liquidate"
    REDUCE = "reduce"
    OPEN = "open"
    REPAY = "repay"
    DEPOSIT = "deposit"
    WITHDRAW = "withdraw"
    SWAP = "swap"
    BRIDGE = "bridge"
    TRANSFER = "transfer"
    FILL = "fill"


@dataclass(frozen=True, slots=True)
class Step:
    """One effect on one chain.

    Args:
        id: unique inside the plan.
        chain: where it happens.
        kind: which verb of the venue.
        venue: contract or bridge it goes to, 20 bytes.
        args: named integers and bytes in key order; their meaning belongs to (venue, kind).
        needs: ids of steps that must be final first.
        rollback: id of the step that undoes this one, or empty.
    """

    id: str
    chain: ChainId
    kind: StepKind
    venue: bytes
    args: tuple[tuple[str, int | bytes], ...]
    needs: tuple[str, ...] = ()
    rollback: str = ""

    def arg(self, name: str) -> int | bytes:
        """Return a named argument.

        Raises:
            KeyError: there is none.
        """
        return dict(self.args)[name]


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps towards one goal; valid only for the certified view it was made from.

    Args:
        view: the sealed view the plan was derived from.
        task: the task it serves, 32 bytes, or the hash of the steps where there is none.
        steps: in an order in which every step comes after what it needs.
        why: one sentence for the operator.
    """

    view: int
    task: bytes
    steps: tuple[Step, ...]
    why: str


def check_plan(plan: Plan) -> str | None:
    """Return what is wrong with the plan's shape, or None."""
    if not 0 < len(plan.steps) <= MAX_STEPS:
        return f"a plan has 1 to {MAX_STEPS} steps, this one has {len(plan.steps)}"
    seen: set[str] = set()
    for step in plan.steps:
        if step.id in seen:
            return f"step id {step.id!r} is used twice"
        for need in step.needs:
            if need not in seen:
                return f"step {step.id!r} needs {need!r}, which does not come before it"
        seen.add(step.id)
    for step in plan.steps:
        if step.rollback and step.rollback not in seen:
            return f"step {step.id!r} names an unknown rollback {step.rollback!r}"
    return None
