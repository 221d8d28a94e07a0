"""Who is alive, who asks too much, whether our former self may be alive: local judgements.

Courtesy      what one member may ask us in a while; answers are 100 times larger than questions
Presence      a leader that was silent while a quorum spoke is not waited for
Doppelganger  a keeper without its log signs nothing until a view is final that lies more than n
              views above everything a quorum had reached: no vote it forgot can matter any more
"""

from p2p.types import Committee

QUESTIONS = 16
"""Questions a member may ask in a window of 2D; an honest one asks two, and one history."""
HISTORY_COST = 8
"""A history answer fills a frame; so many single views cost about as much."""


class Presence:
    """When each member was last heard."""

    def __init__(self, committee: Committee, me: int, skip_s: float) -> None:
        self._committee, self._me, self._skip_s = committee, me, skip_s
        self._heard: dict[int, float] = {}
        self._started = 0.0

    def start(self, now: float) -> None:
        """Begin: nobody counts as silent before `skip_s` has passed."""
        self._started = now

    def heard(self, member: int, now: float) -> None:
        """Note that a member spoke."""
        self._heard[member] = now

    def is_silent(self, member: int, now: float) -> bool:
        """Return whether a member was silent while a quorum, this keeper included, was not."""
        if member == self._me or now - self._heard.get(member, self._started) <= self._skip_s:
            return False
        speaking = sum(
            1 for other, at in self._heard.items() if other != self._me and now - at <= self._skip_s
        )
        return speaking + 1 >= self._committee.quorum


class Courtesy:
    """A bucket of questions per member: full at first, full again after `window_s`."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._buckets: dict[int, tuple[float, float]] = {}

    def grants(self, member: int, cost: int, now: float) -> bool:
        """Return whether a question may be answered, and take its cost if so."""
        held, at = self._buckets.get(member, (float(QUESTIONS), now))
        held = min(QUESTIONS, held + max(0.0, now - at) * QUESTIONS / self._window_s)
        if held < cost:
            self._buckets[member] = (held, now)
            return False
        self._buckets[member] = (held - cost, now)
        return True


class Doppelganger:
    """The wait of a keeper whose log is new in an epoch that may not be.

    A claim counts once certificates prove that the claimed view was reached, so liars cannot
    prolong the wait.
    """

    def __init__(self, committee: Committee) -> None:
        self._committee = committee
        self._claims: dict[int, int] = {}
        self.bound: int | None = None
        """The wait ends when a view above this one is final; None: too few claims yet."""

    def claim(self, member: int, view: int) -> None:
        """Note the view a member says it is in; the first word counts."""
        self._claims.setdefault(member, view)

    def is_over(self, top: int, final_view: int) -> bool:
        """Return whether this keeper may sign again, given the highest certified view."""
        if self.bound is None:
            proven = [view for view in self._claims.values() if view <= top + 1]
            if not proven or len(proven) + 1 < self._committee.quorum:
                return False
            self.bound = max(top, *proven) + self._committee.size
        return final_view > self.bound
