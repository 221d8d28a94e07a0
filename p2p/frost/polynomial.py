"""Polynomials in the exponent: what a dealer commits to, and what its shares are checked against.

    F(x) = Σ φ_k·x^k with φ_k = a_k·G        f(x)·G = F(x) for every honest share

A sum of commitments may be the identity when a dealer aims at it, so a coefficient is an element or
None, the identity; everything here is public and variable time.
"""

from collections.abc import Sequence

from p2p.frost.group import Element, Group

Commitment = Sequence[Element | None]


def add(group: Group, elements: Sequence[Element | None]) -> Element | None:
    """Return the sum, None for the identity."""
    present = [element for element in elements if element is not None]
    if not present:
        return None
    try:
        return group.sum(present)
    except ValueError:
        return None


def evaluate(group: Group, commitment: Commitment, x: int) -> Element | None:
    """Return F(x) by Horner's rule, quick for small x."""
    total = commitment[-1]
    for coefficient in reversed(commitment[:-1]):
        scaled = None if total is None else group.multiply(total, x)
        total = add(group, (scaled, coefficient))
    return total


def add_all(group: Group, commitments: Sequence[Commitment]) -> list[Element | None]:
    """Return the coefficient-wise sum of commitments of one length."""
    return [add(group, column) for column in zip(*commitments, strict=True)]
