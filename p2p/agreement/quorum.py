"""How many members may lie, and how many must agree: written once, used everywhere.

    n        4  5  7  10  13  16  31
    faults   1  1  2   3   4   5  10       (n - 1) // 3
    quorum   3  4  5   7   9  11  21       (n + f) // 2 + 1

Two quorums share at least f + 1 members, so at least one honest one, for every n. `2f + 1` does
not have that property unless n = 3f + 1: at n = 5 it lets one twin split the committee.
"""


def faults(members: int) -> int:
    """Return f, the number of Byzantine members that a committee of this size survives."""
    return (members - 1) // 3


def quorum(members: int) -> int:
    """Return q, the number of distinct signers that make a certificate."""
    return (members + faults(members)) // 2 + 1
