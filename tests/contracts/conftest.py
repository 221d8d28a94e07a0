"""A deployed chain per test: built once, rolled back after each."""

from collections.abc import Iterator

import pytest

from tests.support.contracts import World, build_world


@pytest.fixture(scope="session")
def built_world() -> World:
    return build_world()


@pytest.fixture
def world(built_world: World) -> Iterator[World]:
    with built_world.anchor():
        yield built_world
