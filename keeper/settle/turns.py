"""Who goes first where anybody may bring the same thing, and who tries when it did not come.

first, first + 1, … each `TURN_S` later; after all `size` members, the first again
"""

TURN_S = 4.0
"""Time for one member to have a transaction mined and final before the next one tries."""


def turns_before(me: int, size: int, first: int, tried: int = 0) -> int:
    """Return how many turns pass before it is member `me`'s, who tried so often already.

    `first` is any number; the member it names goes first.
    """
    return (me - first) % size + tried * size
