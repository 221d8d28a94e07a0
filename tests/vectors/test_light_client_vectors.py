"""The consensus specification's light-client vectors: every step, every check, every file."""

from typing import Any

import pytest

from keeper.observe.light_client.beacon import LightClient
from keeper.observe.light_client.ssz import (
    LightHeader,
    decode_bootstrap,
    decode_finality_update,
    decode_optimistic_update,
    decode_update,
)
from tests.support.light_client import SIZE, Case, from_hex
from tests.support.shared import ROOT, shared_path

NAMES = ("advance_finality_without_sync_committee", "light_client_sync")


def _same(header: LightHeader, expected: dict[str, Any]) -> None:
    assert header.beacon.slot == expected["slot"]
    assert header.beacon.root() == from_hex(expected["beacon_root"])
    assert header.execution.root == from_hex(expected["execution_root"])


def _step(case: Case, client: LightClient, step: dict[str, Any]) -> None:
    (name, body), *rest = step.items()
    assert not rest
    if name == "process_update":
        client.process(decode_update(case.raw(body["update"]), SIZE), body["current_slot"])
    elif name == "force_update":
        client.force(body["current_slot"])
    else:
        raise AssertionError(f"unknown step {name}")
    _same(client.finalized, body["checks"]["finalized_header"])
    _same(client.optimistic, body["checks"]["optimistic_header"])


@pytest.mark.parametrize("name", NAMES)
def test_every_step_of_the_official_vectors(name: str) -> None:
    case = Case(shared_path(f"vectors/beacon/electra/{name}"))
    client, steps = case.client(), case.load("steps.yaml")
    assert steps
    for step in steps:
        _step(case, client, step)


def test_no_vector_is_left_out() -> None:
    shared_path("vectors/beacon")
    folders = ROOT.parent / "shared" / "vectors" / "beacon" / "electra"
    assert sorted(each.name for each in folders.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_file_decodes_and_encodes_to_the_same_bytes(name: str) -> None:
    case = Case(shared_path(f"vectors/beacon/electra/{name}"))
    raw = case.raw("bootstrap")
    assert decode_bootstrap(raw, SIZE).encode() == raw
    files = sorted(each.name.split(".")[0] for each in case.folder.glob("update_*"))
    assert files
    for file in files:
        raw = case.raw(file)
        update = decode_update(raw, SIZE)
        assert update.encode() == raw
        again = decode_finality_update(update.encode_finality(), SIZE)
        assert again.encode_finality() == update.encode_finality()
        last = decode_optimistic_update(update.encode_optimistic(), SIZE)
        assert last.encode_optimistic() == update.encode_optimistic()
