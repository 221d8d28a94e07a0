# pragma version 0.4.3
"""
@title GreedyBreaker
@notice Burns all the gas it is given, whatever it is asked.
"""


@external
def __default__():
    assert msg.sender == empty(address), UNREACHABLE
