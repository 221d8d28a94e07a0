# pragma version 0.4.3
# pragma evm-version prague
# pragma optimize gas
"""
@title Repay
@license Apache-2.0
@notice Repays variable debt at one Aave v3 pool for whoever is named: a leg of a flow is delivered
    to it as into a vault.
@dev
    Escrow.pay ─▶ deposit_for ─▶ POOL.repay ─▶ what the debt did not need ─▶ the debtor
                                └─ refused ─▶ all of it ─────────────────┘  └─ refused ─▶ owed
                                                                            collect ◀───────┘

    A committed leg has to end, whatever third parties do, for its flow cannot be undone any more. So
    only the taking of the tokens may fail here, as if the escrow's own transfer had failed. A pool
    that is paused or knows no debt is passed by, and what the debtor's address cannot be sent is
    owed to it. What was taken, repaid and sent is read from balances, never from an answer.
    Whoever brings it must give enough gas for the pool: else a brought leg could be made to miss the
    debt on purpose. A pool that forbids re-entry would refuse whoever pays a leg from inside a call
    to it; Aave v3 does not. Nobody owns this contract.
"""
from ethereum.ercs import IERC20

event Repaid:
    account: indexed(bytes32)
    token: indexed(address)
    repaid: uint256
    rest: uint256  # sent to the debtor, or owed

event Owed:  # a token would not go where it should; absolute
    who: indexed(address)
    token: indexed(address)
    amount: uint256

VARIABLE: constant(uint256) = 2  # Aave's rate mode
POOL_GAS: constant(uint256) = 1_000_000  # of a repayment: several times what it takes
TOKEN_GAS: constant(uint256) = 300_000  # of an approval or a transfer: far more than it takes
# a 64th stays behind in each call; two approvals and a transfer at most, and what is done here
LEAST_GAS: constant(uint256) = POOL_GAS * 64 // 63 + 3 * TOKEN_GAS * 64 // 63 + 170_000

POOL: immutable(address)

owed: public(HashMap[address, HashMap[address, uint256]])  # who -> token


@deploy
def __init__(pool: address):
    """
    @param pool The Aave v3 pool (its proxy) at which debt is repaid.
    """
    assert pool.is_contract, "repay: no pool"
    POOL = pool


@external
@view
def pool() -> address:
    """
    @notice The Aave v3 pool at which debt is repaid.
    """
    return POOL


@external
@nonreentrant
def deposit_for(account: bytes32, token: address, amount: uint256):
    """
    @notice Repay an address's variable debt in a token from approved tokens of the caller; what the
        debt does not need is sent to that address.
    @param account Whose debt: an address as a 32-byte word.
    """
    debtor: address = self._address(account)
    before: uint256 = self._held(token)
    assert extcall IERC20(token).transferFrom(
        msg.sender, self, amount, default_return_value=True
    ), "repay: token refused"
    came: uint256 = self._gain(token, before)
    assert came != 0, "repay: nothing came"
    assert msg.gas >= LEAST_GAS, "repay: too little gas"
    self._repay(token, came, debtor)
    rest: uint256 = min(self._gain(token, before), came)
    if rest != 0:
        self._approve(token, 0)
    log Repaid(account=account, token=token, repaid=came - rest, rest=rest)
    stayed: uint256 = self._send(token, debtor, rest)
    if stayed != 0:
        self._owe(debtor, token, self.owed[debtor][token] + stayed)


@external
@nonreentrant
def collect(who: address, token: address):
    """
    @notice Send what is owed to somebody after all. Anyone may ask.
    """
    amount: uint256 = self.owed[who][token]
    assert amount != 0, "repay: nothing owed"
    self._owe(who, token, 0)
    assert self._send(token, who, amount) == 0, "repay: token refused"


@internal
def _repay(token: address, amount: uint256, debtor: address):
    # the pool may refuse or take less: balances tell
    self._approve(token, amount)
    _done: bool = raw_call(
        POOL,
        abi_encode(
            token,
            amount,
            VARIABLE,
            debtor,
            method_id=method_id("repay(address,uint256,uint256,address)"),
        ),
        gas=POOL_GAS,
        revert_on_failure=False,
    )


@internal
def _approve(token: address, amount: uint256):
    # a token that does not let it only keeps the pool from taking
    _done: bool = raw_call(
        token,
        abi_encode(POOL, amount, method_id=method_id("approve(address,uint256)")),
        gas=TOKEN_GAS,
        revert_on_failure=False,
    )


@internal
def _send(token: address, to: address, amount: uint256) -> uint256:
    """
    @return What did not go.
    """
    if amount == 0:
        return 0
    before: uint256 = self._held(token)
    _done: bool = raw_call(
        token,
        abi_encode(to, amount, method_id=method_id("transfer(address,uint256)")),
        gas=TOKEN_GAS,
        revert_on_failure=False,
    )
    after: uint256 = self._held(token)
    went: uint256 = before - after if after < before else 0
    return amount - min(went, amount)


@internal
def _owe(who: address, token: address, amount: uint256):
    self.owed[who][token] = amount
    log Owed(who=who, token=token, amount=amount)


@internal
@view
def _held(token: address) -> uint256:
    return staticcall IERC20(token).balanceOf(self)


@internal
@view
def _gain(token: address, before: uint256) -> uint256:
    held: uint256 = self._held(token)
    return held - before if held > before else 0


@internal
@view
def _address(word: bytes32) -> address:
    # not this contract either: nothing could be sent on
    number: uint256 = convert(word, uint256)
    assert number != 0 and number >> 160 == 0, "repay: not an address"
    found: address = convert(number, address)
    assert found != self, "repay: not an address"
    return found
