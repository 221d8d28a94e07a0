# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize gas
"""
@title Breaker
@license Apache-2.0
@notice What keepers decided to hold back, and limits that hold even when keepers are wrong.
@dev
    BreakerChange leaf ─▶ grade[scope][action] = level, until       0 closed 1 slow 2 stop 3 cursed
    governor ─▶ pause / unpause (liquidations wait for the grace) / lift a curse
    guard (a vault, a bridge) ─▶ consume(lane)  token bucket per lane and direction
                              └▶ outflow(asset) trips when less than the retained share is left

    Scope zero is everywhere: the strictest of it and the asked scope holds. A curse is never lowered
    by a leaf. Reducing is stopped by nothing but a curse. The contract holds no funds.
"""
from keeper.contracts import ISnapshots
from keeper.contracts import proofs

event LeafUsed:
    leaf: indexed(bytes32)

event Graded:
    scope: indexed(bytes32)
    action: indexed(uint8)
    level: uint8
    nonce: uint64
    until: uint64

event Lifted:
    scope: indexed(bytes32)
    action: indexed(uint8)

event Paused:
    scope: indexed(bytes32)

event Unpaused:
    scope: indexed(bytes32)
    liquidate_at: uint64

event LaneSet:
    lane: indexed(bytes32)
    inbound: indexed(bool)
    capacity: uint256
    rate: uint256

event OutflowSet:
    asset: indexed(bytes32)
    window: uint64
    retained_ppm: uint256
    begin: uint256

event OutflowTripped:
    asset: indexed(bytes32)
    before: uint256
    left: uint256
    until: uint64

event GuardSet:
    guard: indexed(address)
    allowed: bool

struct Grade:
    level: uint8
    nonce: uint64
    until: uint64  # last block in which it holds; 0: until changed

struct Lane:
    capacity: uint256
    rate: uint256  # tokens per second
    tokens: uint256
    at: uint64  # seconds

struct Outflow:
    window: uint64  # seconds
    retained_ppm: uint256
    begin: uint256  # smaller holdings never trip
    began: uint64
    before: uint256
    left: uint256
    until: uint64  # tripped up to this time

PPM: constant(uint256) = 10**6
ACTIONS: constant(uint8) = 6
WITHDRAW: constant(uint8) = 2
REDUCE: constant(uint8) = 3
LIQUIDATE: constant(uint8) = 4
SIGN: constant(uint8) = 5
STOP: constant(uint8) = 2
CURSED: constant(uint8) = 3
MAX_GRACE: constant(uint64) = 4 * 3600
CHANGE_TYPE: constant(bytes32) = keccak256(
    "BreakerChange(bytes32 network,uint32 epoch,uint64 chain,address contract,bytes32 scope,uint8 action,uint8 level,uint64 nonce,uint64 until)"
)

SNAPSHOTS: immutable(ISnapshots)
NETWORK: immutable(bytes32)
GRACE: public(immutable(uint64))

governor: public(address)
next_governor: public(address)
guards: public(HashMap[address, bool])
grades: public(HashMap[bytes32, HashMap[uint8, Grade]])
paused: public(HashMap[bytes32, bool])
liquidate_at: public(HashMap[bytes32, uint64])
lanes: public(HashMap[bytes32, HashMap[bool, Lane]])
outflows: public(HashMap[bytes32, Outflow])


@deploy
def __init__(snapshots: address, governor: address, grace: uint64):
    """
    @param snapshots The Snapshots contract of this chain.
    @param governor Who pauses, sets limits and lifts curses: a timelock.
    @param grace Seconds after an un-pause in which nothing is liquidated, at most four hours.
    """
    assert governor != empty(address), "breaker: no governor"
    assert grace <= MAX_GRACE, "breaker: grace too long"
    SNAPSHOTS = ISnapshots(snapshots)
    NETWORK = staticcall SNAPSHOTS.network()
    GRACE = grace
    self.governor = governor


# --------------------------------------------------------------------- what keepers decided


@external
def change(
    seal: proofs.Seal,
    proof: DynArray[bytes32, proofs.MAX_PROOF],
    scope: bytes32,
    action: uint8,
    level: uint8,
    nonce: uint64,
    until: uint64,
):
    """
    @notice Trip or release one action of one scope by certificate. Anyone may bring it.
    @param action 0 open, 1 increase, 2 withdraw, 3 reduce, 4 liquidate, 5 sign.
    @param level 0 closed, 1 slow, 2 stop, 3 cursed.
    @param nonce Above the last one used for this scope and action.
    @param until Last block in which it holds; 0: until changed.
    """
    assert action < ACTIONS, "breaker: no such action"
    assert level <= CURSED, "breaker: no such level"
    assert action != REDUCE or level == 0 or level == CURSED, "breaker: reducing is never stopped"
    grade: Grade = self.grades[scope][action]
    assert nonce > grade.nonce, "breaker: old nonce"
    assert grade.level != CURSED, "breaker: cursed"
    extcall SNAPSHOTS.ensure(seal)
    leaf: bytes32 = keccak256(
        keccak256(
            abi_encode(
                CHANGE_TYPE,
                NETWORK,
                seal.epoch,
                convert(chain.id, uint64),
                self,
                scope,
                action,
                level,
                nonce,
                until,
            )
        )
    )
    assert proofs._included(leaf, seal.root, proof), "breaker: not in the root"
    # a curse has no end of its own
    ends: uint64 = until if level != CURSED else 0
    self.grades[scope][action] = Grade(level=level, nonce=nonce, until=ends)
    log LeafUsed(leaf=leaf)
    log Graded(scope=scope, action=action, level=level, nonce=nonce, until=ends)


@external
@view
def level(scope: bytes32, action: uint8) -> uint8:
    """
    @notice The strictest level of an action for a scope and everywhere.
    """
    return self._level(scope, action)


@external
@view
def require_open(scope: bytes32, action: uint8):
    """
    @notice Revert where an action is stopped.
    """
    assert self._level(scope, action) < STOP, "breaker: stopped"


@internal
@view
def _level(scope: bytes32, action: uint8) -> uint8:
    worst: uint8 = self._own_level(empty(bytes32), action)
    if scope != empty(bytes32):
        worst = max(worst, self._own_level(scope, action))
    return worst


@internal
@view
def _own_level(scope: bytes32, action: uint8) -> uint8:
    grade: Grade = self.grades[scope][action]
    found: uint8 = grade.level
    if grade.until != 0 and block.number > convert(grade.until, uint256):
        found = 0
    if found < STOP and action != REDUCE and action != SIGN:
        if self.paused[scope]:
            found = STOP
        elif action == LIQUIDATE and block.timestamp < convert(self.liquidate_at[scope], uint256):
            found = STOP
    return found


# --------------------------------------------------------------------- governance


@internal
@view
def _only_governor():
    assert msg.sender == self.governor, "breaker: not the governor"


@external
def pause(scope: bytes32):
    """
    @notice Stop opening, increasing, withdrawing and liquidating; reducing goes on.
    """
    self._only_governor()
    self.paused[scope] = True
    log Paused(scope=scope)


@external
def unpause(scope: bytes32):
    """
    @notice Go on at once, but liquidate only after the grace, so that positions can be repaired.
    """
    self._only_governor()
    assert self.paused[scope], "breaker: not paused"
    self.paused[scope] = False
    at: uint64 = convert(block.timestamp, uint64) + GRACE
    self.liquidate_at[scope] = at
    log Unpaused(scope=scope, liquidate_at=at)


@external
def lift(scope: bytes32, action: uint8):
    """
    @notice End a curse: nobody else can.
    """
    self._only_governor()
    grade: Grade = self.grades[scope][action]
    assert grade.level == CURSED, "breaker: not cursed"
    self.grades[scope][action] = Grade(level=0, nonce=grade.nonce, until=0)
    log Lifted(scope=scope, action=action)
    log Graded(scope=scope, action=action, level=0, nonce=grade.nonce, until=0)


@external
def set_guard(guard: address, allowed: bool):
    """
    @notice Say which contracts report flows.
    """
    self._only_governor()
    self.guards[guard] = allowed
    log GuardSet(guard=guard, allowed=allowed)


@external
def set_lane(lane: bytes32, inbound: bool, capacity: uint256, rate: uint256):
    """
    @notice Set a lane's bucket; a new one starts full, an old one keeps at most what it has.
    @param rate Tokens per second, above 0 and below the capacity.
    """
    self._only_governor()
    assert 0 < rate and rate < capacity, "breaker: bad rate"
    assert capacity <= convert(max_value(uint128), uint256), "breaker: bad rate"
    known: Lane = self.lanes[lane][inbound]
    tokens: uint256 = capacity
    if known.capacity != 0:
        tokens = min(capacity, self._filled(known))
    self.lanes[lane][inbound] = Lane(
        capacity=capacity, rate=rate, tokens=tokens, at=convert(block.timestamp, uint64)
    )
    log LaneSet(lane=lane, inbound=inbound, capacity=capacity, rate=rate)


@external
def set_outflow(
    asset: bytes32, window: uint64, retained_ppm: uint256, begin: uint256, holding: uint256
):
    """
    @notice Limit an asset's net outflow.
    @param retained_ppm Share that must be left at the end of any window.
    @param begin Windows that begin with less never trip.
    @param holding What is there now.
    """
    self._only_governor()
    assert window != 0 and retained_ppm <= PPM, "breaker: bad outflow"
    self.outflows[asset] = Outflow(
        window=window,
        retained_ppm=retained_ppm,
        begin=begin,
        began=convert(block.timestamp, uint64),
        before=holding,
        left=holding,
        until=0,
    )
    log OutflowSet(asset=asset, window=window, retained_ppm=retained_ppm, begin=begin)


@external
def hand_over(to: address):
    """
    @notice Name the next governor, who takes over by `accept`.
    """
    self._only_governor()
    self.next_governor = to


@external
def accept():
    """
    @notice Become the governor.
    """
    assert msg.sender == self.next_governor, "breaker: not the next governor"
    self.governor = msg.sender
    self.next_governor = empty(address)


# --------------------------------------------------------------------- flows


@internal
@view
def _filled(lane: Lane) -> uint256:
    gained: uint256 = (block.timestamp - convert(lane.at, uint256)) * lane.rate
    return min(lane.capacity, lane.tokens + gained)


@external
@view
def available(lane: bytes32, inbound: bool) -> uint256:
    """
    @notice What the lane would let through now.
    """
    return self._filled(self.lanes[lane][inbound])


@external
@view
def wait(lane: bytes32, inbound: bool, amount: uint256) -> uint256:
    """
    @notice Seconds until an amount passes: 0 for now, the largest number for never.
    """
    known: Lane = self.lanes[lane][inbound]
    if amount > known.capacity:
        return max_value(uint256)
    tokens: uint256 = self._filled(known)
    if amount <= tokens:
        return 0
    return (amount - tokens + known.rate - 1) // known.rate


@external
def consume(lane: bytes32, inbound: bool, amount: uint256):
    """
    @notice Take an amount from a lane's bucket, or revert. A lane without a limit lets nothing pass.
    """
    assert self.guards[msg.sender], "breaker: not a guard"
    assert self._level(lane, WITHDRAW) < STOP, "breaker: stopped"
    known: Lane = self.lanes[lane][inbound]
    assert amount <= known.capacity, "breaker: above the lane's capacity"
    tokens: uint256 = self._filled(known)
    assert amount <= tokens, "breaker: lane is empty"
    self.lanes[lane][inbound].tokens = tokens - amount
    self.lanes[lane][inbound].at = convert(block.timestamp, uint64)


@internal
@view
def _window(known: Outflow) -> Outflow:
    state: Outflow = known
    if block.timestamp >= convert(state.began + state.window, uint256):
        state.began = convert(block.timestamp, uint64)
        state.before = state.left
    return state


@external
def inflow(asset: bytes32, amount: uint256):
    """
    @notice Count what came in.
    """
    assert self.guards[msg.sender], "breaker: not a guard"
    state: Outflow = self._window(self.outflows[asset])
    state.left += amount
    self.outflows[asset] = state


@external
def outflow(asset: bytes32, amount: uint256) -> bool:
    """
    @notice Count what is to go out: False where it must not, and then nothing is counted.
    @dev It does not revert, so that the trip is kept until the window ends.
    """
    assert self.guards[msg.sender], "breaker: not a guard"
    state: Outflow = self._window(self.outflows[asset])
    assert state.window != 0, "breaker: no such asset"
    if block.timestamp < convert(state.until, uint256) or amount > state.left:
        return False
    left: uint256 = state.left - amount
    if state.before >= state.begin and left * PPM < state.before * state.retained_ppm:
        state.until = state.began + state.window
        self.outflows[asset] = state
        log OutflowTripped(asset=asset, before=state.before, left=left, until=state.until)
        return False
    state.left = left
    self.outflows[asset] = state
    return True
