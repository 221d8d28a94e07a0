"""The bidder's side: what one keeper commits to, reveals, and keeps in reserve.

    decisions of the policy ─▶ commit(view) ─▶ Commit to gossip
    next state: our commitment frozen ─▶ follow ─▶ body to gossip
    state after: award names us first ─▶ follow ─▶ Won      otherwise the reserve is free again

Bond and capital are reserved when the bid is made, so two rounds in flight never promise the same
dollar; a bid that does not fit is left out, open tasks and best profit first. A pure state machine:
salts and signatures are handed in.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from keeper.compete.bids import MAX_BIDS, Bid, BidVector, Commit, commit_hash, make_vector
from keeper.compete.state import AwardState, OpenAward
from keeper.compete.task import bond_lock
from keeper.parameters import Parameters

MAX_ROUNDS = 8
"""Commitments kept for reveal: two rounds are open at once, the rest waits for late views."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a policy would do: bid at most `price` µUSD for a subject.

    Args:
        subject: of `Target.subject`.
        price: the bid, µUSD.
        value: notional it would close, µUSD: what the bond lock follows.
        capital: µUSD of own funds it would need until it is settled.
        profit: µUSD expected after everything but the price.
        standing: whether the position is only near liquidation: open tasks are bid for first.
    """

    subject: bytes
    price: int
    value: int
    capital: int = 0
    profit: int = 0
    standing: bool = False


@dataclass(frozen=True, slots=True)
class Reserve:
    """Bond units and µUSD set aside."""

    bond: int = 0
    capital: int = 0

    def __add__(self, other: "Reserve") -> "Reserve":
        return Reserve(self.bond + other.bond, self.capital + other.capital)


@dataclass(slots=True)
class Bidder:
    """One keeper's bids in flight.

    Invariants: for every view at most one vector is ever signed; what is reserved covers every bid
    that may still win and every award held.
    """

    network: bytes
    epoch: int
    config: bytes
    address: bytes
    parameters: Parameters
    vectors: dict[int, BidVector] = field(default_factory=dict)
    asked: dict[int, dict[bytes, Reserve]] = field(default_factory=dict)
    held: dict[bytes, Reserve] = field(default_factory=dict)
    last_view: int = 0

    def recall(self, vector: BidVector) -> None:
        """Take up a vector that an earlier life of this keeper committed to."""
        self.vectors[vector.view] = vector
        self.last_view = max(self.last_view, vector.view)

    def reserved(self) -> Reserve:
        """Return what open rounds and held awards may need.

        Two rounds may ask for the same subject, which can be won once: the larger counts.
        """
        worst: dict[bytes, Reserve] = dict(self.held)
        for asked in self.asked.values():
            for subject, reserve in asked.items():
                known = worst.get(subject, Reserve())
                worst[subject] = Reserve(
                    max(known.bond, reserve.bond), max(known.capital, reserve.capital)
                )
        return sum(worst.values(), Reserve())

    def commit(
        self,
        view: int,
        wishes: Iterable[Wish],
        available: Reserve,
        salt: bytes,
        sign: Callable[[bytes], bytes],
    ) -> Commit | None:
        """Return the signed commitment of a round, or None when no wish fits or it was made.

        Args:
            view: the round that the state collects for.
            wishes: what the policy would do.
            available: bond units and µUSD before anything this bidder reserved.
            salt: 32 fresh random bytes.
            sign: 64-byte signature of a digest by the bidder's key.
        """
        if view <= self.last_view:
            return None
        used = self.reserved()
        bids: list[Bid] = []
        asked: dict[bytes, Reserve] = {}
        for wish in sorted(wishes, key=lambda one: (one.standing, -one.profit, one.subject)):
            if len(bids) == MAX_BIDS:
                break
            need = Reserve(bond_lock(wish.value, wish.price, self.parameters), wish.capital)
            fits = (
                used.bond + need.bond <= available.bond
                and used.capital + need.capital <= available.capital
            )
            if wish.subject in asked or wish.subject in self.held or not fits:
                continue
            used = used + need
            bids.append(Bid(wish.subject, wish.price))
            asked[wish.subject] = need
        if not bids:
            return None
        vector = make_vector(view, self.address, bids, salt)
        self.last_view = view
        self.vectors[view], self.asked[view] = vector, asked
        while len(self.vectors) > MAX_ROUNDS:
            self._drop(min(self.vectors))
        digest = commit_hash(
            self.network, self.epoch, self.config, view, self.address, vector.commitment
        )
        return Commit(self.epoch, self.config, view, self.address, vector.commitment, sign(digest))

    def follow(self, view: int, state: AwardState) -> tuple[list[bytes], list[OpenAward]]:
        """Return bodies to reveal now, and every open award in which this keeper is first.

        Args:
            view: the view of the snapshot.
            state: its competition state.
        """
        reveals = []
        running = {state.collecting, *state.late}
        for one in state.revealing:
            running.add(one.view)
            vector = self.vectors.get(one.view)
            opened = {bidder for bidder, _ in one.opened}
            if vector is None or self.address in opened:
                continue
            if (self.address, vector.commitment) in one.frozen:
                reveals.append(vector.encode())
        won = [award for award in state.awards if award.ranks[0] == self.address]
        self._hold(won)
        for old in [at for at in self.vectors if at not in running and at < view]:
            self._drop(old)
        return reveals, won

    def _hold(self, won: Sequence[OpenAward]) -> None:
        """Keep the reserve of awards held, and free that of awards that ended."""
        held = {}
        for award in won:
            subject = award.task.target.subject
            capital = max(
                [asked[subject].capital for asked in self.asked.values() if subject in asked],
                default=self.held.get(subject, Reserve()).capital,
            )
            held[subject] = Reserve(award.lock, capital)
        self.held = held

    def _drop(self, view: int) -> None:
        self.vectors.pop(view, None)
        self.asked.pop(view, None)
