"""From one epoch to the next: which is due, and what this keeper does in it.

nothing registered ─▶ candidates ─▶ ceremony ─▶ wait for the registration
archive: newest snapshot ─┬─ none, or left behind ─▶ the newest registered epoch
                          ├─ of epoch e            ─▶ e goes on
                          └─ the last one of e     ─▶ e + 1 begins from it
seated: MemberWork        not seated: FollowerWork        both end with the epoch
"""

import structlog
import trio

from keeper.config import Config
from keeper.errors import ConfigError
from keeper.keys import Keys
from keeper.node.calling import Calling
from keeper.node.ceremony import (
    KeyCeremony,
    Made,
    ceremony_frame,
    held_share,
    keep_share,
    recovered,
)
from keeper.node.follower import FollowerWork
from keeper.node.member import MemberWork, rules
from keeper.node.parts import Parts
from keeper.node.registry import Registry
from keeper.settle.rotation import is_closed
from keeper.venue.committee import FIRST_EPOCH, Epoch, bonded_peers, candidates, committee_of
from p2p.frost.keyfile import Work
from p2p.frost.keys import KeyShare
from p2p.identity import peer_id_text
from p2p.types import Committee
from p2p.verdicts import ACCEPT

log = structlog.get_logger(__name__)

POLL_S = 0.5
RECORD_TRIES = 20
"""Rounds of asking for the record of a lost share: links need a few seconds to stand."""


class Epochs:
    """Runs whatever epoch is due."""

    def __init__(self, parts: Parts, config: Config, sealing: Work) -> None:
        """Compose; nothing runs yet.

        Args:
            parts: what the node has.
            config: where shares are kept, and the password.
            sealing: how hard new key files are to open.
        """
        self.parts, self._config, self._sealing = parts, config, sealing
        self.registry = Registry(parts.network, parts.watchers, parts.store)
        self.calling = Calling(parts, config.keys, config.password, sealing)
        self.phase = "starting"
        self.committee: Committee | None = None
        self.work: MemberWork | FollowerWork | None = None
        self.generated: dict[str, object] | None = None
        self._first: KeyCeremony | None = None
        self._left = 0
        """Newest epoch that went on without this keeper."""

    @property
    def _keys(self) -> Keys:
        return self.parts.keys

    def missing(self) -> list[str]:
        """Return the peers that the first ceremony waits for."""
        return [peer_id_text(peer) for peer in self._first.missing()] if self._first else []

    def member_peers(self) -> frozenset[bytes]:
        """Return whom to link with as a member: of the epoch at work, the newest, and the called.

        A jailed or leaving member keeps its seat, and its links, until the epoch ends.
        """
        newest = self.registry.newest()
        if newest is None:
            chosen = candidates(self.parts.network, self.registry.tables()) or ()
            return frozenset(member.peer_id for member in chosen)
        committees = (self.committee, self.registry.newest_committee())
        seated = {m.peer_id for one in committees if one is not None for m in one.members}
        return frozenset(seated) | self.calling.peers

    async def run(self) -> None:
        """Work through the epochs until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.calling.run)
            while True:
                epoch = self._due()
                if epoch is not None:
                    await self._work_in(epoch)
                elif self.registry.newest() is None:
                    await self._first_key()
                else:
                    self.phase = "waiting"  # for our own index to show what the archive knows
                    await trio.sleep(POLL_S)

    def _due(self) -> Epoch | None:
        newest, held = self.registry.newest(), self.parts.archive.state()
        if newest is None or held is None:
            return newest
        header, book = held[1].header, held[1].book
        number = header.epoch + is_closed(header.epoch, book)
        return self.registry.epoch(number) if number > self._left else newest

    # the first key

    async def _first_key(self) -> None:
        """Take part in the first ceremony if we are a candidate; wait for the registration."""
        network, tables = self.parts.network, self.registry.tables()
        members = candidates(network, tables)
        self.phase = "waiting"
        if members is None or self._keys.address not in {m.address for m in members}:
            await trio.sleep(POLL_S)
            return
        committee = committee_of(network, FIRST_EPOCH, members)
        share = await self._held(committee)
        if share is None:
            self.phase = "ceremony"
            await self._generate(committee)
        else:
            self._show_key(committee, share)
            await trio.sleep(POLL_S)

    async def _generate(self, committee: Committee) -> None:
        """Run the ceremony, save the share, and stay until the epoch is registered everywhere."""
        bonded = bonded_peers(self.parts.network, self.registry.tables())
        self.parts.p2p.allow(frozenset(member.peer_id for member in committee.members), bonded)
        first = self._first = KeyCeremony(committee, self._keys, self.parts.p2p)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.run)
            nursery.start_soon(self._pump, first)
            await first.done.wait()
            assert first.made is not None
            await self._keep(committee, first.made)
            self._show_key(committee, first.made[0])
            hub = self.parts.watchers[self.parts.network.hub]
            while self.registry.newest() is None:
                with trio.move_on_after(POLL_S):
                    await hub.moved.wait()
            nursery.cancel_scope.cancel()

    async def _pump(self, ceremony: KeyCeremony) -> None:
        p2p = self.parts.p2p
        while True:
            item = await p2p.inbox.receive()
            frame = ceremony_frame(item)
            p2p.report(item.peer, ACCEPT if frame is None else ceremony.take(item.peer, frame))

    def _show_key(self, committee: Committee, share: KeyShare) -> None:
        self.phase = "registering"
        self.generated = {
            "epoch": committee.epoch,
            "group_key": "0x" + share.group.x_only.hex(),
            "config": "0x" + committee.config.hex(),
            "members": ["0x" + member.address.hex() for member in committee.members],
        }

    # shares

    async def _held(self, committee: Committee) -> KeyShare | None:
        return await trio.to_thread.run_sync(
            held_share, self._config.keys, committee, self._config.password()
        )

    async def _keep(self, committee: Committee, made: Made) -> None:
        await trio.to_thread.run_sync(
            keep_share,
            self._config.keys,
            committee.epoch,
            made,
            self._config.password(),
            self._sealing,
        )

    async def _share_of(self, committee: Committee, epoch: Epoch) -> KeyShare:
        """Return this member's share: kept here, or restored from another member's record.

        Raises:
            ConfigError: it is lost.
        """
        share = await self._held(committee)
        for _ in range(RECORD_TRIES if share is None else 0):
            made = await recovered(committee, self._keys, self.parts.p2p)
            if made is not None:
                await self._keep(committee, made)
                share = made[0]
                break
            await trio.sleep(POLL_S)
        if share is None or int.from_bytes(share.group.x_only, "big") != epoch.group_key:
            raise ConfigError(
                f"this keeper has no key share for epoch {epoch.number}",
                where=str(self._config.keys),
                remedy="restore the share from a backup, or have the committee repair it",
            )
        return share

    # one epoch

    async def _work_in(self, epoch: Epoch) -> None:
        committee = self.registry.committee(epoch)
        if committee is None:
            raise ConfigError(
                "the registered committee has another config than this node computes",
                where="network.json",
                remedy="this node's descriptor or parameters differ from the network's: "
                "copy network.json again from whoever deployed the contracts",
            )
        self.committee = committee
        log.info("epoch", number=epoch.number, members=committee.size)
        if self._keys.address in epoch.members:
            share = await self._share_of(committee, epoch)
            self.phase = "member"
            self.work = MemberWork(
                self.parts, self._config, committee, share, self.registry, self.calling
            )
        else:
            self.phase = "follower"
            self.work = FollowerWork(
                self.parts, committee, epoch, rules(), self.registry, self.calling
            )
        closed = await self.work.run()
        if not closed:
            log.warning("left_behind", epoch=epoch.number)
            self._left = epoch.number
