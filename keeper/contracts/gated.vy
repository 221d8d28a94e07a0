# pragma version 0.4.3
# pragma evm-version prague
"""
@title gated
@license Apache-2.0
@notice Holds an action back where the chain's Breaker says so, and tells it what flows.
@dev A module. The deployer names the breaker once, or never: without one nothing is held back.
    Every action is one call: `let_out` grades, limits and counts what is paid, `require_room` asks
    early about what is paid later, `count` only tells, and whatever happens there is ignored.
"""

INCREASE: constant(uint8) = 1
WITHDRAW: constant(uint8) = 2
LIQUIDATE: constant(uint8) = 4
COUNT_GAS: constant(uint256) = 60_000  # several times what counting takes

deployer: address  # may bind the breaker once; empty afterwards
breaker: address


@deploy
def __init__():
    self.deployer = msg.sender


@internal
def _bind(breaker: address):
    assert msg.sender == self.deployer, "breaker: not the deployer"
    assert breaker != empty(address), "breaker: no breaker"
    self.deployer = empty(address)
    self.breaker = breaker


@internal
@view
def _require_open(scope: bytes32, action: uint8):
    # the breaker answers with the strictest of the scope and everywhere, or reverts
    at: address = self.breaker
    if at != empty(address):
        raw_call(
            at,
            abi_encode(scope, action, method_id=method_id("require_open(bytes32,uint8)")),
            is_static_call=True,
        )


@internal
@view
def _require_room(asset: bytes32, amount: uint256):
    at: address = self.breaker
    if at != empty(address):
        raw_call(
            at,
            abi_encode(asset, amount, method_id=method_id("require_room(bytes32,uint256)")),
            is_static_call=True,
        )


@internal
def _let_out(asset: bytes32, amount: uint256):
    at: address = self.breaker
    if at != empty(address):
        raw_call(at, abi_encode(asset, amount, method_id=method_id("let_out(bytes32,uint256)")))


@internal
def _count(asset: bytes32, inbound: bool, amount: uint256):
    # much is left to do by the caller, so nobody can starve this call alone of gas
    at: address = self.breaker
    if at != empty(address):
        told: bool = raw_call(
            at,
            abi_encode(asset, inbound, amount, method_id=method_id("count(bytes32,bool,uint256)")),
            gas=COUNT_GAS,
            revert_on_failure=False,
        )
