"""One arena for all hostile tests: starting two processes costs more than most attacks."""

from collections.abc import Iterator

import pytest

from tests.support.p2p_arena import Arena


@pytest.fixture(scope="package")
def arena() -> Iterator[Arena]:
    arena = Arena()
    yield arena
    arena.stop()
