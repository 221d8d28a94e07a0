"""Legs and flows as JSON: what a file of somebody else's says wrongly is said, never a crash."""

import json
from typing import Any

import pytest

from keeper.errors import ConfigError
from keeper.network import ChainSpec, NetworkSpec
from keeper.parameters import Parameters
from keeper.settle.terms import plain_leg, read_legs
from keeper.units import ChainId

CHAIN = ChainId(7)
SPEC = NetworkSpec(
    b"\x01" * 32,
    0,
    500,
    CHAIN,
    (ChainSpec(CHAIN, (("Escrow", b"\x05" * 20),)),),
    Parameters.devnet((CHAIN,)).encode(),
)
LEG = {
    "chain": CHAIN,
    "payer": "0x" + "0a" * 20,
    "token": "0x" + "0c" * 20,
    "amount": 5,
    "deposit": 1,
    "receiver": "0x" + "0b" * 20,
}


@pytest.mark.parametrize(
    "change",
    [
        '{"chain": Infinity}',
        '{"chain": 1e999}',
        '{"chain": NaN}',
        '{"chain": null}',
        '{"chain": 8}',
        '{"amount": Infinity}',
        '{"amount": 0}',
        '{"deposit": -1}',
        '{"payer": "0x11"}',
        '{"receiver": 5}',
        '{"into": "Vault"}',
        '{"market": "ETH-USD", "account": Infinity}',
    ],
)
def test_legs_that_are_none_are_refused(change: str) -> None:
    row: dict[str, Any] = LEG | json.loads(change)
    assert [plain_leg(leg) for leg in read_legs(SPEC, [LEG], "legs")] == [LEG]  # the control
    with pytest.raises(ConfigError, match=r"cannot read the legs|chain 8"):
        read_legs(SPEC, [row], "legs")
