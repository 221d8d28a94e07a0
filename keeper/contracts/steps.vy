# pragma version 0.4.3
# pragma evm-version prague
"""
@title steps
@license Apache-2.0
@notice Limits are loosened a little at a time: announced, after a delay, before it expires.
@dev A module. What tightens needs none of it; that a wish is a loosening is for the user to say.

    announce(change) ---- DELAY ----> may be taken once ---- EXPIRY ----> forgotten
"""

event Announced:
    change: indexed(bytes32)
    ready_at: uint64
    expires_at: uint64

PPM: constant(uint256) = 10**6
MAX_DELAY: constant(uint64) = 30 * 86_400
MAX_EXPIRY: constant(uint64) = 30 * 86_400

STEP_PPM: immutable(uint256)
DELAY: immutable(uint64)
EXPIRY: immutable(uint64)

announced: HashMap[bytes32, uint64]  # time of the announcement, seconds


@deploy
def __init__(step_ppm: uint256, delay: uint64, expiry: uint64):
    assert step_ppm <= PPM, "steps: step above one"
    assert delay <= MAX_DELAY and 0 < expiry and expiry <= MAX_EXPIRY, "steps: bad times"
    STEP_PPM = step_ppm
    DELAY = delay
    EXPIRY = expiry


@internal
def _announce(change: bytes32):
    now: uint64 = convert(block.timestamp, uint64)
    self.announced[change] = now
    log Announced(change=change, ready_at=now + DELAY, expires_at=now + DELAY + EXPIRY)


@internal
def _take(change: bytes32):
    at: uint64 = self.announced[change]
    assert at != 0, "steps: not announced"
    now: uint64 = convert(block.timestamp, uint64)
    assert now >= at + DELAY, "steps: too early"
    assert now <= at + DELAY + EXPIRY, "steps: expired"
    self.announced[change] = 0


@internal
@view
def _small(old: uint256, new: uint256) -> bool:
    # whether two values lie at most a step apart
    apart: uint256 = max(old, new) - min(old, new)
    return apart * PPM <= old * STEP_PPM
