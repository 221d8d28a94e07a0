"""`keeper flow check`: what a second payer finds out about a plan, and about the flow behind it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keeper.cli import account, flow_check
from keeper.cli import flow_plan as cli_plan
from keeper.cli.main import app
from keeper.errors import ConfigError
from keeper.snapshot.decisions import Price
from keeper.units import symbol
from tests.contracts import test_flow_cli as verbs
from tests.support.flow_net import FIRST, PURSE

home, deployed = verbs.home, verbs.deployed  # fixtures
Home, hexed = verbs.Home, verbs.hexed

WANTED = 500_000
ACCOUNT = "11" * 32
SENT = 500_501
FUNDS = 505_523
"""What the cheaper maker holds: just what its lane needs for `SENT`, deposit and rounding."""


@dataclass
class Desk:
    """A plan of alice's over bob's lane, as files; carol's lane is dearer."""

    home: Home
    stopped: bool = False

    def file(self, name: str) -> Path:
        return self.home.folder / f"{name}.json"

    def read(self, name: str) -> Any:
        return json.loads(self.file(name).read_text())

    def write(self, name: str, value: Any) -> None:
        self.file(name).write_text(json.dumps(value))

    def plan(self, *makers: str, **rates: int) -> None:
        """Write plan.json, and flow.json with another two legs in it."""
        self.write("offers", [self.offer(one, **rates) for one in makers or ("bob", "carol")])
        words = ["flow", "plan", str(self.file("offers")), "--out", str(self.file("route"))]
        words += ["--from", f"{FIRST}:USDC", "--to", f"{FIRST + 1}:USDC", "--account", ACCOUNT]
        words += ["--payer", self.who("alice"), "--amount", str(WANTED)]
        self.home.run(*words, "--plan", str(self.file("plan")))
        self.home.run("flow", "draft", *map(str, map(self.file, ("route", "legs"))), *self.out())
        self.write("offers", [self.offer(one) for one in ("bob", "carol")])

    def out(self) -> tuple[str, str]:
        return "--out", str(self.file("flow"))

    def who(self, name: str) -> str:
        return hexed(self.home.net.worlds[0].actor(name))

    def offer(self, maker: str, **rates: int) -> dict[str, Any]:
        fee = {"bob": 1_000, "carol": 9_000}[maker]
        ends = {"origin": FIRST, "destination": FIRST + 1, "asset": "USDC"}
        row = {"maker": self.who(maker), **ends, "fee_ppm": fee, "p50_ms": 1, "p95_ms": 2_000}
        return row | rates

    def check(self, *more: str) -> tuple[int, Any]:
        """Return the exit status and what was printed for a machine."""
        names = [str(self.file(name)) for name in ("flow", "plan", "offers")]
        words = ["flow", "check", names[0], "--plan", names[1], "--offers", names[2], *more]
        words += ["--home", str(self.home.folder)]
        made = CliRunner().invoke(app, [*words, "--json"])
        plain = CliRunner().invoke(app, words)
        assert made.exit_code == plain.exit_code
        if not isinstance(made.exception, SystemExit | None):
            raise made.exception
        value = json.loads(made.stdout)
        assert value["sound"] is (made.exit_code == 0)
        assert ("wrong" in plain.stdout) is bool(value["faults"])
        return made.exit_code, value

    def fault(self, *more: str) -> str:
        try:
            status, value = self.check(*more)
        except ConfigError as error:
            return str(error)
        assert status == 1
        return "; ".join(value["faults"])


@pytest.fixture
def desk(home: Home, monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk(home)
    here, there = home.net.worlds
    here.call("DevToken", "mint", here.actor("alice"), 2 * WANTED)
    there.call("DevToken", "mint", there.actor("bob"), FUNDS - PURSE)
    there.call("DevToken", "mint", there.actor("carol"), 2 * WANTED)
    home.view()

    def state(folder: Path) -> Any:
        """What the node certified, where prices are agreed and vaults stand on every chain."""
        found = account.load_state(folder)
        more = (("Vault", b"\x0b" * 20), ("Breaker", b"\x0c" * 20))
        chains = tuple(
            replace(chain, contracts=tuple(sorted((*chain.contracts, *more))))
            for chain in found.spec.chains
        )
        prices = {symbol("USDC"): Price(symbol("USDC"), 10**8, False)}
        spec, book = replace(found.spec, chains=chains), replace(found.book, prices=prices)
        return replace(found, spec=spec, book=book)

    def ask(_: object, chain: int, to: bytes, name: str, function: str, *args: object) -> Any:
        if name == "Breaker":
            stopped = made.stopped and args[0] == here.actor("bob").ljust(32, b"\0")
            return (2 if stopped else 0,)
        return home.net.worlds[chain - FIRST].call(name, function, *args).values

    for module in (cli_plan, flow_check):
        monkeypatch.setattr(module, "load_state", state)
    monkeypatch.setattr(cli_plan, "ask", ask)
    made.plan()
    return made


def test_a_sound_plan_passes_and_what_is_beyond_it_is_listed(desk: Desk) -> None:
    status, value = desk.check()
    assert (status, value["faults"]) == (0, [])
    assert (value["payer"], value["account"]) == (desk.who("alice"), "0x" + ACCOUNT)
    assert (value["delivered"], value["sent"]) == (WANTED, SENT)
    assert [leg["amount"] for leg in value["beyond"]] == [100, 70]
    assert [leg["index"] for leg in value["beyond"]] == [2, 3]


def test_what_makers_gave_for_the_flow_itself_is_still_theirs(desk: Desk) -> None:
    net, flow, maker = desk.home.net, desk.home.flow, desk.home.net.worlds[1].actor("bob")
    assert flow.legs[1].payer == maker
    assert net.held(1, "bob") == FUNDS
    for function in ("pledge", "prepare"):
        for index, who in enumerate(("alice", "bob")):  # each on the chain of that place
            net.send(index, "Escrow", function, *flow.entry(index), sender=who)
        desk.home.view()
        assert desk.check()[0] == 0
    assert net.held(1, "bob") == FUNDS - WANTED - WANTED // 100
    # the control: by another flow with the same legs, the same maker has nothing left
    desk.home.run("flow", "draft", str(desk.file("route")), *desk.out(), "--number", "1")
    assert "is sent more than is there, or than it takes" in desk.fault()


Change = Callable[[Desk], None]


def planned(change: Callable[[Any], object]) -> Change:
    def made(desk: Desk) -> None:
        value = desk.read("plan")
        change(value)
        desk.write("plan", value)

    return made


def plan(change: Callable[[Any], object]) -> Change:
    return planned(lambda value: change(value["plan"]))


def flow(index: int, **fields: Any) -> Change:
    def made(desk: Desk) -> None:
        value = desk.read("flow")
        value["legs"][index] |= fields
        desk.write("flow", value)

    return made


def stop(desk: Desk) -> None:
    desk.stopped = True


def spend(desk: Desk) -> None:
    there = desk.home.net.worlds[1]
    there.call("DevToken", "transfer", there.actor("dave"), FUNDS // 2, sender="bob")


def swap(desk: Desk) -> None:
    value = desk.read("flow")
    first, last, *_ = value["legs"]
    first["receiver"], last["payer"] = (desk.who("carol"),) * 2
    desk.write("flow", value)


def over_the_dear_lane(desk: Desk) -> None:
    """Plan as if there were no cheaper lane."""
    desk.plan("carol")


def with_a_slow_rival(desk: Desk) -> None:
    """Plan in a hurry that nobody is in, so that the cheaper lane is not in time."""
    desk.write("offers", [desk.offer("bob", p95_ms=5_000), desk.offer("carol")])
    dear = desk.read("plan")
    dear["plan"]["request"]["deadline_ms"] = 3_000
    desk.write("plan", dear)


CHANGES: list[tuple[Change, str]] = [
    (plan(lambda row: row["certificate"].update(bound=WANTED)), "claimed bound 500000 is below"),
    (plan(lambda row: row["certificate"].update(bound=WANTED + 600)), "ppb is above the"),
    (over_the_dear_lane, "below"),
    (with_a_slow_rival, "its deadline of 3000 ms shuts out the lane"),
    (stop, "cursed"),
    (spend, "is sent more than is there, or than it takes"),
    (plan(lambda row: row["hops"][0].update(amount=500_502)), "sent more than is there"),
    (plan(lambda row: row["hops"][0].update(amount=500_500)), "does not give 500000"),
    (plan(lambda row: row["hops"][0].update(least_out=500_001)), "does not give 500001"),
    (plan(lambda row: row.update(delivered=500_001)), "does not deliver what it claims"),
    (plan(lambda row: row.update(delivered=400_000)), "ppb is above the"),
    (plan(lambda row: row.update(sent=500_500)), "sends another amount"),
    (planned(lambda row: row.update(deposit_ppm=999_999)), "deposits of 999999 ppm"),
    (plan(lambda row: row["hops"][0].update(venue="0x" + "77" * 20)), "no way through 0x7777"),
    (plan(lambda row: row["certificate"].update(prices={})), f"no price for {FIRST}:USDC"),
    (
        planned(lambda row: row.update(account="0x" + "22" * 32)),
        "lacks a payment of the plan: 500000",
    ),
    (plan(lambda row: row["request"].update({"to": f"{FIRST + 1}:WETH"})), "no agreed price"),
    (flow(0, amount=500_502), "lacks a payment of the plan: 500501 on chain 41001"),
    (flow(1, amount=499_999), "lacks a payment of the plan: 500000 on chain 41002"),
    (flow(1, receiver="0x" + "22" * 32), "lacks a payment of the plan: 500000"),
    (swap, "lacks a payment of the plan: 500501"),
]


@pytest.mark.parametrize(("change", "why"), CHANGES)
def test_what_is_wrong_is_refused_and_said(desk: Desk, change: Change, why: str) -> None:
    assert desk.check()[0] == 0  # the control
    change(desk)
    assert why in desk.fault()


def test_a_looser_gap_and_other_deposits_are_for_the_reader_to_say(desk: Desk) -> None:
    value = desk.read("plan")
    value["plan"]["certificate"]["bound"] += 600
    desk.write("plan", value)
    assert "0.1" not in desk.fault("--gap", "1000")
    assert desk.check("--gap", "3000")[0] == 0
    assert "deposits of 10000 ppm, not 20000" in desk.fault("--gap", "3000", "--deposit", "20000")


def test_the_account_must_surely_hold_until_the_plan_has_arrived(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds, why in (
        (0, "may be liquidated before anything arrives"),
        (1, "2000 ms on the way, and the account surely holds 1000 ms"),
    ):
        monkeypatch.setattr(cli_plan, "seconds_held", lambda *_, found=seconds: found)
        assert why in desk.fault()
    monkeypatch.setattr(cli_plan, "seconds_held", lambda *_: 2)
    assert desk.check()[0] == 0


@pytest.mark.parametrize("name", ["flow", "plan", "offers"])
@pytest.mark.parametrize(
    "text", ["", "{}", "5", "[" * 100_000, " " * (1 << 21) + "{}", "[{}]", "1e999", "[NaN]"]
)
def test_files_that_are_none_are_refused(desk: Desk, name: str, text: str) -> None:
    desk.file(name).write_text(text)
    with pytest.raises(ConfigError):
        desk.check()
    desk.file(name).unlink()
    with pytest.raises(ConfigError):
        desk.check()


def test_nothing_is_checked_against_tables_that_nobody_agreed_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = flow_check.load_state

    def other(folder: Path) -> Any:
        return replace(state(folder), differing=(FIRST + 1,))

    monkeypatch.setattr(flow_check, "load_state", other)
    with pytest.raises(ConfigError, match=f"keepers agreed on; at chain {FIRST + 1}"):
        desk.check()


def test_offers_for_chains_outside_the_network_are_refused(desk: Desk) -> None:
    desk.write("offers", [desk.offer("bob") | {"origin": 5}])
    with pytest.raises(ConfigError, match="chain 5, which the network does not have"):
        desk.check()
