# pragma version 0.4.3
# pragma evm-version prague
"""
@title gated
@license Apache-2.0
@notice Holds an action back where the chain's Breaker says so.
@dev A module. The deployer names the breaker once, or never: without one nothing is held back.
"""

INCREASE: constant(uint8) = 1
WITHDRAW: constant(uint8) = 2
LIQUIDATE: constant(uint8) = 4

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
