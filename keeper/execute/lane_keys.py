"""One account a lane, all from the operator's key, so an operator backs up one secret.

urgent        the operator's own account: awards name it
settlement    keccak("flowkeeper lane settlement" ‖ operator secret)
housekeeping  likewise
"""

from keeper.execute.intent import Lane
from keeper.hashing import keccak
from keeper.keys import address_of


def lane_key(operator: bytes, lane: Lane) -> bytes:
    """Return the secret of a lane: the operator's own for urgent work, derived for the others."""
    if lane is Lane.URGENT:
        return operator
    return keccak(b"flowkeeper lane " + lane.value.encode() + operator)


def lane_address(operator: bytes, lane: Lane) -> bytes:
    """Return the address that a lane sends from."""
    return address_of(lane_key(operator, lane))
