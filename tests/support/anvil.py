"""Real chains for tests: one cached binary per session, one fresh chain per `with`.

    @pytest.mark.anvil
    async def test_x(anvil_binary):
        async with chain_of(anvil_binary, 31501) as anvil: ...

Import `anvil_binary` into the test module (or a conftest) to use it as a fixture.
"""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keeper.devnet.chains import Anvil, AnvilSpec, ensure_anvil, run_anvil
from keeper.errors import UnreachableError
from keeper.units import ChainId

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "anvil"


@pytest.fixture(scope="session")
def anvil_binary() -> Path:
    """Return the pinned binary, or skip saying why there is none."""
    try:
        return ensure_anvil(CACHE)
    except UnreachableError as error:
        pytest.skip(f"no anvil here: {error}")


@asynccontextmanager
async def chain_of(binary: Path, chain: int = 31501, **changes: Any) -> AsyncIterator[Anvil]:
    """Run a chain that mines a block per transaction unless `changes` say otherwise."""
    spec = replace(AnvilSpec(ChainId(chain), block_time_s=None), **changes)
    async with run_anvil(binary, spec) as anvil:
        yield anvil


@contextmanager
def frozen(anvil: Anvil) -> Iterator[None]:
    """Stop the process inside; it has stopped, all threads of it, when the block begins."""
    anvil.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, anvil.process.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        yield
    finally:
        anvil.process.send_signal(signal.SIGCONT)
