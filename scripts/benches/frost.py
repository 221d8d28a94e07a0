"""CPU of threshold signing and key generation, beside @noble/curves on the same machine.

    signer        decode a request, check it, sign it       (points are parsed, all but fsync)
    coordinator   decode t shares with fresh points, open the session, aggregate, verify once
    whole signing t signers commit and sign, one coordinator aggregates: what noble is compared with
    DKG           one participant: its polynomial, all proofs, all shares, all verifying shares
    ceremony      the same with sealed boxes, signatures and the n-of-n transcript

Process CPU time, best of some runs; one core.
"""

import json
import subprocess
import time
from collections.abc import Callable

from p2p.frost import messages
from p2p.frost.aggregate import Signature, aggregate
from p2p.frost.ceremony import Broadcast, Ceremony, Completed
from p2p.frost.dkg import Participant
from p2p.frost.keys import GroupKey, KeyShare
from p2p.frost.messages import Nonces, Share, SignRequest
from p2p.frost.nonces import NonceBatch, NonceHandle, PublishedNonce
from p2p.frost.round1 import generate_nonces, sorted_commitments
from p2p.frost.round2 import Session, SignatureShare, SigningPackage, sign
from p2p.frost.secret import Secret
from p2p.frost.suite import ED25519, TR, Identifier, Suite
from scripts.benches._figure import at_least, at_most, figure
from tests.support.frost import deal, seeded
from tests.support.frost_ceremony import Ceremonies
from tests.support.frost_noble import FOLDER, install
from tests.support.shared import ROOT

SIZES = ((3, 4), (5, 7), (11, 16), (21, 31))
SIGNER_MS = {(11, 16): 0.7, (21, 31): 1.3}
COORDINATOR_MS = {(11, 16): 0.8, (21, 31): 1.4}
DKG_MS = {(11, 16): 6.0, (21, 31): 20.0}
RATIO = 8.0
MESSAGE = b"\x07" * 32


def best_ms(work: Callable[[], object], runs: int = 30) -> float:
    """Return the least CPU time of one call, in milliseconds."""
    best = float("inf")
    for _ in range(runs):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best * 1000


def limited(name: str, value: float, limit: float | None) -> bool:
    """Print a figure in milliseconds, against its goal where it has one."""
    return figure(name, value, "ms") if limit is None else at_most(name, value, "ms", limit)


class Bench:
    """One committee that signs one message."""

    def __init__(self, t: int, n: int, suite: Suite = TR) -> None:
        self.suite = suite
        self.group: GroupKey
        self.shares: dict[Identifier, KeyShare]
        self.group, self.shares = deal(t, n, suite, ("bench", t))
        self.draw = seeded(("bench nonces", t))
        self.chosen = self.group.identifiers[:t]
        made = {i: generate_nonces(self.shares[i], self.draw) for i in self.chosen}
        entries = tuple(PublishedNonce(NonceHandle(1, 0), made[i].commitments) for i in self.chosen)
        self.request = messages.encode(suite, SignRequest(1, 1, MESSAGE, 0, entries))
        commitments = sorted_commitments([entry.commitments for entry in entries])
        self.package = SigningPackage(MESSAGE, commitments)
        session = Session(self.group, self.package)
        signed = {i: sign(session, self.shares[i], made[i]) for i in self.chosen}
        fresh = {i: generate_nonces(self.shares[i], self.draw).commitments for i in self.chosen}
        self.answers = [
            messages.encode(
                suite, Share(1, 1, 0, signed[i].z, Nonces.of(1, NonceBatch(1, 9, (fresh[i],))))
            )
            for i in self.chosen
        ]

    def commit_ms(self) -> float:
        """CPU of one nonce pair."""
        share = self.shares[self.chosen[0]]
        return best_ms(lambda: generate_nonces(share, self.draw), 200)

    def signer_ms(self) -> float:
        """CPU of one signer; the pair is made outside the clock, as it is published ahead."""
        share, best = self.shares[self.chosen[0]], float("inf")
        own = generate_nonces(share, self.draw)
        entries = messages.decode(self.suite, self.request)
        assert isinstance(entries, SignRequest)
        for _ in range(30):
            own = generate_nonces(share, self.draw)
            first = PublishedNonce(NonceHandle(1, 0), own.commitments)
            raw = messages.encode(
                self.suite, SignRequest(1, 1, MESSAGE, 0, (first, *entries.entries[1:]))
            )
            start = time.process_time()
            request = messages.decode(self.suite, raw)
            assert isinstance(request, SignRequest)
            commitments = tuple(entry.commitments for entry in request.entries)
            sign(Session(self.group, SigningPackage(MESSAGE, commitments)), share, own)
            best = min(best, time.process_time() - start)
        return best * 1000

    def coordinator_ms(self) -> float:
        """CPU of the coordinator."""

        def work() -> None:
            session = Session(self.group, self.package)
            shares: dict[Identifier, SignatureShare] = {}
            for i, raw in zip(self.chosen, self.answers, strict=True):
                share = messages.decode(self.suite, raw)
                assert isinstance(share, Share)
                shares[i] = SignatureShare(i, share.z)
            assert isinstance(aggregate(session, shares), Signature)

        return best_ms(work)

    def whole_ms(self) -> float:
        """CPU of t signers and the coordinator, without the wire: what noble's run does."""

        def work() -> None:
            nonces = {i: generate_nonces(self.shares[i], self.draw) for i in self.chosen}
            commitments = sorted_commitments([n.commitments for n in nonces.values()])
            package = SigningPackage(MESSAGE, commitments)
            shares = {
                i: sign(Session(self.group, package), self.shares[i], nonces[i])
                for i in self.chosen
            }
            assert isinstance(aggregate(Session(self.group, package), shares), Signature)

        return best_ms(work, 10)


def dkg_ms(t: int, n: int, suite: Suite = TR) -> float:
    """CPU of one participant of a key generation."""
    ids = [Identifier(i) for i in range(1, n + 1)]
    crew = {i: Participant(suite, i, ids, t, seeded(("dkg", i))) for i in ids[1:]}
    others = {i: member.round1() for i, member in crew.items()}
    best = float("inf")
    for run in range(3):
        start = time.process_time()
        mine = Participant(suite, ids[0], ids, t, seeded(("mine", run)))
        package = mine.round1()
        dealt = mine.round2(others)
        used = time.process_time() - start
        assert isinstance(dealt, dict)
        received: dict[Identifier, Secret] = {}
        for i, member in crew.items():
            coefficients = member._coefficients
            received[i] = suite.group.polynomial(coefficients, ids[0])
        start = time.process_time()
        share = mine.finalize(received)
        used += time.process_time() - start
        assert isinstance(share, KeyShare)
        assert package.identifier == ids[0]
        best = min(best, used)
    return best * 1000


def ceremony_ms(t: int, n: int) -> float:
    """CPU of one member of a whole ceremony: all members' time divided by n."""
    net = Ceremonies(t, n)
    net.perform = lambda member, effects: None  # type: ignore[method-assign]  # delivered below
    start = time.process_time()
    words = [(i, e) for i, m in enumerate(net.members) for e in m.start(0.0)]  # type: ignore[arg-type]  # an Instant
    done = 0
    while words:
        said: list[tuple[int, object]] = []
        for sender, effect in words:
            if isinstance(effect, Completed):
                done += 1
            if isinstance(effect, Broadcast):
                for i, member in enumerate(net.members):
                    if i != sender and isinstance(member, Ceremony):
                        said += [(i, e) for e in member.receive(sender, effect.message)]
        words = said  # type: ignore[assignment]  # effects
    assert done == n
    return (time.process_time() - start) * 1000 / n


def noble(t: int, n: int) -> dict[str, float]:
    """Return noble's CPU for the same work."""
    script = ROOT / "scripts" / "benches" / "_frost_noble_bench.mjs"
    result = subprocess.run(
        ["node", str(script), str(FOLDER), str(t), str(n)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    answer: dict[str, float] = json.loads(result.stdout)
    return answer


def main() -> None:
    """Print every figure."""
    reason = install()
    for t, n in SIZES:
        size, bench = (t, n), Bench(t, n)
        name = f"{t}/{n}"
        at_most(f"nonce pair {name}", bench.commit_ms(), "ms", 0.06)
        limited(f"signer {name}", bench.signer_ms(), SIGNER_MS.get(size))
        limited(f"coordinator {name}", bench.coordinator_ms(), COORDINATOR_MS.get(size))
        whole, generation = bench.whole_ms(), dkg_ms(t, n)
        figure(f"whole signing {name}", whole, "ms")
        limited(f"DKG per participant {name}", generation, DKG_MS.get(size))
        figure(f"ceremony per member {name}", ceremony_ms(t, n), "ms")
        if reason is None:
            peer = noble(t, n)
            at_least(f"whole signing, noble / ours {name}", peer["signing"] / whole, "x", RATIO)
            figure(f"DKG, noble / ours {name}", peer["dkg"] / generation, "x")
    at_most("Ed25519 signer 11/16", Bench(11, 16, ED25519).signer_ms(), "ms", 3.0)
    if reason is not None:
        figure(f"noble was not measured: {reason}", 0, "")


if __name__ == "__main__":
    main()
