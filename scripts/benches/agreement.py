"""Agreement: time to finality, views under f dead members, CPU of a view, and real links.

Virtual figures drive the production core over a simulated network with 20–80 ms links; the CPU
figure uses real signatures; the loopback figures are of processes with libp2p and a synced log.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from keeper.hashing import keccak
from keeper.store import Store
from p2p.agreement.core import Agreement
from p2p.agreement.effects import Broadcast, Effect, Finalized, Persist, Send, Timing
from p2p.agreement.log import MemoryLog, Opened, StoreLog
from p2p.agreement.signing import EcdsaSigner, Signer, recover, sign_observation
from p2p.service import AgreementService
from p2p.types import Committee, Member, Message, Proposal, SignedObservation
from p2p.wire import decode, encode
from scripts.benches._figure import at_least, at_most, figure
from scripts.benches._nodes import Job, Node, percentile_ms, run
from tests.support.agreement_cluster import NETWORK, Cluster, Keeper, ToyApplication, Weather
from tests.support.p2p_contract import id_of

CALM = Weather(calm_at=0.0)
REPLAYS = 7
"""The same work so many times; the quickest is the one that was disturbed least."""
ATTEMPTS, LOOPBACK_S, WARM_UP = 2, 20.0, 4
"""Attempts on a machine that may be busy, seconds of each, and views that do not count."""


# virtual time


class Timed(Keeper):
    """Notes when it proposed and when it finalised."""

    def send(self, to: int | None, message: Message) -> None:
        """Note when this member proposes."""
        if isinstance(message, Proposal) and message.signer == self.index:
            PROPOSED.setdefault(message.view, self.cluster.now)
        super().send(to, message)

    def finalize(self, effect: Finalized) -> None:
        """Note when."""
        super().finalize(effect)
        FINAL.setdefault(effect.view, []).append(self.cluster.now)


PROPOSED: dict[int, float] = {}
FINAL: dict[int, list[float]] = {}


class Dead(Keeper):
    """Never says a word."""

    def send(self, to: int | None, message: Message) -> None:
        """Say nothing."""


def time_to_finality(size: int, goal_ms: float) -> None:
    """Measure from the proposal to finality on the last member, links of 20 to 80 ms.

    The smallest committee is near its goal, so it is measured for two hours of virtual time: the
    median of one minute is off by 2 ms, that of so many by 0.2.
    """
    timing = Timing(0.0, tick_s=0.5, bound_s=0.1, grace_s=0.05, skip_s=2.0, heartbeat_s=1.0)
    seeds, seconds = (1, 20.0) if size > 10 else (128, 60.0)
    last: list[float] = []
    each: list[float] = []
    sent = 0
    for seed in range(1, seeds + 1):
        PROPOSED.clear()
        FINAL.clear()
        cluster = Cluster(size, seed, weather=CALM, timing=timing, keeper=Timed).run(seconds)
        sent += cluster.sent
        for view, times in FINAL.items():
            each += [at - PROPOSED[view] for at in times]
            if len(times) == size:
                last.append(max(times) - PROPOSED[view])
    name = f"agreement.final_everywhere.n{size}"
    at_most(f"{name}.p50", percentile_ms(last, 0.5), "ms", goal_ms)
    figure(f"{name}.p99", percentile_ms(last, 0.99), "ms")
    figure(f"agreement.final_on_a_keeper.n{size}.p50", percentile_ms(each, 0.5), "ms")
    figure(f"agreement.messages_per_view.n{size}", sent / len(last), "messages, all members")


def views_with_f_dead() -> None:
    """Count what is finalised in a minute of virtual time while f members are dead."""
    timing = Timing(0.0, tick_s=0.1, bound_s=0.1, grace_s=0.02, skip_s=1.0, heartbeat_s=0.5)
    dead = dict.fromkeys(range(0, 30, 3), Dead)
    cluster = Cluster(31, 1, weather=CALM, timing=timing, liars=dead).run(60.0)
    finals = min(len(one.finals) for one in cluster.honest)
    at_least("agreement.finals_in_60s.n31_f_dead", finals, "views", 300)


# CPU with real signatures


class Trusting:
    """Signs really and believes everybody: the members whose CPU is not measured."""

    def __init__(self, inner: EcdsaSigner) -> None:
        self._inner = inner

    @property
    def address(self) -> bytes:
        """Return the inner address."""
        return self._inner.address

    def sign(self, digest: bytes) -> bytes:
        """Sign for real."""
        return self._inner.sign(digest)

    def verify(self, digest: bytes, signature: bytes, address: bytes) -> bool:
        """Believe."""
        return True


class Real(Keeper):
    """Signs for real; what happens to member 0 is kept, to be measured alone."""

    @property
    def signer(self) -> Signer:
        """Return a real signer that checks nothing."""
        return Trusting(EcdsaSigner(keccak(b"bench %d" % self.index)))

    def deliver(self, sender: int, message: Message) -> None:
        """Keep what member 0 hears."""
        if self.index == 0:
            HEARD.append((self.cluster.now, sender, encode(message)))
        super().deliver(sender, message)

    def wake(self) -> None:
        """Keep when member 0 wakes."""
        if self.index == 0:
            HEARD.append((self.cluster.now, 0, b""))
        super().wake()

    def send(self, to: int | None, message: Message) -> None:
        """Keep member 0's own observations."""
        if self.index == 0 and isinstance(message, SignedObservation):
            HEARD.append((self.cluster.now, 0, encode(message)))
        super().send(to, message)


HEARD: list[tuple[float, int, bytes]] = []


def bench_committee(size: int, peers: Sequence[bytes] | None = None) -> Committee:
    """Return a committee with real addresses."""
    signers = [EcdsaSigner(keccak(b"bench %d" % i)) for i in range(size)]
    ids = peers or [b"peer %d" % i for i in range(size)]
    members = tuple(Member(s.address, peer) for s, peer in zip(signers, ids, strict=True))
    return Committee(NETWORK, 1, members, keccak(b"parameters"))


def recovery_ms(times: int = 500) -> float:
    """Return the CPU time of one signature recovery: the yardstick of a busy machine."""
    digest = keccak(b"yardstick")
    signature = EcdsaSigner(digest).sign(digest)
    begin = time.process_time()
    for _ in range(times):
        recover(digest, signature)
    return (time.process_time() - begin) / times * 1000


def cpu_of_a_view(size: int = 31) -> None:
    """Measure one member's CPU time for a view, wire apart from core, alone in the process."""
    HEARD.clear()
    timing = Timing(0.0, tick_s=0.5, bound_s=0.1, grace_s=0.05, skip_s=2.0, heartbeat_s=1.0)
    committee = bench_committee(size)
    Cluster(size, 1, weather=CALM, timing=timing, keeper=Real, committee=committee).run(15.0)
    spent, wire = min(_replay(committee, timing) for _ in range(REPLAYS))
    once = recovery_ms()
    figure("agreement.ecdsa_recovery", once * 1000, "us of CPU, same run")
    figure(f"agreement.cpu_per_view.core.n{size}.in_recoveries", spent / once, "")
    at_most(f"agreement.cpu_per_view.core.n{size}", spent, "ms", 5.0)
    figure(f"agreement.cpu_per_view.wire.n{size}", wire, "ms")


def _replay(committee: Committee, timing: Timing) -> tuple[float, float]:
    """Feed member 0's messages to a fresh core; return (core, wire) in ms of CPU a view."""
    log = MemoryLog()
    log.write((Opened(committee.config),))
    signer = EcdsaSigner(keccak(b"bench 0"))
    core = Agreement(committee, 0, signer, ToyApplication(committee.config), log, timing)
    core.start(0.0)
    core_s = wire_s = 0.0
    finals = 0
    for now, sender, raw in HEARD:
        begin = time.process_time()
        message = decode(raw) if raw else None
        parsed = time.process_time()
        effects = core.tick(now) if message is None else core.receive(sender, message, now)
        handled = time.process_time()
        for effect in effects:
            if isinstance(effect, Broadcast | Send):
                encode(effect.message)
        wire_s += parsed - begin + time.process_time() - handled
        core_s += handled - parsed
        finals += sum(isinstance(effect, Finalized) for effect in effects)
        for effect in effects:
            if isinstance(effect, Persist):
                log.write(effect.records)
    return core_s / finals * 1000, wire_s / finals * 1000


# real libp2p on loopback


class _Noting(ToyApplication):
    """Notes when a leader makes its proposal."""

    def __init__(self, genesis: bytes, proposed: dict[int, float]) -> None:
        super().__init__(genesis)
        self._proposed = proposed

    def propose(
        self, parent: bytes, view: int, tick: int, observations: Sequence[SignedObservation]
    ) -> bytes | None:
        """Note the time, then propose."""
        self._proposed.setdefault(view, time.monotonic())
        return super().propose(parent, view, tick, observations)


def taking_part(seconds: float) -> Job:
    """Return a job: a member with real signatures and a log that is synced to disk."""

    async def job(node: Node) -> dict[str, Any]:
        committee = bench_committee(node.size, [id_of(i) for i in range(node.size)])
        proposed: dict[int, float] = {}
        final: dict[int, float] = {}
        genesis = time.time() + node.start - time.monotonic()
        timing = Timing(genesis, tick_s=0.5, bound_s=0.15, grace_s=0.05, skip_s=3.0)
        signer = EcdsaSigner(keccak(b"bench %d" % node.index))
        roots = (keccak(b"h"), keccak(b"p"), keccak(b"r"))

        def tell(effect: Effect) -> None:
            if isinstance(effect, Finalized):
                final[effect.view] = time.monotonic()

        with tempfile.TemporaryDirectory() as folder:
            log = StoreLog(Store(Path(folder) / "log.db"))
            log.write((Opened(committee.config),))
            application = _Noting(committee.config, proposed)
            core = Agreement(committee, node.index, signer, application, log, timing)
            service = AgreementService(core, node.network, log, tell, lambda seen: True)
            async with trio.open_nursery() as nursery:
                await nursery.start(service.run)
                for tick in range(1, int(seconds / timing.tick_s)):
                    await node.until(tick * timing.tick_s)
                    seen = sign_observation(committee, signer, tick, roots, bytes(256))
                    await service.observe(seen)
                await trio.sleep(1)
                nursery.cancel_scope.cancel()
        return {"proposed": list(proposed.items()), "final": list(final.items())}

    return job


def loopback(size: int, seconds: float) -> None:
    """Print what finality takes among processes; the best of some attempts counts."""
    best: list[float] = []
    for _ in range(ATTEMPTS):
        results = run(size, taking_part(seconds))
        proposed = dict(item for result in results for item in result["proposed"])
        finals = [dict(result["final"]) for result in results]
        everywhere = set.intersection(*(set(final) for final in finals)) & set(proposed)
        spans = [
            max(final[view] for final in finals) - proposed[view]
            for view in sorted(everywhere)[WARM_UP:]
        ]
        if not best or percentile_ms(spans, 0.99) < percentile_ms(best, 0.99):
            best = spans
    name = f"agreement.loopback_libp2p.n{size}"
    figure(f"{name}.views", len(best), f"views in {seconds:g} s at 2 ticks/s")
    figure(f"{name}.p50", percentile_ms(best, 0.5), "ms")
    figure(f"{name}.p99", percentile_ms(best, 0.99), "ms")


def main() -> None:
    """Print every figure."""
    time_to_finality(4, 150.0)
    time_to_finality(31, 180.0)
    views_with_f_dead()
    cpu_of_a_view()
    for size in (4, 7):
        loopback(size, LOOPBACK_S)


if __name__ == "__main__":
    main()
