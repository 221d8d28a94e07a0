"""What a check says: a grade, the values, and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """How bad it is: a node with a `BAD` finding cannot do its work."""

    FINE = "fine"
    ODD = "odd"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result; whatever is not fine has a remedy."""

    check: str
    grade: Grade
    says: str
    remedy: str = ""


def fine(check: str, says: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(check, Grade.FINE, says)


def odd(check: str, says: str, remedy: str) -> Finding:
    """Return a finding that a node can live with."""
    return Finding(check, Grade.ODD, says, remedy)


def bad(check: str, says: str, remedy: str) -> Finding:
    """Return a finding that keeps a node from its work."""
    return Finding(check, Grade.BAD, says, remedy)


def fit(found: Iterable[Finding]) -> bool:
    """Return whether a node can start."""
    return all(one.grade is not Grade.BAD for one in found)
