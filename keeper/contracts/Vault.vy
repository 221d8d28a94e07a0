# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize gas
"""
@title Vault
@license Apache-2.0
@notice The universal margin account of one chain: tokens per account, moved only by certificate.
@dev
    deposit ─▶ balance ─┬─ Transfer leaf ─▶ another account's balance
                        ├─ request_withdraw + Release leaf ─▶ tokens out, to whom the owner named
                        └─ start_exit … delay … exit ─▶ tokens out without any keeper

    A decision above a token's big size is taken from the balance at once but waits in `queued`;
    in the delay a later sealed attestation can stop it, or anybody who shows that the snapshot it
    was sealed with names a block this chain never had; then the balance is put back.
    Invariant, per token: sum of balances + sum queued = tokens that came in - tokens that went out.
    A Release pays only what the owner requested on this chain, to the address requested: even a
    stolen group key cannot send tokens anywhere else at once. A Breaker, if one is bound, can hold
    releases back but move nothing: it limits what goes out where limits are set for the token, and
    is told what comes in or exits. A deposit and an exit ask nobody. Nobody owns this contract.
"""
from ethereum.ercs import IERC20
from keeper.contracts import IVenue
from keeper.contracts import gated
from keeper.contracts import headers
from keeper.contracts import proofs
from keeper.contracts import sealing

initializes: gated
initializes: sealing

event Balance:
    account: indexed(bytes32)
    token: indexed(address)
    amount: uint256

event AccountOwner:
    account: indexed(bytes32)
    owner: indexed(address)

event WithdrawRequested:
    account: indexed(bytes32)
    token: indexed(address)
    amount: uint256  # 0: served or taken back
    to: address
    nonce: uint64

event LeafUsed:
    leaf: indexed(bytes32)

event Queued:
    leaf: indexed(bytes32)
    account: indexed(bytes32)
    token: address
    amount: uint256
    ready: uint64

event Finished:
    leaf: indexed(bytes32)

event Stopped:
    leaf: indexed(bytes32)

event Exit:
    account: indexed(bytes32)
    ready: uint64  # block from which `exit` works; 0: none under way

struct Rule:
    token: address
    big: uint256  # a decision above this waits; 0: none waits

struct Pending:
    ready: uint64  # block; 0: there is none
    source: bytes32
    to: bytes32  # account credited at the end, empty for a release
    token: address
    amount: uint256
    receiver: address  # paid at the end, empty for a transfer

RELEASE_TYPE: constant(bytes32) = keccak256("Release(bytes32 network,uint32 epoch,uint64 chain,address contract,bytes32 account,address token,uint256 amount,address to,uint64 nonce,uint64 expiry)")
TRANSFER_TYPE: constant(bytes32) = keccak256("Transfer(bytes32 network,uint32 epoch,uint64 chain,address contract,bytes32 from,bytes32 to,address token,uint256 amount,uint64 nonce,uint64 expiry)")
CREDIT_TYPE: constant(bytes32) = keccak256("Credit(bytes32 network,uint32 epoch,uint64 chain,address contract,bytes32 account,uint256 limit,uint64 nonce,uint64 expiry)")
ATTESTATION_TYPE: constant(bytes32) = keccak256("Attestation(bytes32 network,uint32 epoch,uint64 chain,address contract,bytes32 eventHash)")
STOP_TYPE: constant(bytes32) = keccak256("Stop(bytes32 leaf)")
MAX_RULES: constant(uint256) = 16
MAX_VENUES: constant(uint256) = 4

BIG_DELAY: immutable(uint64)  # blocks
EXIT_DELAY: immutable(uint64)  # blocks
VENUES: immutable(DynArray[address, MAX_VENUES])

balances: HashMap[bytes32, HashMap[address, uint256]]
requests: HashMap[bytes32, HashMap[address, bytes32]]  # hash of (amount, to, nonce)
request_nonce: public(HashMap[bytes32, uint64])
spent: HashMap[bytes32, bool]  # transfers, by what they do: the same one sealed again is no other
queued: public(HashMap[bytes32, Pending])
big: public(HashMap[address, uint256])
exit_at: public(HashMap[bytes32, uint64])


@deploy
def __init__(
    snapshots: address,
    big_delay: uint64,
    exit_delay: uint64,
    rules: DynArray[Rule, MAX_RULES],
    venues: DynArray[address, MAX_VENUES],
):
    """
    @param snapshots The Snapshots contract of this chain.
    @param big_delay Blocks a big decision waits, so that it can be stopped.
    @param exit_delay Blocks between `start_exit` and `exit`.
    @param rules Size above which a decision about a token waits.
    @param venues Venues of this chain, asked before an exit.
    """
    gated.__init__()
    sealing.__init__(snapshots)
    BIG_DELAY = big_delay
    EXIT_DELAY = exit_delay
    VENUES = venues
    for rule: Rule in rules:
        self.big[rule.token] = rule.big


@external
def bind(breaker: address):
    """
    @notice Name the Breaker of this chain: by the deployer, once, and never again.
    """
    gated._bind(breaker)


@external
@view
def breaker() -> address:
    """
    @notice The Breaker that can hold releases back, or the zero address.
    """
    return gated.breaker


@external
@view
def account_of(owner: address, index: uint256) -> bytes32:
    """
    @notice The id of an owner's account, the same on every chain of the network.
    """
    return self._account(owner, index)


@external
@view
def balance_of(account: bytes32, token: address) -> uint256:
    """
    @notice Tokens an account holds here.
    """
    return self.balances[account][token]


@external
@view
def delays() -> (uint64, uint64):
    """
    @notice Blocks a big decision waits, and blocks an exit waits.
    """
    return BIG_DELAY, EXIT_DELAY


@external
def register(index: uint256):
    """
    @notice Tell the keepers who owns an account, without a deposit.
    """
    log AccountOwner(account=self._account(msg.sender, index), owner=msg.sender)


@external
@nonreentrant
def deposit(index: uint256, token: address, amount: uint256):
    """
    @notice Put approved tokens into an account of the caller.
    @param index Which of the caller's accounts.
    """
    account: bytes32 = self._account(msg.sender, index)
    if self.balances[account][token] == 0:
        log AccountOwner(account=account, owner=msg.sender)
    self._deposit(account, token, amount)


@external
@nonreentrant
def deposit_for(account: bytes32, token: address, amount: uint256):
    """
    @notice Put approved tokens of the caller into any account.
    """
    self._deposit(account, token, amount)


@external
def request_withdraw(index: uint256, token: address, amount: uint256, to: address):
    """
    @notice Ask the keepers to release tokens; a later request for the token replaces this one.
    @param to Who is to be paid: nobody else ever is.
    """
    assert amount != 0, "vault: nothing requested"
    assert to != empty(address) and to != self, "vault: bad receiver"
    account: bytes32 = self._account(msg.sender, index)
    nonce: uint64 = self.request_nonce[account] + 1
    self.request_nonce[account] = nonce
    self.requests[account][token] = keccak256(abi_encode(amount, to, nonce))
    log AccountOwner(account=account, owner=msg.sender)
    log WithdrawRequested(account=account, token=token, amount=amount, to=to, nonce=nonce)


@external
def cancel_withdraw(index: uint256, token: address):
    """
    @notice Take the open request for a token back.
    """
    account: bytes32 = self._account(msg.sender, index)
    assert self.requests[account][token] != empty(bytes32), "vault: no such request"
    self.requests[account][token] = empty(bytes32)
    log WithdrawRequested(
        account=account, token=token, amount=0, to=empty(address), nonce=self.request_nonce[account]
    )


@external
@nonreentrant
def release(
    seal: proofs.Seal,
    proof: DynArray[bytes32, proofs.MAX_PROOF],
    account: bytes32,
    token: address,
    amount: uint256,
    to: address,
    nonce: uint64,
    expiry: uint64,
):
    """
    @notice Serve a requested withdrawal by certificate. Anyone may bring it.
    @param expiry Last block in which the decision has an effect.
    """
    assert convert(block.number, uint64) <= expiry, "vault: decision expired"
    assert (
        self.requests[account][token] == keccak256(abi_encode(amount, to, nonce))
    ), "vault: no such request"
    sealing._require(seal)
    leaf: bytes32 = self._place_leaf(
        RELEASE_TYPE, seal.epoch, abi_encode(account, token, amount, to, nonce, expiry)
    )
    assert proofs._included(leaf, seal.root, proof), "vault: not in the root"
    self.requests[account][token] = empty(bytes32)
    self._interrupt_exit(account)
    log LeafUsed(leaf=leaf)
    log WithdrawRequested(account=account, token=token, amount=0, to=to, nonce=nonce)
    self._debit(account, token, amount)
    if self._is_big(token, amount):
        gated._require_room(self._scope(token), amount)
        self._queue(
            leaf,
            Pending(
                ready=0,
                source=account,
                to=empty(bytes32),
                token=token,
                amount=amount,
                receiver=to,
            ),
        )
    else:
        gated._let_out(self._scope(token), amount)
        self._pay(token, to, amount)


@external
@nonreentrant
def transfer(
    seal: proofs.Seal,
    proof: DynArray[bytes32, proofs.MAX_PROOF],
    source: bytes32,
    to: bytes32,
    token: address,
    amount: uint256,
    nonce: uint64,
    expiry: uint64,
):
    """
    @notice Move tokens from a losing account to a winning one by certificate.
    @param source The account that pays.
    @param to The account that is paid.
    """
    assert convert(block.number, uint64) <= expiry, "vault: decision expired"
    assert source != to, "vault: same account"
    id: bytes32 = keccak256(abi_encode(source, to, token, amount, nonce))
    assert not self.spent[id], "vault: decision used"
    sealing._require(seal)
    leaf: bytes32 = self._place_leaf(
        TRANSFER_TYPE, seal.epoch, abi_encode(source, to, token, amount, nonce, expiry)
    )
    assert proofs._included(leaf, seal.root, proof), "vault: not in the root"
    self.spent[id] = True
    self._interrupt_exit(source)
    log LeafUsed(leaf=leaf)
    self._debit(source, token, amount)
    if self._is_big(token, amount):
        self._queue(
            leaf,
            Pending(
                ready=0,
                source=source,
                to=to,
                token=token,
                amount=amount,
                receiver=empty(address),
            ),
        )
    else:
        self._credit(to, token, amount)


@external
@nonreentrant
def finish(leaf: bytes32):
    """
    @notice Complete a big decision that waited its delay and was not stopped.
    """
    pending: Pending = self.queued[leaf]
    assert pending.ready != 0, "vault: nothing queued"
    assert convert(block.number, uint64) >= pending.ready, "vault: still waiting"
    self.queued[leaf] = empty(Pending)
    log Finished(leaf=leaf)
    if pending.receiver == empty(address):
        self._credit(pending.to, pending.token, pending.amount)
    else:
        gated._let_out(self._scope(pending.token), pending.amount)
        self._pay(pending.token, pending.receiver, pending.amount)


@external
def stop(seal: proofs.Seal, proof: DynArray[bytes32, proofs.MAX_PROOF], leaf: bytes32):
    """
    @notice Stop a big decision in its delay by a sealed attestation, and put the balance back.
    @dev The attestation's event hash is keccak(abi.encode(keccak("Stop(bytes32 leaf)"), leaf)).
    """
    pending: Pending = self.queued[leaf]
    assert pending.ready != 0, "vault: nothing queued"
    sealing._require(seal)
    attested: bytes32 = self._place_leaf(
        ATTESTATION_TYPE, seal.epoch, abi_encode(keccak256(abi_encode(STOP_TYPE, leaf)))
    )
    assert proofs._included(attested, seal.root, proof), "vault: not in the root"
    log LeafUsed(leaf=attested)
    self._put_back(leaf, pending)


@external
def challenge(
    seal: proofs.Seal,
    proof: DynArray[bytes32, proofs.MAX_PROOF],
    leaf: bytes32,
    header_proof: DynArray[bytes32, proofs.MAX_PROOF],
    header: headers.Header,
    cut: Bytes[headers.MAX_CUT],
    at: uint256,
):
    """
    @notice Stop a big decision in its delay by this chain's own history. Anyone may.
    @param leaf The decision that waits, proven under the seal's root.
    @param header The snapshot header that is sealed under the same root.
    @param cut The blocks the header was made of, 88 bytes each.
    @param at Place in the cut of the block that is of this chain, and is not its block.
    """
    pending: Pending = self.queued[leaf]
    assert pending.ready != 0, "vault: nothing queued"
    sealing._require(seal)
    assert proofs._included(leaf, seal.root, proof), "vault: not in the root"
    shown: bytes32 = headers._leaf(sealing.NETWORK, seal, header)
    assert proofs._included(shown, seal.root, header_proof), "vault: header not in the root"
    assert headers._contradicted(header, cut, at), "vault: the header is right"
    self._put_back(leaf, pending)


@external
def start_exit(index: uint256):
    """
    @notice Begin to leave without any keeper; any decision about the account interrupts it.
    """
    account: bytes32 = self._account(msg.sender, index)
    ready: uint64 = convert(block.number, uint64) + EXIT_DELAY
    self.exit_at[account] = ready
    log AccountOwner(account=account, owner=msg.sender)
    log Exit(account=account, ready=ready)


@external
def cancel_exit(index: uint256):
    """
    @notice Stay after all: keepers grant no credit to an account that is on its way out.
    """
    account: bytes32 = self._account(msg.sender, index)
    assert self.exit_at[account] != 0, "vault: no exit under way"
    self._interrupt_exit(account)


@external
def challenge_exit(
    seal: proofs.Seal,
    proof: DynArray[bytes32, proofs.MAX_PROOF],
    place: uint64,
    venue: address,
    account: bytes32,
    limit: uint256,
    nonce: uint64,
    expiry: uint64,
):
    """
    @notice Stop an exit by a sealed credit the account was given on any chain.
    @param place Chain of the venue.
    @param venue Contract the credit is for.
    """
    assert self.exit_at[account] != 0, "vault: no exit under way"
    assert limit != 0, "vault: empty credit"
    sealing._require(seal)
    leaf: bytes32 = keccak256(
        keccak256(
            abi_encode(
                CREDIT_TYPE, sealing.NETWORK, seal.epoch, place, venue, account, limit, nonce, expiry
            )
        )
    )
    assert proofs._included(leaf, seal.root, proof), "vault: not in the root"
    self._interrupt_exit(account)


@external
@nonreentrant
def exit(index: uint256, token: address, to: address):
    """
    @notice After the delay, take all of one token out of an account no venue here is engaged with.
    """
    assert to != empty(address) and to != self, "vault: bad receiver"
    account: bytes32 = self._account(msg.sender, index)
    ready: uint64 = self.exit_at[account]
    assert ready != 0, "vault: no exit under way"
    assert convert(block.number, uint64) >= ready, "vault: still waiting"
    for venue: address in VENUES:
        assert not staticcall IVenue(venue).engaged(account), "vault: account is engaged"
    amount: uint256 = self.balances[account][token]
    assert amount != 0, "vault: nothing to take"
    self._debit(account, token, amount)
    gated._count(self._scope(token), False, amount)
    self._pay(token, to, amount)


@internal
@view
def _account(owner: address, index: uint256) -> bytes32:
    return keccak256(abi_encode(sealing.NETWORK, owner, index))


@internal
@view
def _place_leaf(type_hash: bytes32, epoch: uint32, fields: Bytes[192]) -> bytes32:
    return keccak256(
        keccak256(
            concat(
                type_hash,
                sealing.NETWORK,
                convert(epoch, bytes32),
                convert(chain.id, bytes32),
                convert(self, bytes32),
                fields,
            )
        )
    )


@internal
@pure
def _scope(token: address) -> bytes32:
    # what a breaker calls a token of this chain
    return convert(convert(token, uint256), bytes32)


@internal
@view
def _is_big(token: address, amount: uint256) -> bool:
    big: uint256 = self.big[token]
    return big != 0 and amount > big


@internal
def _interrupt_exit(account: bytes32):
    if self.exit_at[account] != 0:
        self.exit_at[account] = 0
        log Exit(account=account, ready=0)


@internal
def _queue(leaf: bytes32, pending: Pending):
    ready: uint64 = convert(block.number, uint64) + BIG_DELAY
    self.queued[leaf] = pending
    self.queued[leaf].ready = ready
    log Queued(
        leaf=leaf,
        account=pending.source,
        token=pending.token,
        amount=pending.amount,
        ready=ready,
    )


@internal
def _put_back(leaf: bytes32, pending: Pending):
    self.queued[leaf] = empty(Pending)
    log Stopped(leaf=leaf)
    self._credit(pending.source, pending.token, pending.amount)


@internal
def _credit(account: bytes32, token: address, amount: uint256):
    balance: uint256 = self.balances[account][token] + amount
    self.balances[account][token] = balance
    log Balance(account=account, token=token, amount=balance)


@internal
def _debit(account: bytes32, token: address, amount: uint256):
    balance: uint256 = self.balances[account][token]
    assert balance >= amount, "vault: balance too low"
    self.balances[account][token] = balance - amount
    log Balance(account=account, token=token, amount=balance - amount)


@internal
def _deposit(account: bytes32, token: address, amount: uint256):
    assert amount != 0, "vault: nothing deposited"
    before: uint256 = staticcall IERC20(token).balanceOf(self)
    assert extcall IERC20(token).transferFrom(
        msg.sender, self, amount, default_return_value=True
    ), "vault: token refused"
    came: uint256 = staticcall IERC20(token).balanceOf(self) - before
    assert came == amount, "vault: token takes a fee"
    gated._count(self._scope(token), True, amount)
    self._credit(account, token, amount)


@internal
def _pay(token: address, to: address, amount: uint256):
    assert extcall IERC20(token).transfer(to, amount, default_return_value=True), "vault: token refused"
