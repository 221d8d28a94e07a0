"""Light-client figures: an update with the mainnet committee of 512 keys, warm and cold.

Real containers and signatures of the simulated beacon; bytes in, verdict out. The CPU time of this
process is measured, so that other programs on the machine do not count. `py_ecc`, the reference
implementation in Python, verifies one such signature in seconds and is not run here.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

from keeper.observe.light_client.beacon import LightClient
from keeper.observe.light_client.bls import DecodedKeys
from keeper.observe.light_client.output_root import Anchor, OutputProof, Rollup, verify_output
from keeper.observe.light_client.ssz import decode_bootstrap, decode_finality_update, decode_update
from keeper.observe.light_client.trust import from_bootstrap
from scripts.benches._figure import at_most, figure
from tests.support.light_client import World
from tests.support.light_client_tries import ROLLUP, rollup_case

SIZE = 512
ROUNDS = 25


def _cpu_ms(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return (time.process_time() - start) * 1e3


def updates(ok: list[bool]) -> None:
    """Bootstrap, then updates cold and warm, each from its bytes to the verdict."""
    world = World(SIZE, slots_per_epoch=8, epochs_per_period=64)
    world.grow(30)
    root = world.final().root
    bootstrap = world.beacon.bootstrap(root)
    assert bootstrap is not None
    raw = bootstrap.encode()
    spec, made = world.beacon.spec, list[LightClient]()

    def start() -> None:
        trusted = from_bootstrap(spec, root, decode_bootstrap(raw, SIZE))
        made.append(LightClient(spec, trusted, world.now))

    figure("bootstrap", _cpu_ms(start), "ms")
    (client,) = made

    def take(body: bytes, *, whole: bool) -> None:
        decode = decode_update if whole else decode_finality_update
        assert client.process(decode(body, SIZE), world.now).finalized

    world.grow(8)
    body = world.update().encode()
    figure("first update, 512 keys decoded", _cpu_ms(lambda: take(body, whole=True)), "ms")
    for name, whole, participation in (
        ("update", True, 100),
        ("update, 90 % signed", True, 90),
        ("finality update", False, 100),
    ):
        world.beacon.faults.participation = participation
        times = []
        for _ in range(ROUNDS):
            world.grow(8)
            body = world.update().encode() if whole else world.update().encode_finality()
            times.append(_cpu_ms(partial(take, body, whole=whole)))
        ok.append(at_most(f"{name}, warm, 512 keys", statistics.median(times), "ms", 5))
    figure("update size", len(world.update().encode()), "bytes")
    figure("finality update size", len(world.update().encode_finality()), "bytes")
    keys = world.beacon.committee(0).public.keys()
    figure("decoding of 512 keys", _cpu_ms(lambda: DecodedKeys(keys)), "ms")


def _output(l1: Anchor, rollup: Rollup, proof: OutputProof) -> None:
    times = [_cpu_ms(lambda: verify_output(l1, rollup, proof)) for _ in range(ROUNDS)]
    figure("output root to L2 block", statistics.median(times), "ms")


def main() -> None:
    """Print every figure."""
    ok: list[bool] = []
    updates(ok)
    l1, proof, _ = rollup_case()
    _output(l1, ROLLUP, proof)
    if not all(ok):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
