"""SIGKILL at every step of signing, and a restart that is asked for another digest.

A child process runs the real signer over the real database and kills itself at a given point: any
SQL statement of the lock (before and after it reaches the disk), and before and after anything
leaves. Whatever left the process over all its lives is collected and judged: never two shares from
one nonce pair, never two digests for one view.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from keeper.store import Store
from keeper.units import Instant
from p2p.frost import messages, signer
from p2p.frost.aggregate import verify_share
from p2p.frost.messages import Nonces, Share, SignRequest
from p2p.frost.nonces import CommitmentBook, NoncePool, PublishedNonce
from p2p.frost.round1 import sorted_commitments
from p2p.frost.round2 import Session, SignatureShare, SigningPackage
from p2p.frost.signer import Setup, Signer, Timing, seal_digest
from p2p.frost.signlock import SqliteSignLock
from p2p.frost.suite import TR, Identifier
from tests.support.frost import deal, seeded
from tests.support.frost_net import NETWORK

VIEW = 7
ROOTS = b"\x0a" * 32, b"\x0b" * 32
ME, COORDINATOR = 2, 1
GROUP, SHARES = deal(3, 4)


@dataclass
class Killer:
    """Counts the steps of a life, and ends it at one of them."""

    at: int
    done: int = 0

    def step(self, name: str) -> None:
        self.done += 1
        if self.done == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Life:
    """What left one life of the signer, and whether it was killed."""

    frames: list[bytes] = field(default_factory=list)
    killed: bool = False


def live(database: Path, at: int, talk: Callable[[Signer], list[bytes]], out: int) -> None:
    """In the child: run the signer; every frame that leaves is written to `out` at once."""
    killer = Killer(at)
    store = Store(database)
    lock = SqliteSignLock(store)
    store._rows.set_trace_callback(killer.step)
    locks = lock.load(1)
    setup = Setup(SHARES[Identifier(ME + 1)], NETWORK, 1, lambda view: [COORDINATOR], Timing())
    member = Signer(setup, boot=lock.next_boot(), random_bytes=os.urandom, locks=locks)

    def perform(effects: tuple[signer.Effect, ...]) -> None:
        for effect in effects:
            killer.step("before an effect")
            if isinstance(effect, signer.PersistLock):
                lock.acquire(effect.epoch, effect.view, effect.digest)
            if isinstance(effect, signer.Send) and effect.member == COORDINATOR:
                raw = messages.encode(TR, effect.message)
                os.write(out, len(raw).to_bytes(4, "big") + raw)
            killer.step("after an effect")

    perform(member.start(Instant(0.0)))
    for raw in talk(member):
        root, frame = raw[:32], raw[32:]
        if frame:
            request = messages.decode(TR, frame)
            killer.step("before a request")
            perform(member.receive(COORDINATOR, request, Instant(1.0)))
        else:
            perform(member.sign_request(Instant(1.0), VIEW, root))


def run(database: Path, at: int, talk: Callable[[Signer], list[bytes]]) -> Life:
    """Fork a life and collect what left it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        status = 1
        try:
            live(database, at, talk, write)
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        raw = stream.read()
    _, status = os.waitpid(child, 0)
    life = Life(killed=os.WIFSIGNALED(status))
    assert life.killed or os.WEXITSTATUS(status) == 0
    while raw:
        size = int.from_bytes(raw[:4], "big")
        life.frames.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    return life


def nonces_of(member: Signer) -> Nonces:
    """What the coordinator was promised, read from the child's own pool."""
    pairs = member._pool._pairs[Identifier(COORDINATOR + 1)]
    points = tuple((n.commitments.hiding, n.commitments.binding) for n in pairs.values())
    return Nonces(1, member._pool.boot, min(pairs), points)


def request_for(root: bytes, nonces: Nonces, attempt: int, skip: int = 0) -> SignRequest:
    """Ask with the `skip`-th promised pair, and two other signers' points."""
    book = CommitmentBook()
    book.add(Identifier(ME + 1), nonces.batch(Identifier(ME + 1)))
    for i in (1, 2):
        pool = NoncePool(SHARES[Identifier(i)], 1, seeded(("peer", i)))
        book.add(Identifier(i), pool.publish(Identifier(COORDINATOR + 1), 8))
    entries: list[PublishedNonce] = []
    for i in (1, 2, ME + 1):
        for _ in range(skip if i == ME + 1 else 0):
            book.take(Identifier(i))
        entry = book.take(Identifier(i))
        assert entry is not None
        entries.append(entry)
    return SignRequest(1, VIEW, root, attempt, tuple(entries))


def asking(root: bytes, earlier: Nonces | None = None) -> Callable[[Signer], list[bytes]]:
    """A coordinator that asks with nonces of an earlier life, then twice with fresh ones."""

    def talk(member: Signer) -> list[bytes]:
        own = nonces_of(member)
        asked = [request_for(root, own, 0), request_for(root, own, 1, skip=1)]
        if earlier is not None:
            asked.insert(0, request_for(root, earlier, 2))
        return [root, *(root + messages.encode(TR, request) for request in asked)]

    return talk


def verdict(lives: list[Life], talks: list[bytes]) -> set[bytes]:
    """Judge everything that left: return the digests that got a valid share."""
    spent: dict[tuple[int, int], int] = {}
    signed: set[bytes] = set()
    for life, root in zip(lives, talks, strict=True):
        decoded = [messages.decode(TR, raw) for raw in life.frames]
        own = next((m for m in decoded if isinstance(m, Nonces)), None)
        for message in decoded:
            if not isinstance(message, Share):
                continue
            assert own is not None
            request = request_for(root, own, message.attempt, skip=message.attempt)
            handle = request.entries[-1].handle
            digest = seal_digest(NETWORK, 1, VIEW, root)
            commitments = sorted_commitments([e.commitments for e in request.entries])
            session = Session(GROUP, SigningPackage(digest, commitments))
            share = SignatureShare(Identifier(ME + 1), message.z)
            assert verify_share(session, share)
            assert spent.setdefault((handle.boot, handle.counter), message.z) == message.z
            signed.add(digest)
    return signed


STEPS = 40
"""More than a life has, so the last ones are not killed at all."""


def test_the_steps_cover_the_whole_of_signing(tmp_path: Path) -> None:
    life = run(tmp_path / "whole.db", 0, asking(ROOTS[0]))
    assert [type(messages.decode(TR, raw)) for raw in life.frames] == [Nonces, Share, Share]
    assert verdict([life], [ROOTS[0]]) == {seal_digest(NETWORK, 1, VIEW, ROOTS[0])}
    assert run(tmp_path / "late.db", 15, asking(ROOTS[0])).killed
    assert not run(tmp_path / "end.db", STEPS, asking(ROOTS[0])).killed


@pytest.mark.parametrize("at", range(1, STEPS))
def test_killed_at_any_step_it_never_signs_two_digests_or_reuses_a_nonce(
    tmp_path: Path, at: int
) -> None:
    database = tmp_path / "node.db"
    first = run(database, at, asking(ROOTS[0]))
    said = [messages.decode(TR, raw) for raw in first.frames]
    promised = next((m for m in said if isinstance(m, Nonces)), None)
    second = run(database, 0, asking(ROOTS[1], promised))
    signed = verdict([first, second], [ROOTS[0], ROOTS[1]])
    assert len(signed) <= 1, f"step {at}: two digests for one view"
    if any(isinstance(message, Share) for message in said):
        assert signed == {seal_digest(NETWORK, 1, VIEW, ROOTS[0])}
    third = run(database, 0, asking(ROOTS[0], promised))
    assert len(verdict([first, second, third], [ROOTS[0], ROOTS[1], ROOTS[0]])) == 1


def test_without_its_lock_it_would_sign_two_digests(tmp_path: Path) -> None:
    """The judge is awake: lives on two databases do what one database forbids."""
    other = Store(tmp_path / "1.db")
    SqliteSignLock(other).next_boot()
    other.close()
    lives = [run(tmp_path / f"{i}.db", 0, asking(ROOTS[i])) for i in (0, 1)]
    assert len(verdict(lives, list(ROOTS))) == 2
