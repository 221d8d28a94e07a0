"""Parameters change inside agreed views: by a step, after the delay, or not at all."""

from dataclasses import replace
from typing import Any

import pytest

from keeper.parameters import Parameters
from keeper.snapshot import governed
from keeper.snapshot.book import book_from_bytes
from tests.support.clearing_world import GENESIS_MS, USD, A, B, World, trader

DELAY, EXPIRY = 100, 50
BASE = replace(
    Parameters.devnet([A, B]),
    breakers=replace(
        Parameters.devnet().breakers,
        step_delay_s=DELAY,
        step_expiry_s=EXPIRY,
        state_soft_age_s=10**6,
        state_hard_age_s=10**6,
    ),
)
MARGIN = BASE.margin


def changed(**fields: Any) -> Parameters:
    return replace(BASE, margin=replace(MARGIN, **fields))


STEP = changed(leg_cost=MARGIN.leg_cost * 11 // 10)


def world() -> World:
    net = World(parameters=BASE)
    net.chains[A].set_balance(trader(1), net.token(A), 1_000 * USD)
    net.view()
    return net


def propose(net: World, raw: bytes, chain: Any = A) -> None:
    at = GENESIS_MS // 1000 + net.number // 2
    signature = "ParametersProposed(uint64,bytes)"
    net.chains[chain].log("Breaker", signature, [], ["uint64", "bytes"], at, raw)
    net.view()


def wait(net: World, seconds: int) -> None:
    net.view(skip=2 * seconds)


def in_force(net: World) -> Parameters:
    found = net.snapshot.parameters(net.setting)
    assert book_from_bytes(net.snapshot.book.encode()) == net.snapshot.book
    return found


def state(net: World) -> governed.Governed:
    return governed.decode(net.snapshot.book.rules[governed.STATE])


def test_a_step_is_in_force_after_its_delay_for_every_computation() -> None:
    net = world()
    propose(net, STEP.encode())
    wait(net, DELAY - 5)
    assert in_force(net) == BASE
    assert net.snapshot.header.parameters == net.setting.digest
    wait(net, 5)
    assert in_force(net) == STEP
    assert net.snapshot.header.parameters != net.setting.digest
    other = world()
    propose(other, b"")
    wait(other, DELAY - 5)
    wait(other, 5)
    for one in (net, other):
        one.chains[B].set_position(trader(1), MARGIN.markets[0].symbol, 10**8, -2_000 * USD)
        one.view()
    mmr, before = (one.snapshot.margins[trader(1)].mmr for one in (net, other))
    assert mmr - before == STEP.margin.leg_cost - MARGIN.leg_cost
    wait(net, 10**4)
    assert in_force(net) == STEP  # and it stays; the same proposal is not judged again


def test_the_next_step_is_measured_from_the_set_in_force() -> None:
    net = world()
    propose(net, STEP.encode())
    wait(net, DELAY)
    second = changed(leg_cost=STEP.margin.leg_cost * 11 // 10)
    propose(net, second.encode())
    wait(net, DELAY)
    assert in_force(net) == second
    propose(net, BASE.encode())
    wait(net, DELAY)
    assert in_force(net) == second
    assert "larger" in state(net).why


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (changed(leg_cost=MARGIN.leg_cost * 2).encode(), "larger"),
        (changed(markets=()).encode(), "rows"),
        (changed(bridge_class_ppm=()).encode(), "impossible"),
        (STEP.encode()[:-1], "parameters"),
        (b"\xc1", "parameters"),
        (bytes(4_096), "parameters"),
    ],
)
def test_what_is_no_step_is_refused_with_its_reason(raw: bytes, why: str) -> None:
    net = world()
    propose(net, raw)
    assert state(net) == governed.Governed()
    wait(net, DELAY)
    assert in_force(net) == BASE
    assert why in state(net).why
    propose(net, STEP.encode())
    wait(net, DELAY)
    assert in_force(net) == STEP


def test_a_proposal_that_nobody_could_agree_on_in_time_expires() -> None:
    net = world()
    propose(net, STEP.encode())
    wait(net, DELAY + EXPIRY + 1)  # the network was down
    assert in_force(net) == BASE
    assert "expired" in state(net).why
    wait(net, 10)
    assert in_force(net) == BASE


def test_a_newer_proposal_replaces_and_an_empty_one_withdraws() -> None:
    net = world()
    other = changed(leg_cost=MARGIN.leg_cost - 1)
    propose(net, STEP.encode())
    wait(net, DELAY - 10)
    propose(net, other.encode())  # its own delay begins
    wait(net, 20)
    assert in_force(net) == BASE
    wait(net, DELAY - 20)
    assert in_force(net) == other
    propose(net, STEP.encode())
    propose(net, b"")
    wait(net, DELAY)
    assert in_force(net) == other


def test_only_the_hubs_breaker_is_heard() -> None:
    net = world()
    propose(net, STEP.encode(), B)
    wait(net, DELAY)
    assert in_force(net) == BASE
    net.chains[A].log("Vault", "ParametersProposed(uint64,bytes)", [], ["bytes"], STEP.encode())
    net.chains[A].log("Breaker", "ParametersProposed(uint64,bytes)", [], ["uint64"], 7)
    wait(net, DELAY)  # neither another contract nor a malformed record
    assert in_force(net) == BASE


def test_every_keeper_says_the_same() -> None:
    roots = set()
    for _ in range(2):
        net = world()
        propose(net, STEP.encode())
        wait(net, DELAY)
        roots.add((net.snapshot.root, net.snapshot.book.hash()))
    assert len(roots) == 1
