"""Agreement: time to finality, views under f dead members, CPU of a view, and real links.

Virtual figures drive the production core over a simulated network with 20–80 ms links; the CPU
figure uses real signatures; the loopback figures use real libp2p hosts and a fsynced log.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from keeper.hashing import keccak
from keeper.store import Store
from p2p.agreement.core import Agreement
from p2p.agreement.effects import Broadcast, Effect, Finalized, Persist, Send, Timing
from p2p.agreement.log import MemoryLog, Opened, StoreLog
from p2p.agreement.signing import EcdsaSigner, Signer, recover, sign_observation
from p2p.host import Libp2pNetwork
from p2p.identity import peer_id_of, peer_id_text
from p2p.service import AgreementService
from p2p.types import Committee, Member, Message, Proposal, SignedObservation
from p2p.wire import decode, encode
from scripts.benches._figure import at_least, at_most, figure
from tests.support.agreement_cluster import NETWORK, Cluster, Keeper, ToyApplication, Weather
from tests.support.p2p_ports import free_ports

CALM = Weather(calm_at=0.0)
REPLAYS = 7
"""The same work so many times; the quickest is the one that was disturbed least."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


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
    """Measure from the proposal to finality on every member, links of 20 to 80 ms."""
    PROPOSED.clear()
    FINAL.clear()
    timing = Timing(0.0, tick_s=0.5, bound_s=0.1, grace_s=0.05, skip_s=2.0, heartbeat_s=1.0)
    Cluster(size, 1, weather=CALM, timing=timing, keeper=Timed).run(20.0 if size > 10 else 60.0)
    spans = [
        (max(times) - PROPOSED[view]) * 1000
        for view, times in FINAL.items()
        if len(times) == size and view in PROPOSED
    ]
    name = f"agreement.final_everywhere.n{size}"
    each = [(at - PROPOSED[v]) * 1000 for v, ats in FINAL.items() if v in PROPOSED for at in ats]
    at_most(f"{name}.p50", statistics.median(spans), "ms", goal_ms)
    figure(f"{name}.p99", percentile(spans, 0.99), "ms")
    figure(f"agreement.final_on_a_keeper.n{size}.p50", statistics.median(each), "ms")


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


async def _member(
    index: int,
    network: Libp2pNetwork,
    committee: Committee,
    folder: Path,
    timing: Timing,
    proposed: dict[int, float],
    final: dict[int, list[float]],
) -> None:
    log = StoreLog(Store(folder / f"{index}.db"))
    log.write((Opened(committee.config),))
    signer = EcdsaSigner(keccak(b"bench %d" % index))
    application = _Noting(committee.config, proposed)
    core = Agreement(committee, index, signer, application, log, timing)

    def tell(effect: Effect) -> None:
        if isinstance(effect, Finalized):
            final.setdefault(effect.view, []).append(time.time())

    service = AgreementService(core, network, log, tell, lambda seen: True)

    async def observe() -> None:
        tick = timing.tick_at(time.time()) + 1
        while True:
            await trio.sleep(max(0.0, timing.start_of(tick) - time.time()))
            roots = (keccak(b"h"), keccak(b"p"), keccak(b"r"))
            await service.observe(sign_observation(committee, signer, tick, roots, bytes(256)))
            tick += 1

    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        nursery.start_soon(observe)


class _Noting(ToyApplication):
    """Notes when a leader makes its proposal."""

    def __init__(self, genesis: bytes, proposed: dict[int, float]) -> None:
        super().__init__(genesis)
        self._proposed = proposed

    def propose(
        self, parent: bytes, view: int, tick: int, observations: Sequence[SignedObservation]
    ) -> bytes | None:
        """Note the time, then propose."""
        self._proposed.setdefault(view, time.time())
        return super().propose(parent, view, tick, observations)


async def loopback(size: int, seconds: float) -> None:
    """Run a committee over real libp2p on loopback, all members in this process."""
    seeds = [keccak(b"loopback %d" % i) for i in range(size)]
    ports = free_ports(size)
    peers = [peer_id_of(seed) for seed in seeds]
    places = [f"/ip4/127.0.0.1/tcp/{port}" for port in ports]
    known = tuple(f"{p}/p2p/{peer_id_text(i)}" for p, i in zip(places, peers, strict=True))
    networks = [
        Libp2pNetwork(seed, place, known) for seed, place in zip(seeds, places, strict=True)
    ]
    committee = bench_committee(size, peers)
    proposed: dict[int, float] = {}
    final: dict[int, list[float]] = {}
    timing = Timing(time.time() + 4.0, tick_s=0.5, bound_s=0.15, grace_s=0.05, skip_s=3.0)
    with tempfile.TemporaryDirectory() as folder, trio.move_on_after(seconds + 4.0):
        async with trio.open_nursery() as nursery:
            for network in networks:
                network.allow(frozenset(peers), frozenset())
                await nursery.start(network.run)
            for index, network in enumerate(networks):
                nursery.start_soon(
                    _member, index, network, committee, Path(folder), timing, proposed, final
                )
    warm = sorted(final)[4:]
    spans = [
        (max(final[view]) - proposed[view]) * 1000
        for view in warm
        if len(final[view]) == size and view in proposed
    ]
    name = f"agreement.loopback_libp2p.n{size}"
    figure(f"{name}.views", len(spans), f"views in {seconds:g} s at 2 ticks/s")
    if spans:
        figure(f"{name}.p50", statistics.median(spans), "ms")
        figure(f"{name}.p99", percentile(spans, 0.99), "ms")


def main() -> None:
    """Print every figure."""
    time_to_finality(4, 150.0)
    time_to_finality(31, 180.0)
    views_with_f_dead()
    cpu_of_a_view()
    for size in (4, 7):
        trio.run(loopback, size, 20.0)


if __name__ == "__main__":
    main()
