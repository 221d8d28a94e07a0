"""Margin of many accounts, six legs each, end to end, and the risk curve of a million.

End to end is parse → margin → sort → leaves → root, on one core, in CPU time, best of six.
"""

import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from keeper.hashing import BACKEND
from keeper.margin import book as books
from keeper.margin import stress
from keeper.margin.batch import NUMBA, NUMPY, PYTHON, available, evaluate_book
from keeper.margin.leaves import state_root, state_tree
from keeper.margin.tick import assess
from scripts.benches import _books
from scripts.benches._figure import at_least, at_most, figure

MILLION = 1_000_000


def cpu(run: Callable[[], object], times: int = 6) -> float:
    """Return the least CPU seconds of some runs, without the garbage collector."""
    best = float("inf")
    gc.collect()
    gc.freeze()
    gc.disable()
    for _ in range(times):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    gc.enable()
    gc.unfreeze()
    return best


def end_to_end(raw: bytes, engine: str) -> tuple[bytes, int]:
    """Return the state root and the number of accounts below the watch line."""
    book = books.load(raw)
    tick = assess(book, _books.marks(), engine)
    return state_root(book, engine), len(tick.watched)


def throughput() -> None:
    """Accounts per second of every engine, alone and end to end."""
    goals = {PYTHON: 80_000.0, NUMBA: 600_000.0}
    for engine, count in ((PYTHON, 50_000), (NUMPY, 50_000), (NUMBA, 200_000)):
        if engine not in available():
            at_least(f"margin.end_to_end.{engine}", 0.0, "accounts/s", goals.get(engine, 0.0))
            continue
        book = _books.book(count)
        raw = books.dump(book)
        first = end_to_end(raw, engine)
        assert first == end_to_end(raw, NUMPY if engine == PYTHON else PYTHON)
        whole = count / cpu(partial(end_to_end, raw, engine))
        name = f"margin.end_to_end.{engine}"
        if engine in goals:
            at_least(name, whole, "accounts/s", goals[engine])
        else:
            figure(name, whole, "accounts/s")
        alone = cpu(partial(assess, book, _books.marks(), engine))
        figure(f"margin.tick.{engine}", count / alone, "accounts/s")
        figure(f"margin.watched.{engine}", first[1] / count, "share")


def whole_model() -> None:
    """Accounts per second where every account gets the whole model, scenarios included."""
    small, large = _books.book(5_000), _books.book(200_000)
    for engine, book in ((PYTHON, small), (NUMPY, large), (NUMBA, large)):
        if engine in available():
            seconds = cpu(partial(evaluate_book, book, _books.marks(), engine))
            figure(f"margin.whole_model.{engine}", len(book) / seconds, "accounts/s")


def million() -> None:
    """One million accounts: memory with tree, curve, cascades. Run in a process of its own."""
    book = _books.book(MILLION)
    engine = available()[0]
    margins = evaluate_book(book, _books.marks(), engine)
    seconds = cpu(lambda: stress.curve(margins), 2)
    at_most("margin.risk_curve.1M", seconds, "s", 0.6)
    found = stress.curve(margins)
    depth = 10**15
    one = cpu(lambda: [found.cascade_ppm(50_000 + i, depth) for i in range(100)], 2) / 100
    at_most("margin.cascade.1M", one * 1_000, "ms", 1.0)
    again = cpu(lambda: evaluate_book(book, _books.marks(), engine), 2)
    figure("margin.whole_model.1M", again, "s")
    tree = state_tree(book)
    assert len(tree) == MILLION
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    at_most("margin.memory.1M", peak, "GiB", 2.0)


def main() -> None:
    """Print every figure."""
    if sys.argv[1:] == ["million"]:
        million()
        return
    sys.stderr.write(f"keccak: {BACKEND}; engines: {', '.join(available())}\n")
    throughput()
    whole_model()
    done = subprocess.run(
        [sys.executable, __file__, "million"], check=True, capture_output=True, text=True
    )
    for line in done.stdout.splitlines():
        json.loads(line)
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
