"""A key ceremony over the links: the machine of one committee, and where its result is kept.

    members (bonded, with peers) ─▶ Terms ─▶ Ceremony ─ frames of channel CEREMONY ─▶ KeyShare
                                                                   └▶ recovery record, public

A member that is done goes on answering those that are not, beside the work of its epoch. One that
missed the end takes the record from any member: with its own identity key the record is its share.
"""

import math
import os
from pathlib import Path

import structlog
import trio

from keeper.committee import Files
from keeper.errors import LocalError, RemoteFault
from keeper.keys import Keys
from keeper.reasons import Reason
from keeper.units import Instant
from p2p.frost.ceremony import Broadcast, Ceremony, Completed, Effect, Failed
from p2p.frost.keyfile import SAFE, Work, load_key_share
from p2p.frost.keys import KeyShare
from p2p.frost.secret import Secret
from p2p.frost.suite import TR
from p2p.frost.transcript import Recovery, Signed, Terms
from p2p.identity import peer_id_text
from p2p.port import Inbound, Network, Road
from p2p.service import Channel
from p2p.types import Committee
from p2p.verdicts import ACCEPT, Ignore, Reject, Verdict

log = structlog.get_logger(__name__)

FRAMES = 256
"""Ceremony frames waiting: four rounds of 31 members, and repeats."""
RECORD_S = 5.0
"""How long one peer may take to hand over a ceremony's record."""

Made = tuple[KeyShare, Recovery]


class CeremonyFailed(LocalError):
    """A ceremony ended without a key; `culprits` are the peers to blame."""

    def __init__(self, faults: tuple[tuple[bytes, str], ...], epoch: int) -> None:
        blamed = ", ".join(f"{peer_id_text(peer)} ({fault})" for peer, fault in faults)
        super().__init__(
            f"the key ceremony failed: {blamed}",
            where=f"epoch {epoch}",
            remedy="start again once they are back, or without them",
        )
        self.culprits = tuple(peer for peer, _ in faults)


def terms_of(committee: Committee) -> Terms:
    """Return what every member of a committee signs before a secret is made."""
    peers = tuple(member.peer_id for member in committee.members)
    return Terms(TR, committee.quorum, peers, committee.network, committee.epoch, committee.config)


class KeyCeremony:
    """One member's part in the ceremony of one committee."""

    def __init__(self, committee: Committee, keys: Keys, network: Network) -> None:
        self.committee, self._network = committee, network
        self._peers = [member.peer_id for member in committee.members]
        self._machine = Ceremony(
            terms_of(committee), Secret(keys.identity), random_bytes=os.urandom
        )
        self._put, self._take = trio.open_memory_channel[tuple[int, Signed]](FRAMES)
        self.made: Made | None = None
        self.done = trio.Event()

    def take(self, peer: bytes, frame: bytes) -> Verdict:
        """Take one frame of the ceremony's channel."""
        if peer not in self._peers:
            return Ignore(
                Reason.NOT_A_MEMBER
            )  # called to another, of which it has not heard the end
        try:
            message = Signed.decode(frame)
            self._put.send_nowait((self._peers.index(peer), message))
        except (RemoteFault, ValueError):
            return Reject(Reason.MALFORMED)
        except trio.WouldBlock:
            return ACCEPT  # it is repeated every second
        return ACCEPT

    def missing(self) -> tuple[bytes, ...]:
        """Return the peers that are waited for."""
        if self.made is not None:
            return ()
        return tuple(self._peers[member] for member in self._machine.missing)

    async def run(self) -> None:
        """Take part until the key is there and everybody has it.

        Raises:
            CeremonyFailed: it ended without a key.
        """
        self._perform(self._machine.start(_now()))
        while self._machine.deadline is not None:
            with trio.move_on_at(self._machine.deadline or math.inf) as scope:
                member, message = await self._take.receive()
                self._perform(self._machine.receive(member, message))
            if scope.cancelled_caught:
                self._perform(self._machine.tick(_now()))

    def _perform(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case Broadcast(message):
                    self._network.broadcast(bytes((Channel.CEREMONY,)) + message.encode())
                case Completed(share, recovery):
                    self.made = (share, recovery)
                    self.done.set()
                    log.info("key_generated", group=share.group.x_only.hex())
                case Failed(faults):
                    blamed = tuple((self._peers[member], str(fault)) for member, fault in faults)
                    raise CeremonyFailed(blamed, self.committee.epoch)


def _now() -> Instant:
    return Instant(trio.current_time())


def ceremony_frame(item: Inbound) -> bytes | None:
    """Return the ceremony's frame inside an inbound one, or None when it is for somebody else."""
    if item.road != Road.CONSENSUS or item.frame[:1] != bytes((Channel.CEREMONY,)):
        return None
    return item.frame[1:]


# what is kept, and what others may ask for


def held_share(folder: Path, committee: Committee, password: str) -> KeyShare | None:
    """Return the share of a committee's key kept in a folder, or None.

    Raises:
        KeyFileError: the file is damaged or the password is wrong.
    """
    files = Files(folder, committee.epoch)
    if not files.share.exists() or not _is_of(files, committee):
        return None
    return load_key_share(files.share, password.encode())


def _is_of(files: Files, committee: Committee) -> bool:
    """Return whether a kept share is of this committee; one without a record is believed."""
    if not files.record.exists():
        return True
    return Recovery.decode(files.record.read_bytes()).terms.config == committee.config


def keep_share(folder: Path, epoch: int, made: Made, password: str, work: Work = SAFE) -> None:
    """Write the share sealed, and the public record that restores it with the identity key.

    A share of a committee that was called for this epoch and never installed is retired.

    Raises:
        KeyFileError: a file cannot be written.
    """
    files, (share, recovery) = Files(folder, epoch), made
    write = files.replace if files.share.exists() else files.save
    write(share, recovery, password.encode(), work)


def record_of(folder: Path, question: bytes) -> bytes:
    """Return the recovery record a peer asks for by epoch (4 bytes), or nothing.

    Raises:
        RemoteFault: the question is not an epoch.
    """
    if len(question) != 4:
        raise RemoteFault("peer", Reason.MALFORMED, "not an epoch")
    record = Files(folder, int.from_bytes(question, "big")).record
    return record.read_bytes() if record.exists() else b""


async def recovered(committee: Committee, keys: Keys, network: Network) -> Made | None:
    """Ask the other members for the record of their ceremony; return this keeper's share of it."""
    question = committee.epoch.to_bytes(4, "big")
    for member in committee.members:
        if member.peer_id == keys.peer_id:
            continue
        try:
            with trio.fail_after(RECORD_S):
                raw = await network.request(member.peer_id, Road.RECOVERY, question)
            record = Recovery.decode(raw)
            if record.terms == terms_of(committee):
                return record.open(Secret(keys.identity)), record
        except (trio.TooSlowError, RemoteFault, ValueError):
            continue  # the next may have it; what is not signed by all members does not open
    return None
