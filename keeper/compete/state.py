"""The competition's replicated state: rounds, open tasks, open awards; canonical bytes.

    collecting ──▶ revealing ──▶ awarded        a round; one is opened in every view that needs one
    open task ──▶ award ──▶ executed | voided   what it is about

Everything is bounded: rounds by their age, tasks and awards by constants, `recent` by governance.
Numbers that may pass 64 bits travel as text.
"""

from dataclasses import dataclass

import msgpack

from keeper.compete.task import Target, Task
from keeper.units import ChainId

MAX_AWARDS = 512
"""Open awards at once; with a life of a minute or two that is several liquidations a second."""
MAX_CHARGES = 1024
"""Penalties that may wait for a place in a view: 31 keepers failing for half a minute."""


@dataclass(frozen=True, slots=True)
class Round:
    """A round whose commitments are frozen.

    Args:
        view: the view it was opened in; bids name it.
        frozen: (bidder, commitment), sorted.
        opened: (bidder, revealed body), sorted.
        age: views since it was frozen.
    """

    view: int
    frozen: tuple[tuple[bytes, bytes], ...]
    opened: tuple[tuple[bytes, bytes], ...] = ()
    age: int = 0


@dataclass(frozen=True, slots=True)
class OpenAward:
    """An award that has not ended on its chain.

    Args:
        task: what it is for, as it was when awarded.
        leaf: what its chain records when it is executed.
        ranks: who may act, first the winner.
        price: µUSD the winner pays.
        lock: the winner's bond at stake.
        start, exclusive, step, open_at, last: windows in blocks of the target chain.
        ill: whether the account was unhealthy, and liquidations allowed, in every view since.
        voiding: block until which an attestation that ends it is on its way; 0: none.
    """

    task: Task
    leaf: bytes
    ranks: tuple[bytes, ...]
    price: int
    lock: int
    start: int
    exclusive: int
    step: int
    open_at: int
    last: int
    ill: bool = True
    voiding: int = 0


@dataclass(frozen=True, slots=True)
class Charge:
    """A penalty that is due: for which task or commitment, by whom, bond units, who gets half."""

    task: bytes
    keeper: bytes
    amount: int
    beneficiary: bytes


@dataclass(frozen=True, slots=True)
class Flying:
    """A charge that was sealed, by its leaf, and the last block of the hub meant for it."""

    charge: Charge
    leaf: bytes
    until: int


@dataclass(frozen=True, slots=True)
class AwardState:
    """See the drawing.

    Args:
        collecting: view whose round takes commitments now; 0: none.
        late: older rounds for which no commitment was reported yet, oldest first.
        revealing: frozen rounds, oldest first.
        tasks: open and not awarded, riskiest first.
        awards: open awards, sorted by task id.
        recent: winners of the last awards, newest last.
        no_shows: (keeper, count) of this epoch, sorted.
        windows: (chain, market, window, µUSD awarded in it), sorted.
        charges: penalties that did not fit into the view they were due in, oldest first.
        flying: penalties on their way to the hub, oldest first; one that expires is due again.
        nonce: numbers penalties.
        epoch: whose committee the rounds and no-shows are about.
    """

    collecting: int = 0
    late: tuple[int, ...] = ()
    revealing: tuple[Round, ...] = ()
    tasks: tuple[Task, ...] = ()
    awards: tuple[OpenAward, ...] = ()
    recent: tuple[bytes, ...] = ()
    no_shows: tuple[tuple[bytes, int], ...] = ()
    windows: tuple[tuple[ChainId, bytes, int, int], ...] = ()
    charges: tuple[Charge, ...] = ()
    flying: tuple[Flying, ...] = ()
    nonce: int = 0
    epoch: int = 0

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        packed: bytes = msgpack.packb(
            [
                self.collecting,
                self.late,
                [[r.view, r.frozen, r.opened, r.age] for r in self.revealing],
                [_task_row(task) for task in self.tasks],
                [_award_row(award) for award in self.awards],
                self.recent,
                self.no_shows,
                [[chain, market, at, str(used)] for chain, market, at, used in self.windows],
                [_charge_row(charge) for charge in self.charges],
                [[_charge_row(one.charge), one.leaf, one.until] for one in self.flying],
                self.nonce,
                self.epoch,
            ]
        )
        return packed


def _charge_row(charge: Charge) -> list[object]:
    return [charge.task, charge.keeper, str(charge.amount), charge.beneficiary]


def _task_row(task: Task) -> list[object]:
    target = task.target
    numbers = (task.size, task.value, task.bonus, task.reserve, task.lock)
    place = [target.chain, target.account, target.venue, target.market]
    return [task.id, place, task.view, [str(number) for number in numbers]]


def _award_row(award: OpenAward) -> list[object]:
    return [
        _task_row(award.task),
        award.leaf,
        award.ranks,
        str(award.price),
        str(award.lock),
        [award.start, award.exclusive, award.step, award.open_at, award.last],
        [award.ill, award.voiding],
    ]


def decode(raw: bytes) -> AwardState:
    """Return the state that `encode` wrote.

    Raises:
        ValueError: the bytes are something else.
    """
    try:
        row = msgpack.unpackb(raw, use_list=False)
        collecting, late, revealing, tasks, awards, recent, no_shows, windows, *rest = row
        charges, flying, nonce, epoch = rest
        return AwardState(
            collecting,
            late,
            tuple(Round(*one) for one in revealing),
            tuple(_task(one) for one in tasks),
            tuple(_award(one) for one in awards),
            recent,
            no_shows,
            tuple((ChainId(chain), market, at, int(used)) for chain, market, at, used in windows),
            tuple(_charge(one) for one in charges),
            tuple(Flying(_charge(one), leaf, until) for one, leaf, until in flying),
            nonce,
            epoch,
        )
    except (TypeError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(f"malformed competition state: {error}") from error


def _charge(row: tuple[bytes, bytes, str, bytes]) -> Charge:
    task, keeper, amount, beneficiary = row
    return Charge(task, keeper, int(amount), beneficiary)


def _task(row: tuple[bytes, tuple[int, bytes, bytes, bytes], int, tuple[str, ...]]) -> Task:
    task, (chain, account, venue, market), view, numbers = row
    size, value, bonus, reserve, lock = (int(number) for number in numbers)
    target = Target(ChainId(chain), account, venue, market)
    return Task(task, target, view, size, value, bonus, reserve, lock)


def _award(
    row: tuple[
        tuple[bytes, tuple[int, bytes, bytes, bytes], int, tuple[str, ...]],
        bytes,
        tuple[bytes, ...],
        str,
        str,
        tuple[int, int, int, int, int],
        tuple[bool, int],
    ],
) -> OpenAward:
    task, leaf, ranks, price, lock, window, (ill, voiding) = row
    return OpenAward(_task(task), leaf, ranks, int(price), int(lock), *window, ill, voiding)
