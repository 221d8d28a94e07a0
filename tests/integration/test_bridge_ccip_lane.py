"""A token over CCIP 2.0's real pools: out and back, at its limits, cursed, and set up otherwise."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from eth_abi.abi import encode
from typer.testing import CliRunner

from keeper.cli.main import app
from keeper.hashing import keccak
from keeper.parameters import BridgeClass
from keeper.plan import Step, StepKind
from keeper.route.bridges.ccip_facts import CcipEnd
from keeper.route.bridges.ccip_lane import Ccip
from keeper.route.bridges.port import Send, Stage, Terms, Transfer, lane_of, step_sends
from keeper.route.graph import Graph, Lane, Place
from keeper.route.quote import Quote, Request, quote
from keeper.route.reader import read_lanes
from tests.support.anvil import anvil_binary
from tests.support.bridge_home import write_home
from tests.support.ccip_contracts import (
    AWAY,
    COMMITTEE,
    DECIMALS,
    HOME,
    KEYS,
    USDC,
    VERIFIER,
    End,
    Pooled,
    pooled,
    section,
    selector,
)
from tests.support.policy_contracts import Contract

pytestmark = [pytest.mark.anvil, pytest.mark.npm]
__all__ = ["anvil_binary"]
ALICE, BOB = 5, 6
"""Accounts of the chains."""
ONE = 10**6


def person(end: End, place: int) -> tuple[str, bytes]:
    text = end.site.shop.people[place]
    return text, bytes.fromhex(text[2:])


def sends(world: Pooled, place: int, amount: int, terms: Terms) -> tuple[Send, ...]:
    """Return the transactions of a plan step that moves Alice's USDC to Bob."""
    crossing = world.route.crossings()[place]
    end = world.ends[crossing.origin]
    step = Step(
        "move", crossing.origin, StepKind.BRIDGE, world.route.address(crossing),
        (
            ("amount", amount), ("asset", USDC), ("destination", crossing.destination),
            ("recipient", person(end, BOB)[1]),
        ),
    )  # fmt: skip
    return step_sends([world.route], step, person(end, ALICE)[1], terms, 10**18)


async def move(world: Pooled, place: int, amount: int, sender: int = ALICE) -> Transfer:
    """Send over a crossing, and return the transfer its receipt shows."""
    crossing = world.route.crossings()[place]
    end = world.ends[crossing.origin]
    plan = sends(world, place, amount, await world.terms(place))
    receipts = await end.site.run(plan, person(end, sender)[0])
    (transfer,) = world.route.sent(crossing, receipts[-1].logs)
    assert world.route.sent(crossing, receipts[0].logs) == ()
    return transfer


async def refused(world: Pooled, place: int, amount: int) -> bool:
    """Return whether the real router refuses to send an amount."""
    crossing = world.route.crossings()[place]
    end, terms = world.ends[crossing.origin], await world.terms(place)
    allow, order = world.route.sends(crossing, amount, b"", person(end, BOB)[1], terms)
    await end.site.run([allow], person(end, ALICE)[0])
    return not (await end.site.attempt(order, person(end, ALICE)[0])).succeeded


async def stage(world: Pooled, transfer: Transfer) -> Stage:
    return world.route.stage(transfer, await world.answers(world.route.arrival_reads(transfer)))


async def deliver(world: Pooled, transfer: Transfer) -> None:
    site = world.ends[transfer.crossing.destination].site
    signed = world.signed(transfer, KEYS[:3])
    (receipt,) = await site.run([world.route.deliver(transfer, signed)])
    assert await stage(world, transfer) is Stage.ARRIVED
    proof = world.route.delivery(transfer, receipt.logs)
    assert proof is not None
    assert (proof.block, proof.transaction) == (receipt.block, receipt.transaction)


async def mint(world: Pooled, amount: int) -> None:
    home = world.ends[HOME]
    await home.parts["token"].tx("mint", amount, sender=person(home, ALICE)[0])


async def test_keepers_carry_a_token_out_and_back(anvil_binary: Path) -> None:
    async with pooled(anvil_binary) as world:
        home, away = world.ends[HOME], world.ends[AWAY]
        (alice, _), (bob, raw) = person(home, ALICE), person(home, BOB)
        await mint(world, 1_000 * ONE)
        assert (await world.terms(1)).capacity == 0, "nothing is locked, nothing can come back"
        out = await move(world, 0, 700 * ONE)
        assert (out.amount, out.recipient, out.id) == (700 * ONE, raw, keccak(out.payload))
        assert await world.balance(HOME, alice) == 300 * ONE
        box = home.parts["box"].address
        assert await world.balance(HOME, box) == 700 * ONE

        strangers = (keccak(b"one"), keccak(b"two"), keccak(b"three"))
        for keys in (KEYS[:2], strangers, (*KEYS[:2], strangers[0])):
            wrong = world.route.deliver(out, world.signed(out, keys))
            await away.site.attempt(wrong)
            assert await stage(world, out) is Stage.SENT
            assert await world.balance(AWAY, bob) == 0
        more = replace(out, payload=out.payload.replace(*_amounts(700 * ONE, 701 * ONE)))
        await away.site.attempt(world.route.deliver(more, world.signed(out, KEYS[:3])))
        assert await world.balance(AWAY, bob) == 0
        await deliver(world, out)
        assert await world.balance(AWAY, bob) == 700 * ONE
        again = world.route.deliver(out, world.signed(out, KEYS[1:]))
        assert not (await away.site.attempt(again)).succeeded, "a transfer arrives once"

        assert (await world.terms(1)).capacity == 700 * ONE
        back = await move(world, 1, 250 * ONE, BOB)
        await deliver(world, back)
        assert await away.parts["token"].call("totalSupply") == 450 * ONE
        assert await world.balance(AWAY, bob) == await world.balance(HOME, box) == 450 * ONE
        assert await world.balance(HOME, bob) == 250 * ONE
        assert (await world.terms(1)).capacity == 450 * ONE


def _amounts(*values: int) -> tuple[bytes, ...]:
    return tuple(value.to_bytes(32, "big") for value in values)


async def test_a_proof_is_of_this_transfer_and_no_other(anvil_binary: Path) -> None:
    async with pooled(anvil_binary) as world:
        await mint(world, 100 * ONE)
        away = world.ends[AWAY]
        first, second = [await move(world, 0, amount * ONE) for amount in (1, 2)]
        signed = {one.id: world.signed(one, KEYS[1:]) for one in (first, second)}
        (receipt,) = await away.site.run([world.route.deliver(first, signed[first.id])])
        assert world.route.delivery(first, receipt.logs) is not None
        assert world.route.delivery(second, receipt.logs) is None
        for other in (
            replace(first, amount=first.amount + 1),
            replace(first, recipient=b"\x66" * 20),
            replace(first, id=second.id),
        ):
            assert world.route.delivery(other, receipt.logs) is None
        cut = [log for log in receipt.logs if log.address != away.parts["pool"].raw]
        assert world.route.delivery(first, cut) is None
        await away.site.attempt(world.route.deliver(second, signed[first.id]))
        assert await stage(world, second) is Stage.SENT, "signatures of one open no other"


async def test_the_quote_takes_what_the_real_pools_take_and_not_a_unit_more(
    anvil_binary: Path,
) -> None:
    async with pooled(anvil_binary) as world:
        await mint(world, 10_000 * ONE)
        home, away = world.ends[HOME], world.ends[AWAY]
        # the pool here takes 0.7 % of what goes in; its bucket holds what is left
        fee = (90_000, 32, 5, 0, 70, 0, True)
        await home.parts["pool"].tx(
            "applyTokenTransferFeeConfigUpdates", [(selector(AWAY), fee)], []
        )
        await world.limit(HOME, out=(True, 100 * ONE + 1, 0))
        terms = await world.terms(0)
        most = (100 * ONE + 1) * 10_000 // 9_930
        assert (terms.fee_ppm, terms.capacity, terms.fault) == (7_000, most, "")
        with pytest.raises(ValueError, match="takes at most"):
            sends(world, 0, most + 1, terms)
        assert await refused(world, 0, most + 1)
        transfer = await move(world, 0, most)
        assert transfer.amount == most - most * 70 // 10_000 == 100 * ONE + 1
        assert (await world.terms(0)).capacity == 0
        assert await refused(world, 0, 1_000)
        await deliver(world, transfer)

        # the pool there lets in less than the one here lets out, and the least of both counts
        await world.limit(HOME, out=(True, 100 * ONE, 0))
        await world.limit(AWAY, into=(True, 40 * ONE, 0))
        terms = await world.terms(0)
        assert terms.capacity == 40 * ONE * 10_000 // 9_930
        late = await move(world, 0, terms.capacity)
        await world.limit(AWAY, into=(True, 40 * ONE - 1, 0))
        site, signed = away.site, world.signed(late, KEYS[:3])
        await site.attempt(world.route.deliver(late, signed))
        assert await stage(world, late) is Stage.SENT, "the real pool lets in no unit more"
        await world.limit(AWAY, into=(True, 40 * ONE, 0))
        await deliver(world, late)
        assert (await world.terms(0)).capacity == 0
        chains = {chain: end.site.chain for chain, end in world.ends.items()}
        (lane, _), _ = await read_lanes(chains, [world.route])
        assert (lane.room, lane.cursed) == (0, False)


def plan(lanes: list[Lane]) -> Quote:
    request = Request(Place(HOME, USDC), Place(AWAY, USDC), 100 * ONE)
    return quote(Graph(lanes=tuple(lanes)), request)


async def test_a_cursed_lane_sends_nothing_and_the_next_plan_goes_elsewhere(
    anvil_binary: Path,
) -> None:
    async with pooled(anvil_binary) as world:
        await mint(world, 1_000 * ONE)
        detour = Lane(
            b"\x33" * 20, HOME, AWAY, USDC, 0, 4_000, 15_000, 60_000, 10**12,
            BridgeClass.CANONICAL, keccak(b"others"),
        )  # fmt: skip
        out, back = world.route.crossings()

        async def lanes() -> list[Lane]:
            return [detour, lane_of(world.route, out, await world.terms(0))]

        before = plan(await lanes())
        assert [hop.edge.way for hop in before.hops] == (await lanes())[1:]
        for chain, far in ((HOME, AWAY), (AWAY, HOME)):
            rmn, subject = world.ends[chain].parts["rmn"], selector(far).to_bytes(16, "big")
            await rmn.tx("curse(bytes16)", subject)
            for place, crossing in enumerate((out, back)):
                terms = await world.terms(place)
                assert terms.fault == f"cursed on chain {chain}"
                assert lane_of(world.route, crossing, terms).cursed
            with pytest.raises(ValueError, match="must not be used: cursed"):
                sends(world, 0, 100 * ONE, await world.terms(0))
            after = plan(await lanes())
            assert [hop.edge.way for hop in after.hops] == [detour]
            assert [why for _, why in after.left_out] == ["cursed"]
            assert await refused(world, 0, 100 * ONE) is (chain == HOME)
            await rmn.tx("uncurse(bytes16)", subject)
        assert plan(await lanes()).delivered == before.delivered == 100 * ONE
        await move(world, 0, 100 * ONE)


async def test_a_lane_that_is_set_up_otherwise_is_cursed(anvil_binary: Path) -> None:
    async with pooled(anvil_binary) as world:
        await mint(world, 100 * ONE)
        await deliver(world, await move(world, 0, 50 * ONE))
        rpcs = [end.site.shop.anvil.rpc for end in world.ends.values()]
        for change, fault, both in _changes(world):
            assert [(await world.terms(place)).fault for place in (0, 1)] == ["", ""]
            marks = [await rpc.call("evm_snapshot", []) for rpc in rpcs]
            await change()
            assert (await world.terms(0)).fault == fault
            assert ((await world.terms(1)).fault == fault) is both, fault
            for rpc, mark in zip(rpcs, marks, strict=True):
                await rpc.call("evm_revert", [mark])


def _changes(world: Pooled) -> list[tuple[Callable[[], Awaitable[Any]], str, bool]]:
    """Return what owners can do, what it does to the way out, and whether to the way back too."""
    home, away = world.ends[HOME].parts, world.ends[AWAY].parts
    shop = world.ends[HOME].site.shop
    stranger = shop.web3.to_checksum_address("0x" + "66" * 20)
    word = encode(["address"], [stranger])
    to_home, to_away = selector(HOME), selector(AWAY)
    signers = [shop.web3.to_checksum_address("0x" + one.hex()) for one in COMMITTEE.signers]
    resolver = away["resolver"].address

    def does(who: Contract, name: str, *args: Any) -> Callable[[], Awaitable[Any]]:
        return lambda: who.tx(name, *args)

    def lane_in(on_ramps: list[bytes], verifiers: list[str], enabled: bool = True) -> Any:
        config = (away["router"].address, to_home, enabled, on_ramps, verifiers, [])
        return does(away["off"], "applySourceChainConfigUpdates", [config])

    def lane_out(verifiers: list[str], off_ramp: bytes) -> Any:
        config = (
            to_away, home["router"].address, 20, False, 10, 25, 100_000, verifiers, [],
            home["executor"].address, off_ramp,
        )  # fmt: skip
        return does(home["on"], "applyDestChainConfigUpdates", [config])

    on_ramp = encode(["address"], [home["on"].address])
    away_off, odd_ramp = away["off"].raw, "its on-ramp has another router, off-ramp or verifier"
    closed = "its off-ramp is closed, or has another on-ramp or verifier"
    pools = "its pools do not name each other, and only each other"
    signed = "its verifier has other signers or another threshold"
    zero = "0x" + "00" * 20
    return [
        (does(home["router"], "applyRampUpdates", [(to_away, stranger)], [], []),
         "its router uses another on-ramp", False),
        (lane_out([home["resolver"].address], b"\x66" * 20), odd_ramp, False),
        (lane_out([stranger], away_off), odd_ramp, False),
        (does(home["resolver"], "applyOutboundImplementationUpdates", [(to_away, stranger)]),
         "another verifier takes its messages", False),
        (does(away["router"], "applyRampUpdates", [], [(to_home, away["off"].address)], []),
         "its router does not know the off-ramp", False),
        (lane_in([on_ramp], [resolver], enabled=False), closed, False),
        (lane_in([on_ramp, word], [resolver]), closed, False),
        (lane_in([on_ramp], [stranger]), closed, False),
        (does(away["resolver"], "applyInboundImplementationUpdates", [(b"WEAK", stranger)]),
         "another verifier checks its messages", False),
        (does(away["verifier"], "applySignatureConfigs", [], [(to_home, 2, signers)]),
         signed, False),
        (does(away["verifier"], "applySignatureConfigs", [], [(to_home, 3, [*signers, stranger])]),
         signed, False),
        (does(home["registry"], "setPool", home["token"].address, zero),
         "another pool serves its token", True),
        (does(away["registry"], "setPool", away["token"].address, zero),
         "another pool serves its token", True),
        (does(away["pool"], "addRemotePool", to_home, word), pools, True),
        (does(home["pool"], "removeRemotePool", to_away,
              encode(["address"], [away["pool"].address])), pools, True),
        (does(home["pool"], "setDynamicConfig", stranger, zero, zero),
         "its pool obeys another router", True),
        (does(away["pool"], "setDynamicConfig", stranger, zero, zero),
         "its pool obeys another router", True),
        *((does(pool, "updateAdvancedPoolHooks", stranger),
           "its pool asks a contract that is not known", True)
          for pool in (home["pool"], away["pool"])),
        (does(away["token"], "revokeRole", keccak(b"MINTER_ROLE"), away["pool"].address),
         "its pool would not pay out", False),
    ]  # fmt: skip


async def test_what_an_operator_got_wrong_is_found(anvil_binary: Path) -> None:
    async with pooled(anvil_binary) as world:
        route, out = world.route, world.route.crossings()[0]
        here, there = route.ends
        kind, mute = "its pool is of another kind", "its contracts do not answer as CCIP 2.0's do"
        apart = "its pools do not name each other, and only each other"

        async def fault_of(ends: tuple[CcipEnd, ...], decimals: int = DECIMALS) -> str:
            odd = Ccip(USDC, decimals, ends, COMMITTEE, verifier=VERIFIER, timing=route.timing)
            return odd.quoted(out, await world.answers(odd.quote_reads(out))).fault

        for ends, fault in (
            ((replace(here, lock_box=b""), there), kind),
            ((here, replace(there, lock_box=here.lock_box)), kind),
            ((replace(here, lock_box=here.pool), there), "its pool locks elsewhere"),
            ((here, replace(there, token=here.pool)), "its tokens are not each other's"),
            ((here, replace(there, pool=there.token)), apart),
            ((replace(here, rmn=world.ends[HOME].parts["rmn"].raw), there),
             "its on-ramp has another chain, registry or RMN"),
            ((here, replace(there, registry=here.pool)),
             "its off-ramp has another chain, registry or RMN"),
            ((replace(here, router=there.pool), there), mute),
            ((replace(here, rmn=b"\x66" * 20), there), mute),
        ):  # fmt: skip
            assert await fault_of(ends) == fault
        assert await fault_of(route.ends, 18) == "its token has other decimals"
        assert await fault_of(route.ends) == ""


async def test_lanes_are_shown_and_routed_over_as_the_contracts_have_them(
    anvil_binary: Path, tmp_path: Path
) -> None:
    async with pooled(anvil_binary) as world:
        urls = {chain: end.site.shop.anvil.url for chain, end in world.ends.items()}
        write_home(tmp_path, VERIFIER, urls, {"usdc": section(world.route)})
        await world.limit(HOME, out=(True, 500 * ONE, 0))
        graph = tmp_path / "graph.json"

        async def shown(*words: str) -> str:
            for end in world.ends.values():
                await end.site.shop.anvil.mine(3)
            run = partial(CliRunner().invoke, app, ["route", *words])
            done = await trio.to_thread.run_sync(run)
            assert done.exit_code == 0, done.output
            return done.output

        async def delivered(amount: int) -> int:
            ends = ["--from", f"{HOME}:USDC", "--to", f"{AWAY}:USDC", "--amount", str(amount)]
            graph.write_text(await shown("lanes", "--home", str(tmp_path), "--json"))
            told = json.loads(await shown("quote", "--graph", str(graph), *ends, "--json"))
            return int(told["plan"]["delivered"])

        assert await delivered(900 * ONE) == 500 * ONE
        out, back = json.loads(graph.read_text())["lanes"]
        assert (out["capacity"], back["capacity"]) == (str(500 * ONE), "0")
        assert (out["bridge"], out["verifier"], out["p95_ms"], out["cursed"]) == (
            "0x" + world.route.ends[0].pool.hex(), "0x" + VERIFIER.hex(), 60_000, False,
        )  # fmt: skip
        table = await shown("lanes", "--home", str(tmp_path))
        assert "ccip" in table
        assert "sound" in table
        subject = selector(AWAY).to_bytes(16, "big")
        await world.ends[HOME].parts["rmn"].tx("curse(bytes16)", subject)
        assert await delivered(900 * ONE) == 0
