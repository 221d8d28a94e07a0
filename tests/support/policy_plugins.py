"""Policies that break their contract, one sin each; loaded by path into a child process."""

import contextlib
import fcntl
import json
import os
import random
import sys
import time

import msgspec

from policies.api import Act, Decision, Kind, Manifest, MarketView, PlanStep, Skip, Wide


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    amount: int = 1


Decided = tuple[list[Decision], bytes]


def bids(view: MarketView, price: int = 1) -> list[Decision]:
    return [Act(task.task, price, Wide(1), 1000, "test") for task in view.tasks]


class Honest:
    manifest = Manifest(kind=Kind.LIQUIDATION, config=Config, budget_ms=1000)

    def __init__(self, config: Config) -> None:
        self.config = config

    def decide(self, view: MarketView, state: bytes) -> Decided:
        return bids(view, self.config.amount), state


class Giveaway(Honest):
    """Asks for what would give the keeper's funds away, in every way it can think of."""

    def decide(self, view: MarketView, state: bytes) -> Decided:
        acts: list[Decision] = []
        for task in view.tasks:
            thief = b"\x66" * 20
            owner = [("account", task.account), ("market", task.market)]
            seize = (*owner, ("collateral", task.terms[-1].asset))
            close = PlanStep("a", task.chain, "liquidate", task.venue, _size(10**6), seize)
            sale = PlanStep(
                "b",
                task.chain,
                "swap",
                thief,
                (("amount", Wide(10**18)), ("least_out", Wide(1))),
                (("asset_in", task.terms[-1].asset), ("asset_out", task.market)),
            )
            pay = PlanStep("c", task.chain, "transfer", thief, _size(10**6), (("to", thief),))
            for steps in (
                (),
                (close, sale),
                (close, pay),
                (pay,),
                (msgspec.structs.replace(close, numbers=_size(10**30)),),
                (msgspec.structs.replace(close, numbers=_size(-1)),),
                (msgspec.structs.replace(close, venue=thief),),
                (msgspec.structs.replace(close, blobs=tuple(owner)), sale),
            ):
                size = steps[0].numbers[0][1] if steps else Wide(1)
                acts.append(Act(task.task, 1, size, 1000, "mine", 10**18, steps))
        return acts, state


def _size(size: int) -> tuple[tuple[str, Wide], ...]:
    return (("size", Wide(size)),)


class Carried(Honest):
    """Counts the views in its state: allowed."""

    def decide(self, view: MarketView, state: bytes) -> Decided:
        count = int.from_bytes(state, "big") + 1
        return bids(view, count), count.to_bytes(8, "big")


class Spinning(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        while True:
            pass


class Crashing(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        raise KeyError("no such thing")


class Exiting(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        os._exit(3)


class Forking(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        with contextlib.suppress(PermissionError):
            os.fork()
        return bids(view), state


class Starting(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        import subprocess

        subprocess.run(["true"])
        return bids(view), state


class MemoryEating(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        self.hoard: list[bytearray] = []
        while True:
            self.hoard.append(bytearray(1 << 24))


class Printing(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        print("x" * 300_000, flush=True)
        sys.stdout.write("\x00\x00\x00\x05hello")
        return bids(view), state


def _write_end() -> int:
    """Return the descriptor of the frame pipe, which a plug-in should not look for."""
    for fd in range(3, 30):
        try:
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        except OSError:
            continue
        if flags & os.O_WRONLY:
            return fd
    raise RuntimeError("no pipe")


class FrameSplitting(Honest):
    """Writes noise into the frame pipe."""

    def decide(self, view: MarketView, state: bytes) -> Decided:
        os.write(_write_end(), b"\x00\x00\x00\x03abc")
        return bids(view), state


class HalfFrame(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        os.write(_write_end(), b"\x00\x00")
        os._exit(0)


class HugeFrame(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        os.write(_write_end(), b"\xff\xff\xff\xff")
        time.sleep(10)
        return bids(view), state


class Flooding(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        return [Skip(b"", "")] * 30_000, state


class Hoarding(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        return bids(view), bytes((1 << 20) + 1)


class Crowding(Honest):
    """Says as many numbers as fit into a frame."""

    def decide(self, view: MarketView, state: bytes) -> Decided:
        step = PlanStep("", 1, "swap", b"", (("", Wide(0)),) * 12, (("", b""),) * 12)
        return [Act(b"", 0, Wide(0), 0, "", 0, (step,) * 16)] * 700, state


class Bloating(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        return [Skip(b"", "x" * (7 << 20))], state


class Networking(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        import socket

        with contextlib.suppress(PermissionError):
            socket.socket()
        return bids(view), state


class FileReading(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        with open("/etc/hostname") as file:
            size = len(file.read())
        return bids(view, size), state


class FileWriting(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        with open("/tmp/flowkeeper-policy-test.py", "w") as file:
            file.write("x")
        return bids(view), state


class Wrong(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        return ["bid"], state  # type: ignore[list-item]  # the sin


class TooWide(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        return [Act(task.task, 2**70, Wide(1), 1, "") for task in view.tasks], state


class Slow(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        time.sleep(0.06)
        return bids(view), state


class BadLoad(Honest):
    def __init__(self, config: Config) -> None:
        raise ValueError("refuses to start")


class Old(Honest):
    manifest = Manifest(kind=Kind.LIQUIDATION, config=Config, api="0")


class Clock(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        return bids(view, time.time_ns() % 1_000_000), state


class Chance(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        return bids(view, random.randrange(1 << 40)), state


class SetOrder(Honest):
    def decide(self, view: MarketView, state: bytes) -> Decided:
        first = next(iter({"a", "b", "c", "d", "e", "f", "g", "h"}))
        return bids(view, ord(first)), state


class HiddenState(Honest):
    count = 0

    def decide(self, view: MarketView, state: bytes) -> Decided:
        self.count += 1
        return bids(view, self.count), state


class LookAhead(Honest):
    """Knows the record: a table keyed by the view's own time, as if fitted to it."""

    def decide(self, view: MarketView, state: bytes) -> Decided:
        return bids(view, view.now_ms % 997), state


class Positional(Honest):
    """Depends on the order in which accounts and tasks happen to be listed."""

    def decide(self, view: MarketView, state: bytes) -> Decided:
        return [
            Act(task.task, place, Wide(1), 1000, "place") if place else Skip(task.task, "first")
            for place, task in enumerate(view.tasks)
        ], state


class Alarmed(Honest):
    """Loads a data module while deciding, which is allowed."""

    def decide(self, view: MarketView, state: bytes) -> Decided:
        import statistics

        return bids(view, int(statistics.median([1, 2, 3])) + len(json.dumps({})) - 2), state


SINS: list[tuple[str, dict[str, int], str]] = [
    ("Spinning", {"budget_ms": 150}, "slow"),
    ("Crashing", {}, "exception"),
    ("Exiting", {}, "exit"),
    ("Forking", {}, "process"),
    ("Starting", {}, "process"),
    ("MemoryEating", {"mem_mb": 160}, "memory"),
    ("FrameSplitting", {}, "protocol"),
    ("HalfFrame", {}, "exit"),
    ("HugeFrame", {}, "protocol"),
    ("Flooding", {}, "protocol"),
    ("Hoarding", {}, "oversize"),
    ("Bloating", {}, "oversize"),
    ("Crowding", {"budget_ms": 10_000}, "oversize"),
    ("Networking", {}, "network"),
    ("FileReading", {}, "file"),
    ("FileWriting", {}, "file"),
    ("Wrong", {}, "protocol"),
    ("TooWide", {}, "schema"),
    ("Slow", {"budget_ms": 30}, "slow"),
    ("BadLoad", {}, "exception"),
    ("Old", {}, "api"),
]
"""(class, limits, the cause it must be caught under)"""
