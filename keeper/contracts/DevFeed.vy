# pragma version 0.4.3
# pragma evm-version prague
"""
@title DevFeed
@license Apache-2.0
@notice A price feed for local networks with Chainlink's AggregatorV3Interface; its deployer sets it.
"""

event AnswerUpdated:
    current: indexed(int256)
    roundId: indexed(uint256)
    updatedAt: uint256

decimals: public(constant(uint8)) = 8
version: public(constant(uint256)) = 1
description: public(String[32])
owner: public(immutable(address))
round: uint80
answer: int256
updated: uint256


@deploy
def __init__(description: String[32], answer: int256):
    """
    @param description For instance "ETH / USD".
    @param answer First price, 1e-8 USD.
    """
    owner = msg.sender
    self.description = description
    self._set(answer, block.timestamp)


@external
def set_answer(answer: int256):
    """
    @notice Publish a price, 1e-8 USD, as of now.
    """
    assert msg.sender == owner, "feed: not the owner"
    self._set(answer, block.timestamp)


@external
def set_answer_at(answer: int256, updated: uint256):
    """
    @notice Publish a price as of some other time, to rehearse a stale feed.
    """
    assert msg.sender == owner, "feed: not the owner"
    self._set(answer, updated)


@external
@view
def latestRoundData() -> (uint80, int256, uint256, uint256, uint80):
    """
    @notice Round id, answer, started at, updated at, answered in round.
    """
    return self.round, self.answer, self.updated, self.updated, self.round


@external
@view
def getRoundData(round: uint80) -> (uint80, int256, uint256, uint256, uint80):
    """
    @notice The same for the latest round; earlier rounds are not kept.
    """
    assert round == self.round, "feed: no such round"
    return self.round, self.answer, self.updated, self.updated, self.round


@internal
def _set(answer: int256, updated: uint256):
    self.round += 1
    self.answer = answer
    self.updated = updated
    log AnswerUpdated(current=answer, roundId=convert(self.round, uint256), updatedAt=updated)
