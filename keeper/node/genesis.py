"""The first key: runs a ceremony machine between the candidates over the links.

    candidates (bonded, with peers) ─▶ Terms ─▶ Ceremony ─ frames of channel CEREMONY ─▶ KeyShare

A member that is done goes on answering those that are not, beside the work of its epoch.
"""

import math
import os
from pathlib import Path

import structlog
import trio

from keeper.errors import LocalError, RemoteFault
from keeper.keys import Keys
from keeper.reasons import Reason
from keeper.units import Instant
from p2p.frost.ceremony import Broadcast, Ceremony, Completed, Effect, Failed
from p2p.frost.keyfile import SAFE, Work, load_key_share, save_key_share, write_new
from p2p.frost.keys import KeyShare
from p2p.frost.secret import Secret
from p2p.frost.suite import TR
from p2p.frost.transcript import Signed, Terms
from p2p.identity import peer_id_text
from p2p.port import Inbound, Network, Road
from p2p.service import Channel
from p2p.types import Committee
from p2p.verdicts import ACCEPT, Reject, Verdict

log = structlog.get_logger(__name__)

FRAMES = 256
"""Ceremony frames waiting: four rounds of 31 members, and repeats."""


class Genesis:
    """One member's part in the ceremony of one committee."""

    def __init__(self, committee: Committee, keys: Keys, network: Network) -> None:
        self._committee, self._network = committee, network
        self._peers = [member.peer_id for member in committee.members]
        terms = Terms(
            TR,
            committee.quorum,
            tuple(self._peers),
            committee.network,
            committee.epoch,
            committee.config,
        )
        self.ceremony = Ceremony(terms, Secret(keys.identity), random_bytes=os.urandom)
        self._put, self._take = trio.open_memory_channel[tuple[int, Signed]](FRAMES)
        self.share: KeyShare | None = None
        self.recovery = b""
        self.done = trio.Event()

    def take(self, peer: bytes, frame: bytes) -> Verdict:
        """Take one frame of the ceremony's channel."""
        if peer not in self._peers:
            return Reject(Reason.NOT_A_MEMBER)
        try:
            message = Signed.decode(frame)
            self._put.send_nowait((self._peers.index(peer), message))
        except (RemoteFault, ValueError):
            return Reject(Reason.MALFORMED)
        except trio.WouldBlock:
            return ACCEPT  # it is repeated every second
        return ACCEPT

    def take_inbound(self, item: Inbound) -> Verdict:
        """Take a frame straight from the inbox, before an epoch's service reads it."""
        if item.road == Road.CONSENSUS and item.frame[:1] == bytes((Channel.CEREMONY,)):
            return self.take(item.peer, item.frame[1:])
        return ACCEPT

    def missing(self) -> tuple[str, ...]:
        """Return the peers that are waited for."""
        return tuple(peer_id_text(self._peers[member]) for member in self.ceremony.missing)

    async def run(self) -> None:
        """Take part until the key is there and everybody has it.

        Raises:
            LocalError: the ceremony failed; the message names who is to blame.
        """
        self._perform(self.ceremony.start(_now()))
        while self.ceremony.deadline is not None:
            with trio.move_on_at(self.ceremony.deadline or math.inf) as scope:
                member, message = await self._take.receive()
                self._perform(self.ceremony.receive(member, message))
            if scope.cancelled_caught:
                self._perform(self.ceremony.tick(_now()))

    def _perform(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case Broadcast(message):
                    self._network.broadcast(bytes((Channel.CEREMONY,)) + message.encode())
                case Completed(share, recovery):
                    self.share, self.recovery = share, recovery.encode()
                    self.done.set()
                    log.info("key_generated", group=share.group.x_only.hex())
                case Failed(faults):
                    blamed = ", ".join(
                        f"{peer_id_text(self._peers[member])} ({fault})" for member, fault in faults
                    )
                    raise LocalError(
                        f"the key ceremony failed: {blamed}",
                        where=f"epoch {self._committee.epoch}",
                        remedy="start again once they are back, or without them",
                    )


def _now() -> Instant:
    return Instant(trio.current_time())


def share_file(folder: Path, epoch: int) -> Path:
    """Return where the share of an epoch is kept."""
    return folder / f"share-{epoch}.key"


def load_share(folder: Path, epoch: int, password: str) -> KeyShare | None:
    """Return the share of an epoch, or None where there is no file.

    Raises:
        KeyFileError: the file is damaged or the password is wrong.
    """
    path = share_file(folder, epoch)
    return load_key_share(path, password.encode()) if path.exists() else None


def save_share(
    folder: Path, epoch: int, share: KeyShare, recovery: bytes, password: str, work: Work = SAFE
) -> None:
    """Write the share sealed, and the public record that restores it with the identity key.

    Raises:
        KeyFileError: a file is there already: nothing is ever replaced.
    """
    path = share_file(folder, epoch)
    save_key_share(path, share, password.encode(), os.urandom, work)
    write_new(folder / f"recovery-{epoch}.bin", recovery)
