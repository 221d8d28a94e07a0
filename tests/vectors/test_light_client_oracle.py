"""Our client and the official specification, given the same updates, good and bad, say the same."""

import json
import random
import shutil
import subprocess
import venv
from pathlib import Path
from typing import Any

import pytest

from keeper.observe.light_client.ssz import decode_update
from keeper.reasons import Reason
from tests.support.light_client import SIZE, World
from tests.support.shared import ROOT

PACKAGES = ("eth-consensus-specs==1.7.0a13", "ckzg==2.1.8")
"""The specification as its authors publish it; it imports ckzg without saying so."""
UPDATES = 40


@pytest.fixture(scope="session")
def oracle() -> Path:
    """Return the Python of an environment with the specification: made once, 20 s, 80 MB."""
    target = ROOT / ".cache" / "consensus-specs"
    if not (target / "complete").exists():
        shutil.rmtree(target, ignore_errors=True)
        venv.create(target, with_pip=True)
        pip = [str(target / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        try:
            subprocess.run([*pip, *PACKAGES], check=True, capture_output=True, timeout=180)
        except subprocess.SubprocessError as error:
            pytest.skip(f"the specification cannot be fetched: {error}")
        (target / "complete").touch()
    return target / "bin" / "python"


def _course(oracle: Path, job: dict[str, Any]) -> list[list[Any]]:
    done = subprocess.run(
        [str(oracle), str(ROOT / "tests" / "support" / "light_client_oracle.py")],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    course: list[list[Any]] = json.loads(done.stdout)
    return course


def _updates(world: World, chance: random.Random) -> list[tuple[bytes, int]]:
    """Updates over three periods: few signers, strangers, flipped bits among them."""
    made = []
    for _ in range(UPDATES):
        world.grow(chance.randrange(1, 9))
        world.beacon.faults.participation = chance.choice((4, 40, 60, 70, 100))
        world.beacon.faults.strangers = chance.random() < 0.1
        raw = bytearray(world.update().encode())
        if chance.random() < 0.25:
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        made.append((bytes(raw), world.now))
    return made


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_course_as_the_specification(oracle: Path, seed: int) -> None:
    world, chance = World(), random.Random(seed)
    world.grow(30)
    client, root = world.client(), world.final().root
    bootstrap = world.beacon.bootstrap(root)
    assert bootstrap is not None
    updates = _updates(world, chance)
    expected = _course(
        oracle,
        {
            "version": world.beacon.spec.forks[0][1].hex(),
            "root": root.hex(),
            "genesis_validators_root": world.beacon.spec.genesis_validators_root.hex(),
            "bootstrap": bootstrap.encode().hex(),
            "updates": [(raw.hex(), now) for raw, now in updates],
        },
    )
    ours = []
    for raw, now in updates:
        try:
            verdict = client.process(decode_update(raw, SIZE), now)
            refused = verdict.reason not in (None, Reason.LOW_PARTICIPATION)
        except ValueError:
            refused = True
        final = client.finalized.beacon.root().hex()
        ours.append([refused, final, client.optimistic.beacon.slot])
    assert ours == expected
    assert {True, False} == {row[0] for row in ours}
    assert len({row[1] for row in ours}) > 3
