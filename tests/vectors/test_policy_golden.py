"""A record made elsewhere replays here: same record, same policy, same decisions, byte for byte.

The committed file is a node's record of a falling market. A change of it is a change of the record
format or of the built-in policy's behaviour, made with `pytest --update` in its own commit.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from policies.api import Act, Skip
from policies.child import PolicySpec
from policies.convert import ETH, PRICE_UNIT, USDC, book_of
from policies.liquidation import Liquidation, LiquidationConfig
from policies.market import World
from policies.record import Decided, RecordReader, RecordWriter, Viewed, state_hash
from policies.replay import replay

FILE = Path(__file__).with_name("golden") / "policy_record.hex"
CONFIG = {"max_volume": 40_000_000_000, "window_ms": 4_000}
"""A volume cap, so that the state that is carried from view to view matters."""


def fall(path: Path) -> bytes:
    """Return the record of the built-in policy in a falling market."""
    world = World(book_of(2_000 * PRICE_UNIT, 1_700_000_000_000, 16, 7))
    policy, state = Liquidation(LiquidationConfig(**CONFIG)), b""
    with RecordWriter(path, {"keeper": "01" * 20}) as record:
        for n in range(1, 9):
            prices = ((ETH, (2_000 - 70 * n) * PRICE_UNIT), (USDC, PRICE_UNIT))
            view = world.tick(world.now_ms + 1_000, prices)
            before = state
            decisions, state = policy.decide(view, state)
            record.append(Viewed(view, "", before if n == 1 else None))
            record.append(Decided(view.view, "x", "x", tuple(decisions), state_hash(state)))
    return path.read_bytes()


def test_the_record_is_written_as_it_was(
    golden: Callable[[str, bytes], None], tmp_path: Path
) -> None:
    golden("policy_record", fall(tmp_path / "a.fkrec"))


@pytest.mark.parametrize("hash_seed", [0, 3])
async def test_the_committed_record_replays_byte_for_byte(tmp_path: Path, hash_seed: int) -> None:
    path = tmp_path / "elsewhere.fkrec"
    path.write_bytes(bytes.fromhex("".join(FILE.read_text().split())))
    kinds = {
        type(one)
        for entry in RecordReader(path)
        if isinstance(entry, Decided)
        for one in entry.decisions
    }
    assert kinds == {Act, Skip}
    target = "policies.liquidation:Liquidation"
    found = await replay(PolicySpec("x", target, CONFIG, hash_seed=hash_seed), path)
    assert (found.views, found.different) == (8, ())
    other = await replay(PolicySpec("x", target, {**CONFIG, "target_ppm": 1_100_000}), path)
    assert other.different, "another configuration decides otherwise"
    assert other.digest != found.digest
