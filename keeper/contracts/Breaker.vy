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
             ├▶ tighten a limit at once; loosen one by a step, announced before (steps.vy)
             └▶ propose parameters: keepers judge their steps and wait the delay themselves
    guard (a bridge) ─▶ consume(lane)  token bucket per lane and direction
                     └▶ outflow(asset) trips when less than the retained share is left
    guard (a vault)  ─▶ let_out(asset) grade, bucket and net outflow in one call, or a revert
                     └▶ count(asset)   what came in, or left without asking: never refused

    Scope zero is everywhere: the strictest of it and the asked scope holds. A curse is never lowered
    by a leaf. Reducing is stopped by nothing but a curse. The contract holds no funds. A lane and an
    outflow take two words of storage each, because every release reads and writes them.
"""
from keeper.contracts import ISnapshots
from keeper.contracts import proofs
from keeper.contracts import steps

initializes: steps

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

event PauseChanged:
    scope: indexed(bytes32)
    paused: bool
    liquidate_at: uint64

event ParametersProposed:
    at: uint64
    parameters: Bytes[MAX_PARAMETERS]

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

struct Words:
    rule: uint256  # 0: no limit
    state: uint256

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
    until: uint64  # tripped up to this time, 0: it is not

PPM: constant(uint256) = 10**6
ACTIONS: constant(uint8) = 6
WITHDRAW: constant(uint8) = 2
REDUCE: constant(uint8) = 3
LIQUIDATE: constant(uint8) = 4
MAX_AMOUNT: constant(uint256) = 2**128 - 1
MAX_WINDOW: constant(uint64) = 2**24 - 1
MAX_PARAMETERS: constant(uint256) = 16_384  # ten times a set of a few markets
MASK_40: constant(uint256) = 2**40 - 1
MASK_24: constant(uint256) = 2**24 - 1
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
limited: public(bool)  # whether any limit was ever set
grades: public(HashMap[bytes32, HashMap[uint8, Grade]])
paused: public(HashMap[bytes32, bool])
liquidate_at: public(HashMap[bytes32, uint64])
lane_words: HashMap[bytes32, HashMap[bool, Words]]  # capacity ‖ rate, tokens ‖ at
outflow_words: HashMap[bytes32, Words]  # until ‖ began ‖ window ‖ retained ‖ begin, before ‖ left


@deploy
def __init__(
    snapshots: address,
    governor: address,
    grace: uint64,
    step_ppm: uint256,
    step_delay: uint64,
    step_expiry: uint64,
):
    """
    @param snapshots The Snapshots contract of this chain.
    @param governor Who pauses, sets limits and lifts curses: a timelock.
    @param grace Seconds after an un-pause in which nothing is liquidated, at most four hours.
    @param step_ppm Largest loosening of a limit, as a share of it.
    @param step_delay Seconds between the announcement of a loosening and its use.
    @param step_expiry Seconds in which it may then be used.
    """
    steps.__init__(step_ppm, step_delay, step_expiry)
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
    found: uint8 = self.grades[scope][action].level
    if found != 0:
        until: uint64 = self.grades[scope][action].until
        if until != 0 and block.number > convert(until, uint256):
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
    log PauseChanged(scope=scope, paused=True, liquidate_at=self.liquidate_at[scope])


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
    log PauseChanged(scope=scope, paused=False, liquidate_at=at)


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
def propose_parameters(parameters: Bytes[MAX_PARAMETERS]):
    """
    @notice Propose the network's next parameters; an empty proposal withdraws the last one.
    @dev Keepers read it on the hub, judge every step, and wait the delay of the set in force.
    """
    self._only_governor()
    log ParametersProposed(at=convert(block.timestamp, uint64), parameters=parameters)


@external
def announce(change: bytes32):
    """
    @notice Announce a loosening, named by `guard_change`, `lane_change` or `outflow_change`.
    """
    self._only_governor()
    steps._announce(change)


@external
@view
def guard_change(guard: address, allowed: bool) -> bytes32:
    """
    @notice The name of counting what a guard reports, or of no longer limiting what it pays.
    """
    return self._guard_change(guard, allowed)


@external
@view
def lane_change(lane: bytes32, inbound: bool, capacity: uint256, rate: uint256) -> bytes32:
    """
    @notice The name of a lane's next bucket.
    """
    return self._lane_change(lane, inbound, capacity, rate)


@external
@view
def outflow_change(
    asset: bytes32, window: uint64, retained_ppm: uint256, begin: uint256
) -> bytes32:
    """
    @notice The name of an asset's next outflow limit.
    """
    return self._outflow_change(asset, window, retained_ppm, begin)


@internal
@pure
def _guard_change(guard: address, allowed: bool) -> bytes32:
    return keccak256(abi_encode("guard", guard, allowed))


@internal
@pure
def _lane_change(lane: bytes32, inbound: bool, capacity: uint256, rate: uint256) -> bytes32:
    return keccak256(abi_encode("lane", lane, inbound, capacity, rate))


@internal
@pure
def _outflow_change(
    asset: bytes32, window: uint64, retained_ppm: uint256, begin: uint256
) -> bytes32:
    return keccak256(abi_encode("outflow", asset, window, retained_ppm, begin))


@external
def set_guard(guard: address, allowed: bool):
    """
    @notice Say which contracts report flows: the limits hold for what they pay.
    @dev To free a guard of its limits is announced before; so is a new one once there are limits,
        because it could report what never came in.
    """
    self._only_governor()
    if self.guards[guard] != allowed and (self.limited or not allowed):
        steps._take(self._guard_change(guard, allowed))
    self.guards[guard] = allowed
    log GuardSet(guard=guard, allowed=allowed)


@external
def set_lane(lane: bytes32, inbound: bool, capacity: uint256, rate: uint256):
    """
    @notice Set a lane's bucket; a new one starts full, an old one keeps at most what it has.
    @dev A larger or faster bucket is announced before, and a step at most.
    @param rate Tokens per second, above 0 and below the capacity.
    """
    self._only_governor()
    assert 0 < rate and rate < capacity, "breaker: bad rate"
    assert capacity <= MAX_AMOUNT, "breaker: bad rate"
    known: Lane = self._lane(lane, inbound)
    tokens: uint256 = capacity
    if known.capacity != 0:
        tokens = min(capacity, self._filled(known))
        if capacity > known.capacity or rate > known.rate:
            assert steps._small(known.capacity, max(capacity, known.capacity)), "breaker: large step"
            assert steps._small(known.rate, max(rate, known.rate)), "breaker: large step"
            steps._take(self._lane_change(lane, inbound, capacity, rate))
    self.limited = True
    self.lane_words[lane][inbound].rule = (capacity << 128) | rate
    self._fill(lane, inbound, tokens)
    log LaneSet(lane=lane, inbound=inbound, capacity=capacity, rate=rate)


@external
def set_outflow(
    asset: bytes32, window: uint64, retained_ppm: uint256, begin: uint256, holding: uint256
):
    """
    @notice Limit an asset's net outflow.
    @dev A shorter window, a smaller share or a larger beginning is announced before, and a step at
        most. The window that runs goes on, and so does its trip.
    @param window Seconds, at most 194 days.
    @param retained_ppm Share that must be left at the end of any window.
    @param begin Windows that begin with less never trip.
    @param holding What is there now; asked for a new limit only, afterwards it is counted.
    """
    self._only_governor()
    assert 0 < window and window <= MAX_WINDOW and retained_ppm <= PPM, "breaker: bad outflow"
    assert begin <= MAX_AMOUNT and holding <= MAX_AMOUNT, "breaker: bad outflow"
    state: Outflow = self._outflow(asset)
    if state.window == 0:
        state.began = convert(block.timestamp, uint64)
        state.before = holding
        state.left = holding
    elif window < state.window or retained_ppm < state.retained_ppm or begin > state.begin:
        old: uint256 = convert(state.window, uint256)
        assert steps._small(old, min(convert(window, uint256), old)), "breaker: large step"
        assert steps._small(state.retained_ppm, min(retained_ppm, state.retained_ppm)), "breaker: large step"
        assert steps._small(state.begin, max(begin, state.begin)), "breaker: large step"
        steps._take(self._outflow_change(asset, window, retained_ppm, begin))
    self.limited = True
    state.window = window
    state.retained_ppm = retained_ppm
    state.begin = begin
    self._keep(asset, state)
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


@external
@view
def lanes(lane: bytes32, inbound: bool) -> Lane:
    """
    @notice A lane's bucket as it was kept last; without a limit all is zero.
    """
    return self._lane(lane, inbound)


@external
@view
def outflows(asset: bytes32) -> Outflow:
    """
    @notice An asset's window as it was kept last; without a limit all is zero.
    """
    return self._outflow(asset)


@internal
@view
def _lane(lane: bytes32, inbound: bool) -> Lane:
    rule: uint256 = self.lane_words[lane][inbound].rule
    if rule == 0:
        return empty(Lane)
    state: uint256 = self.lane_words[lane][inbound].state
    return Lane(
        capacity=rule >> 128,
        rate=rule & MAX_AMOUNT,
        tokens=state >> 128,
        at=convert(state & MAX_AMOUNT, uint64),
    )


@internal
def _fill(lane: bytes32, inbound: bool, tokens: uint256):
    self.lane_words[lane][inbound].state = (tokens << 128) | block.timestamp


@internal
@view
def _outflow(asset: bytes32) -> Outflow:
    rule: uint256 = self.outflow_words[asset].rule
    if rule == 0:
        return empty(Outflow)
    state: uint256 = self.outflow_words[asset].state
    return Outflow(
        window=convert((rule >> 152) & MASK_24, uint64),
        retained_ppm=(rule >> 128) & MASK_24,
        begin=rule & MAX_AMOUNT,
        began=convert((rule >> 176) & MASK_40, uint64),
        before=state >> 128,
        left=state & MAX_AMOUNT,
        until=convert(rule >> 216, uint64),
    )


@internal
def _keep(asset: bytes32, known: Outflow):
    times: uint256 = (convert(known.until, uint256) << 216) | (convert(known.began, uint256) << 176)
    limits: uint256 = (convert(known.window, uint256) << 152) | (known.retained_ppm << 128)
    self.outflow_words[asset].rule = times | limits | known.begin
    self.outflow_words[asset].state = (known.before << 128) | known.left


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
    return self._filled(self._lane(lane, inbound))


@external
@view
def wait(lane: bytes32, inbound: bool, amount: uint256) -> uint256:
    """
    @notice Seconds until an amount passes: 0 for now, the largest number for never.
    """
    known: Lane = self._lane(lane, inbound)
    if amount > known.capacity:
        return max_value(uint256)
    tokens: uint256 = self._filled(known)
    if amount <= tokens:
        return 0
    return (amount - tokens + known.rate - 1) // known.rate


@internal
def _consume(lane: bytes32, inbound: bool, amount: uint256, known: Lane):
    assert amount <= known.capacity, "breaker: above the lane's capacity"
    tokens: uint256 = self._filled(known)
    assert amount <= tokens, "breaker: lane is empty"
    self._fill(lane, inbound, tokens - amount)


@external
def consume(lane: bytes32, inbound: bool, amount: uint256):
    """
    @notice Take an amount from a lane's bucket, or revert. A lane without a limit lets nothing pass.
    """
    assert self.guards[msg.sender], "breaker: not a guard"
    assert self._level(lane, WITHDRAW) < STOP, "breaker: stopped"
    self._consume(lane, inbound, amount, self._lane(lane, inbound))


@internal
@view
def _window(known: Outflow) -> Outflow:
    state: Outflow = known
    if block.timestamp >= convert(state.began + state.window, uint256):
        state.began = convert(block.timestamp, uint64)
        state.before = state.left
        state.until = 0
    return state


@internal
@pure
def _over(state: Outflow, amount: uint256) -> bool:
    # whether too little would be left; the amount is there
    left: uint256 = state.left - amount
    return state.before >= state.begin and left * PPM < state.before * state.retained_ppm


@internal
def _count(asset: bytes32, known: Outflow, inbound: bool, amount: uint256):
    state: Outflow = self._window(known)
    if inbound:
        state.left += min(amount, MAX_AMOUNT - state.left)
    else:
        state.left -= min(amount, state.left)
    self._keep(asset, state)


@external
def inflow(asset: bytes32, amount: uint256):
    """
    @notice Count what came in.
    """
    assert self.guards[msg.sender], "breaker: not a guard"
    known: Outflow = self._outflow(asset)
    assert known.window != 0, "breaker: no such asset"
    self._count(asset, known, True, amount)


@external
def outflow(asset: bytes32, amount: uint256) -> bool:
    """
    @notice Count what is to go out: False where it must not, and then nothing is counted.
    @dev It does not revert, so that the trip is kept until the window ends.
    """
    assert self.guards[msg.sender], "breaker: not a guard"
    state: Outflow = self._outflow(asset)
    assert state.window != 0, "breaker: no such asset"
    state = self._window(state)
    if state.until != 0 or amount > state.left:
        return False
    if self._over(state, amount):
        state.until = state.began + state.window
        self._keep(asset, state)
        log OutflowTripped(
            asset=asset, before=state.before, left=state.left - amount, until=state.until
        )
        return False
    state.left -= amount
    self._keep(asset, state)
    return True


# --------------------------------------------------------------------- what a vault calls


@external
@view
def require_room(asset: bytes32, amount: uint256):
    """
    @notice Revert where withdrawing is stopped, or where the amount could never pass.
    @dev For what is let out later: it must not wait for a bucket that is too small for it.
    """
    assert self._level(asset, WITHDRAW) < STOP, "breaker: stopped"
    capacity: uint256 = self.lane_words[asset][False].rule >> 128
    if capacity != 0 and self.guards[msg.sender]:
        assert amount <= capacity, "breaker: above the lane's capacity"


@external
def let_out(asset: bytes32, amount: uint256):
    """
    @notice Take an amount from the asset's outward bucket and count it as outflow, or revert.
    @dev Limits that are not set limit nothing, and so does a caller that is no guard. A revert keeps
        no trip: what is too much is refused, and less may still pass. A kept trip refuses all.
    """
    assert self._level(asset, WITHDRAW) < STOP, "breaker: stopped"
    lane: Lane = self._lane(asset, False)
    state: Outflow = self._outflow(asset)
    if (lane.capacity == 0 and state.window == 0) or not self.guards[msg.sender]:
        return
    if lane.capacity != 0:
        self._consume(asset, False, amount, lane)
    if state.window != 0:
        state = self._window(state)
        assert state.until == 0, "breaker: outflow tripped"
        assert amount <= state.left and not self._over(state, amount), "breaker: too much outflow"
        state.left -= amount
        self._keep(asset, state)


@external
def count(asset: bytes32, inbound: bool, amount: uint256):
    """
    @notice Count what came in, or what left without asking. It refuses nothing to anybody.
    """
    known: Outflow = self._outflow(asset)
    if known.window != 0 and self.guards[msg.sender]:
        self._count(asset, known, inbound, amount)
