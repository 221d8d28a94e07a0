# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize gas
"""
@title Bonds
@license Apache-2.0
@notice What keepers have at stake, on the hub chain, in its native coin.
@dev
    join ─▶ active ─ leave ─▶ leaving ─ unbonding ─▶ withdraw
               │ 3 no-shows ─▶ jailed ─ jail time ─▶ unjail ─▶ active
               └ equivocation or a false head ─▶ tombstoned, for ever

    Taken only by: two conflicting signed votes, a signed head the chain contradicts, a no-show
    shown by Awards on this chain, or a sealed Penalty. There is no owner and no other way.
    The worker key joins and signs; the admin key alone leaves and withdraws.
    Invariants: sum of locks of a keeper <= its bond; coin held = bonds + claimable + insurance.
"""
from keeper.contracts import IAwards
from keeper.contracts import IBonds
from keeper.contracts import awarding
from keeper.contracts import heads
from keeper.contracts import proofs
from keeper.contracts import sealing

initializes: sealing

implements: IBonds

event Bond:
    keeper: indexed(address)
    amount: uint256
    locked: uint256
    status: uint8

event Peer:
    keeper: indexed(address)
    peer: Bytes[MAX_PEER]

event Admin:
    keeper: indexed(address)
    admin: indexed(address)

event Slashed:
    keeper: indexed(address)
    evidence: indexed(bytes32)
    amount: uint256
    reporter: address

event Claimable:
    who: indexed(address)
    amount: uint256

event LeafUsed:
    leaf: indexed(bytes32)

struct Stake:
    amount: uint256  # wei
    locked: uint256  # wei
    until: uint64  # unix seconds: end of unbonding or of jail
    no_shows: uint8
    status: uint8

struct Lock:
    keeper: address
    amount: uint256
    awards: address  # contract of this chain that says when it is over, or empty
    until: uint64  # unix seconds at which it falls away by itself

struct Vote:
    kind: uint8
    digest: bytes32
    sig: heads.CompactSignature

MAX_PEER: constant(uint256) = 64
ACTIVE: constant(uint8) = 1
LEAVING: constant(uint8) = 2
JAILED: constant(uint8) = 3
TOMBSTONED: constant(uint8) = 4
NOTARIZE: constant(uint8) = 1
NULLIFY: constant(uint8) = 2
FINALIZE: constant(uint8) = 3
JAIL_AT: constant(uint8) = 3  # no-shows
PPM: constant(uint256) = 1_000_000
VOTE_TYPE: constant(bytes32) = keccak256("Vote(uint32 epoch,bytes32 config,uint8 kind,uint64 view,bytes32 digest)")
PENALTY_TYPE: constant(bytes32) = keccak256("Penalty(bytes32 network,uint32 epoch,uint64 chain,address contract,bytes32 task,address keeper,uint256 amount,address beneficiary,uint64 nonce,uint64 expiry)")

DOMAIN: immutable(bytes32)
INSURANCE: immutable(address)
MIN_BOND: immutable(uint256)  # wei
UNBONDING: immutable(uint64)  # seconds
JAIL: immutable(uint64)  # seconds
LOCK_LIFE: immutable(uint64)  # seconds
REWARD_PPM: immutable(uint256)  # reporter's part of a slash by evidence

deployer: address  # may bind the awards once; empty afterwards
awards: public(address)
stakes: HashMap[address, uint256]  # amount 96 | locked 96 | until 48 | no_shows 8 | status 8
admin: public(HashMap[address, address])
peer: public(HashMap[address, Bytes[MAX_PEER]])
locks: public(HashMap[bytes32, Lock])
lock_taken: HashMap[bytes32, bool]
punished: public(HashMap[bytes32, bool])  # keccak(task, keeper)
claimable: public(HashMap[address, uint256])
insurance: public(uint256)


@deploy
def __init__(
    snapshots: address,
    insurance: address,
    min_bond: uint256,
    unbonding: uint64,
    jail: uint64,
    lock_life: uint64,
    reward_ppm: uint256,
):
    """
    @param snapshots The Snapshots contract of this chain.
    @param insurance Who `sweep` pays.
    @param min_bond Wei a keeper must have at stake: the price of a Sybil.
    @param unbonding Seconds between `leave` and `withdraw`; above every dispute window.
    @param jail Seconds after the third no-show.
    @param lock_life Seconds after which a lock falls away.
    @param reward_ppm Reporter's part of a slash by evidence, at most half.
    """
    assert insurance != empty(address), "bonds: no insurance"
    assert lock_life < unbonding, "bonds: locks outlive unbonding"
    assert reward_ppm <= PPM // 2, "bonds: reward too large"
    sealing.__init__(snapshots)
    DOMAIN = heads._domain(sealing.NETWORK)
    INSURANCE = insurance
    MIN_BOND = min_bond
    UNBONDING = unbonding
    JAIL = jail
    LOCK_LIFE = lock_life
    REWARD_PPM = reward_ppm
    self.deployer = msg.sender


@external
def bind(awards: address):
    """
    @notice Name the Awards contract of this chain: by the deployer, once, and never again.
    """
    assert msg.sender == self.deployer, "bonds: not the deployer"
    assert awards != empty(address), "bonds: no awards"
    self.deployer = empty(address)
    self.awards = awards


# ------------------------------------------------------------------ stake


@external
@payable
def join(admin: address, peer: Bytes[MAX_PEER]):
    """
    @notice Become a keeper: called by the worker key, with the first bond.
    @param admin The only key that can leave and withdraw; not the worker's.
    @param peer Peer id the keeper speaks with.
    """
    assert admin != empty(address) and admin != msg.sender, "bonds: admin must be another key"
    stake: Stake = self._stake(msg.sender)
    assert stake.status == 0, "bonds: joined already"
    assert msg.value >= MIN_BOND, "bonds: below the minimum"
    self.admin[msg.sender] = admin
    self.peer[msg.sender] = peer
    stake.amount = msg.value
    stake.status = ACTIVE
    log Admin(keeper=msg.sender, admin=admin)
    log Peer(keeper=msg.sender, peer=peer)
    self._store(msg.sender, stake)


@external
@payable
def post(keeper: address):
    """
    @notice Add to a keeper's bond. Anyone may; only its admin can ever take it out.
    """
    stake: Stake = self._stake(keeper)
    assert stake.status != 0, "bonds: unknown keeper"
    assert stake.status != TOMBSTONED, "bonds: tombstoned"
    assert msg.value != 0, "bonds: nothing posted"
    stake.amount += msg.value
    self._store(keeper, stake)


@external
def register_peer(peer: Bytes[MAX_PEER]):
    """
    @notice Change the peer id of the calling keeper.
    """
    assert self._stake(msg.sender).status != 0, "bonds: unknown keeper"
    self.peer[msg.sender] = peer
    log Peer(keeper=msg.sender, peer=peer)


@external
def leave(keeper: address):
    """
    @notice Start unbonding. By the admin.
    """
    assert msg.sender == self.admin[keeper], "bonds: not the admin"
    stake: Stake = self._stake(keeper)
    assert stake.status == ACTIVE or stake.status == JAILED, "bonds: not staying"
    stake.status = LEAVING
    stake.until = convert(block.timestamp, uint64) + UNBONDING
    self._store(keeper, stake)


@external
@nonreentrant
def withdraw(keeper: address, to: address):
    """
    @notice Take the bond out after unbonding, when nothing is locked. By the admin.
    """
    assert msg.sender == self.admin[keeper], "bonds: not the admin"
    assert to != empty(address), "bonds: bad receiver"
    stake: Stake = self._stake(keeper)
    assert stake.status == LEAVING or stake.status == TOMBSTONED, "bonds: leave first"
    assert convert(block.timestamp, uint64) >= stake.until, "bonds: still unbonding"
    assert stake.locked == 0, "bonds: locked"
    amount: uint256 = stake.amount
    assert amount != 0 or stake.status == LEAVING, "bonds: nothing left"
    if stake.status == LEAVING:
        stake = empty(Stake)  # may join again
    stake.amount = 0
    self._store(keeper, stake)
    raw_call(to, b"", value=amount)


@external
def unjail(keeper: address):
    """
    @notice Return after the jail time with a full bond. By the admin.
    """
    assert msg.sender == self.admin[keeper], "bonds: not the admin"
    stake: Stake = self._stake(keeper)
    assert stake.status == JAILED, "bonds: not jailed"
    assert convert(block.timestamp, uint64) >= stake.until, "bonds: still jailed"
    assert stake.amount >= MIN_BOND, "bonds: below the minimum"
    stake.status = ACTIVE
    stake.no_shows = 0
    stake.until = 0
    self._store(keeper, stake)


@external
@nonreentrant
def claim(to: address):
    """
    @notice Take out what the caller earned by reports and executions.
    """
    amount: uint256 = self.claimable[msg.sender]
    assert amount != 0, "bonds: nothing to claim"
    assert to != empty(address), "bonds: bad receiver"
    self.claimable[msg.sender] = 0
    log Claimable(who=msg.sender, amount=0)
    raw_call(to, b"", value=amount)


@external
@nonreentrant
def sweep():
    """
    @notice Send what slashes collected to the insurance.
    """
    amount: uint256 = self.insurance
    assert amount != 0, "bonds: nothing to sweep"
    self.insurance = 0
    raw_call(INSURANCE, b"", value=amount)


@external
@view
def is_active(keeper: address) -> bool:
    """
    @notice Whether a keeper is bonded, not jailed, not leaving, and not below the minimum.
    """
    stake: Stake = self._stake(keeper)
    return stake.status == ACTIVE and stake.amount >= MIN_BOND


@external
@view
def stake(keeper: address) -> Stake:
    """
    @notice All about a keeper's bond.
    """
    return self._stake(keeper)


@external
@view
def parameters() -> (uint256, uint64, uint64, uint64, uint256):
    """
    @notice Minimum bond, unbonding, jail, lock life, reporter's part.
    """
    return MIN_BOND, UNBONDING, JAIL, LOCK_LIFE, REWARD_PPM


# ------------------------------------------------------------------ locks


@external
def lock(
    seal: proofs.Seal,
    proof: DynArray[bytes32, proofs.MAX_PROOF],
    place: uint64,
    awards: address,
    award: awarding.Award,
):
    """
    @notice Lock a winner's bond by the award, for any chain. Anyone may bring it.
    @param place Chain the award is for.
    @param awards Awards contract it is for.
    """
    assert len(award.ranks) != 0, "bonds: nobody awarded"
    assert not self.lock_taken[award.task], "bonds: task was locked"
    sealing._require(seal)
    leaf: bytes32 = awarding._leaf(sealing.NETWORK, seal.epoch, place, awards, award)
    assert proofs._included(leaf, seal.root, proof), "bonds: not in the root"
    keeper: address = award.ranks[0]
    stake: Stake = self._stake(keeper)
    assert stake.status != 0, "bonds: unknown keeper"
    assert stake.locked + award.lock <= stake.amount, "bonds: locks exceed the bond"
    here: bool = place == convert(chain.id, uint64)
    self.lock_taken[award.task] = True
    self.locks[award.task] = Lock(
        keeper=keeper,
        amount=award.lock,
        awards=awards if here else empty(address),
        until=convert(block.timestamp, uint64) + LOCK_LIFE,
    )
    stake.locked += award.lock
    log LeafUsed(leaf=leaf)
    self._store(keeper, stake)


@external
def unlock(task: bytes32):
    """
    @notice Free a lock whose task is done on this chain, or whose time is over.
    """
    held: Lock = self.locks[task]
    assert held.keeper != empty(address), "bonds: no lock"
    if convert(block.timestamp, uint64) < held.until:
        assert held.awards != empty(address), "bonds: still locked"
        assert staticcall IAwards(held.awards).state(task) != 0, "bonds: still locked"
    stake: Stake = self._stake(held.keeper)
    self.locks[task] = empty(Lock)
    stake.locked -= min(stake.locked, held.amount)
    self._store(held.keeper, stake)


# ------------------------------------------------------------------ slashing


@external
def no_show(task: bytes32, keeper: address, amount: uint256, reporter: address):
    """
    @notice A fallback stepped in for an awarded keeper. Only Awards, inside that transaction.
    @param reporter Who stepped in: gets half; the rest is insurance.
    """
    assert msg.sender == self.awards, "bonds: only awards"
    self._penalise(task, keeper, amount, reporter)


@external
def penalise(
    seal: proofs.Seal,
    proof: DynArray[bytes32, proofs.MAX_PROOF],
    task: bytes32,
    keeper: address,
    amount: uint256,
    beneficiary: address,
    nonce: uint64,
    expiry: uint64,
):
    """
    @notice Take a penalty that was proven on another chain, by certificate.
    @param expiry Last block in which the decision has an effect.
    """
    assert convert(block.number, uint64) <= expiry, "bonds: decision expired"
    sealing._require(seal)
    leaf: bytes32 = keccak256(
        keccak256(
            abi_encode(
                PENALTY_TYPE,
                sealing.NETWORK,
                seal.epoch,
                convert(chain.id, uint64),
                self,
                task,
                keeper,
                amount,
                beneficiary,
                nonce,
                expiry,
            )
        )
    )
    assert proofs._included(leaf, seal.root, proof), "bonds: not in the root"
    log LeafUsed(leaf=leaf)
    self._penalise(task, keeper, amount, beneficiary)


@external
@nonreentrant
def slash_conflict(epoch: uint32, config: bytes32, view: uint64, a: Vote, b: Vote):
    """
    @notice Take the whole bond of a keeper that signed two votes no honest keeper can sign.
    @dev In one view: two digests among notarize and finalize, or nullify with finalize.
    """
    if a.kind == NULLIFY or b.kind == NULLIFY:
        assert a.kind + b.kind == NULLIFY + FINALIZE, "bonds: no conflict"
    else:
        assert self._decides(a.kind) and self._decides(b.kind), "bonds: no such vote"
        assert a.digest != b.digest, "bonds: no conflict"
    keeper: address = self._signer(epoch, config, view, a)
    assert keeper == self._signer(epoch, config, view, b), "bonds: two signers"
    self._tombstone(keeper, config)


@external
@nonreentrant
def slash_head(
    observation: heads.Observation,
    sig: heads.CompactSignature,
    number: uint64,
    hash: bytes32,
    proof: DynArray[bytes32, proofs.MAX_PROOF],
):
    """
    @notice Take the bond of a keeper that signed a head of this chain that is not its block.
    @param number Block number of the false head.
    @param hash Hash the keeper signed.
    @param proof Merkle proof of the head under the observation's heads root.
    """
    keeper: address = heads._contradicted(DOMAIN, observation, sig, number, hash, proof)
    self._tombstone(keeper, hash)


# ------------------------------------------------------------------ inside


@internal
@view
def _stake(keeper: address) -> Stake:
    word: uint256 = self.stakes[keeper]
    return Stake(
        amount=word >> 160,
        locked=(word >> 64) & (2**96 - 1),
        until=convert((word >> 16) & (2**48 - 1), uint64),
        no_shows=convert((word >> 8) & 255, uint8),
        status=convert(word & 255, uint8),
    )


@internal
def _store(keeper: address, stake: Stake):
    assert stake.amount < 2**96, "bonds: number too large"
    self.stakes[keeper] = (
        (stake.amount << 160)
        | (stake.locked << 64)
        | (convert(stake.until, uint256) << 16)
        | (convert(stake.no_shows, uint256) << 8)
        | convert(stake.status, uint256)
    )
    log Bond(keeper=keeper, amount=stake.amount, locked=stake.locked, status=stake.status)


@internal
@pure
def _decides(kind: uint8) -> bool:
    return kind == NOTARIZE or kind == FINALIZE


@internal
@view
def _signer(epoch: uint32, config: bytes32, view: uint64, vote: Vote) -> address:
    if vote.kind == NULLIFY:
        assert vote.digest == empty(bytes32), "bonds: nullify has no digest"
    return heads._recover(
        DOMAIN, keccak256(abi_encode(VOTE_TYPE, epoch, config, vote.kind, view, vote.digest)), vote.sig
    )


@internal
def _penalise(task: bytes32, keeper: address, amount: uint256, reporter: address):
    id: bytes32 = keccak256(abi_encode(task, keeper))
    assert not self.punished[id], "bonds: punished already"
    self.punished[id] = True
    stake: Stake = self._stake(keeper)
    held: Lock = self.locks[task]
    if held.keeper == keeper:
        self.locks[task] = empty(Lock)
        stake.locked -= min(stake.locked, held.amount)
    taken: uint256 = min(amount, stake.amount)
    stake.amount -= taken
    stake.locked = min(stake.locked, stake.amount)
    if stake.no_shows < max_value(uint8):
        stake.no_shows += 1
    if stake.status == ACTIVE and stake.no_shows >= JAIL_AT:
        stake.status = JAILED
        stake.until = convert(block.timestamp, uint64) + JAIL
    half: uint256 = 0
    if reporter != keeper and reporter != empty(address):
        half = taken // 2
        self.claimable[reporter] += half
        log Claimable(who=reporter, amount=self.claimable[reporter])
    self.insurance += taken - half
    log Slashed(keeper=keeper, evidence=task, amount=taken, reporter=reporter)
    self._store(keeper, stake)


@internal
def _tombstone(keeper: address, evidence: bytes32):
    stake: Stake = self._stake(keeper)
    assert stake.status != 0, "bonds: unknown keeper"
    assert stake.status != TOMBSTONED, "bonds: tombstoned already"
    taken: uint256 = stake.amount
    reward: uint256 = taken * REWARD_PPM // PPM
    stake.amount = 0
    stake.locked = 0
    stake.status = TOMBSTONED
    self.insurance += taken - reward
    log Slashed(keeper=keeper, evidence=evidence, amount=taken, reporter=msg.sender)
    self._store(keeper, stake)
    raw_call(msg.sender, b"", value=reward)
