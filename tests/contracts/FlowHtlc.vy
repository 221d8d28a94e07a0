# pragma version 0.4.3
"""
@title FlowHtlc
@license Apache-2.0
@notice The usual hash time-locked contract: the control that a flow is compared with.
"""
from ethereum.ercs import IERC20

struct Lock:
    payer: address
    receiver: address
    token: address
    amount: uint256
    until: uint256

locks: public(HashMap[bytes32, Lock])


@external
def lock(digest: bytes32, receiver: address, token: address, amount: uint256, until: uint256):
    assert self.locks[digest].amount == 0, "htlc: locked"
    self.locks[digest] = Lock(
        payer=msg.sender, receiver=receiver, token=token, amount=amount, until=until
    )
    assert extcall IERC20(token).transferFrom(msg.sender, self, amount)


@external
def redeem(secret: bytes32):
    digest: bytes32 = keccak256(secret)
    held: Lock = self.locks[digest]
    assert held.amount != 0, "htlc: nothing locked"
    assert block.timestamp <= held.until, "htlc: too late"
    self.locks[digest].amount = 0
    assert extcall IERC20(held.token).transfer(held.receiver, held.amount)


@external
def refund(digest: bytes32):
    held: Lock = self.locks[digest]
    assert held.amount != 0, "htlc: nothing locked"
    assert block.timestamp > held.until, "htlc: too early"
    self.locks[digest].amount = 0
    assert extcall IERC20(held.token).transfer(held.payer, held.amount)
