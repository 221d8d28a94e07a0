"""What a keeper holds above its last final block: certificates, bodies, and who may follow whom.

    final ── view 8 N ── view 9 Z ── view 10 N ── (view 11: a leader builds on 10)
                body                    body

A view is *justified* once it is notarized or nullified. A block may follow a notarized one if all
views between are nullified. Bodies may be missing: certificates arrive without them. Pure
bookkeeping, no rule of voting lives here.
"""

from collections.abc import Set
from dataclasses import dataclass, field

from p2p.types import Certificate, Kind, Proposal


@dataclass(frozen=True, slots=True)
class Place:
    """One block's place in the chain."""

    view: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Start:
    """Where an epoch begins: view and tick of the block that closed the epoch before.

    The first block of the epoch follows that view, and names the committee's config as its parent.
    """

    view: int = 0
    tick: int = 0


@dataclass(slots=True)
class Chain:
    """Certificates and bodies since the final block.

    Invariants: at most one notarized digest per view (two would need f + 1 liars; the first stays);
    `final` never moves back; a body is adopted only after its parent.
    """

    final: Place
    final_tick: int = 0
    notarized: dict[int, Certificate] = field(default_factory=dict)
    nullified: dict[int, Certificate] = field(default_factory=dict)
    finalizing: Certificate | None = None
    """The highest finalize certificate; its block is final once every body below is here."""
    bodies: dict[Place, Proposal] = field(default_factory=dict)
    adopted: set[Place] = field(default_factory=set)

    def add_certificate(self, certificate: Certificate) -> bool:
        """Hold a checked certificate; return whether it is new."""
        view = certificate.view
        if certificate.kind is Kind.NULLIFY:
            if view in self.nullified or view <= self.final.view:
                return False
            self.nullified[view] = certificate
            return True
        held = self.notarized.get(view)
        if certificate.kind is Kind.NOTARIZE:
            if held is not None or view <= self.final.view:
                return False
            self.notarized[view] = certificate
            return True
        if view <= max(self.final.view, self.finalizing.view if self.finalizing else 0):
            return False
        self.finalizing = certificate
        if held is None or held.digest != certificate.digest:
            self.notarized[view] = certificate
        return True

    def holds(self, kind: Kind, view: int, digest: bytes) -> bool:
        """Return whether a certificate of this kind for this digest adds nothing."""
        if kind is Kind.FINALIZE:
            top = max(self.final.view, self.finalizing.view if self.finalizing else 0)
            return view <= top
        if view <= self.final.view:
            return True
        table = self.nullified if kind is Kind.NULLIFY else self.notarized
        return view in table

    def top(self) -> int:
        """Return the highest certified view."""
        return max(self.final.view, max(self.notarized, default=0), max(self.nullified, default=0))

    def certified(self, view: int) -> Place | None:
        """Return the notarized or final block of a view."""
        if view == self.final.view:
            return self.final
        held = self.notarized.get(view)
        return Place(view, held.digest) if held else None

    def parent_for(self, view: int) -> Place | None:
        """Return the highest notarized block that a block of `view` may follow."""
        below = view - 1
        while below > self.final.view and below not in self.notarized and below in self.nullified:
            below -= 1
        return self.certified(below) if below >= self.final.view else None

    def justifies(self, parent: Place, view: int) -> bool:
        """Return whether a block of `view` may follow `parent`."""
        return (
            parent.view >= self.final.view
            and self.certified(parent.view) == parent
            and all(between in self.nullified for between in range(parent.view + 1, view))
        )

    def proofs(self, parent: Place, view: int, limit: int) -> tuple[Certificate, ...]:
        """Return what convinces others that a block of `view` may follow `parent`."""
        held = [self.nullified[between] for between in range(parent.view + 1, view)]
        head = self.notarized.get(parent.view)
        return ((head,) if head else ()) + tuple(held[-(limit - 1) :])

    def first_gap(self, view: int) -> int | None:
        """Return the highest view below `view` that is not justified, if any matters.

        Views below the highest notarized one do not matter to a keeper that enters a view.
        """
        below = view - 1
        while below > self.final.view and below not in self.notarized:
            if below not in self.nullified:
                return below
            below -= 1
        return None

    def missing_body(self) -> Place | None:
        """Return the highest certified block without a body that stands between us and the tip."""
        tips = [self.finalizing] if self.finalizing else []
        if self.notarized:
            tips.append(self.notarized[max(self.notarized)])
        for tip in tips:
            place = Place(tip.view, tip.digest)
            while place.view > self.final.view:
                body = self.bodies.get(place)
                if body is None:
                    return place
                place = Place(body.parent_view, body.parent)
        return None

    def tick_of(self, place: Place) -> int | None:
        """Return a block's tick, if its body is here."""
        if place == self.final:
            return self.final_tick
        body = self.bodies.get(place)
        return body.tick if body else None

    def adoptable(self) -> tuple[Place, ...]:
        """Return certified blocks whose parent is adopted and that are not, lowest view first."""
        return tuple(
            place
            for place in sorted(self.bodies, key=lambda place: place.view)
            if place not in self.adopted
            and self.certified(place.view) == place
            and self.is_adopted(Place(self.bodies[place].parent_view, self.bodies[place].parent))
        )

    def is_adopted(self, place: Place) -> bool:
        """Return whether the application knows the state after a block."""
        return place == self.final or place in self.adopted

    def path(self, tip: Place) -> tuple[Place, ...] | None:
        """Return the blocks after the final one up to `tip`, oldest first; None if one lacks."""
        places = []
        while tip.view > self.final.view:
            body = self.bodies.get(tip)
            if body is None:
                return None
            places.append(tip)
            tip = Place(body.parent_view, body.parent)
        return tuple(reversed(places)) if tip == self.final else None

    def drop_rejected(self, below: int, keep: Set[Place]) -> None:
        """Forget bodies of old views that no certificate names, so that liars fill no memory.

        Not while a block waits for the bodies below it to become final: they may be those.
        """
        if self.finalizing is not None:
            return
        for place in [place for place in self.bodies if place.view < below]:
            if place not in keep and self.certified(place.view) != place:
                del self.bodies[place]

    def finish(self, place: Place, tick: int) -> None:
        """Move the final block up and forget what is below."""
        self.final, self.final_tick = place, tick
        if self.finalizing and self.finalizing.view <= place.view:
            self.finalizing = None
        for table in (self.notarized, self.nullified):
            for view in [view for view in table if view < place.view]:
                del table[view]
        for held in [held for held in self.bodies if held.view < place.view]:
            del self.bodies[held]
        self.adopted = {held for held in self.adopted if held.view > place.view}
