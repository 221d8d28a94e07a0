"""The node: one nursery, every room composed, from a home directory to an epoch's work.

start ─▶ chains answer, indexes begin ─▶ registered epoch?
                                           │ no: candidates ─▶ ceremony ─▶ wait for registration
                                           ▼
          member: Session (agreement, seals, observations, carrier, bidder)
          not a member: follower, until the next epoch
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, BinaryIO
from urllib.parse import parse_qs

import structlog
import trio

from keeper import __version__, hashing
from keeper.chain.evm import EvmChain, connect
from keeper.chain.port import Chain
from keeper.config import Config
from keeper.errors import ConfigError, RemoteFault, UnreachableError
from keeper.execute.intent import Lane, Mode
from keeper.execute.lane_keys import lane_address, lane_key
from keeper.execute.ledger import Ledger
from keeper.execute.service import Executor
from keeper.keys import Keys
from keeper.metrics import Metrics
from keeper.network import NetworkSpec
from keeper.node import status
from keeper.node.committee import Epoch, bonded_peers, candidates, committee_of, registered
from keeper.node.follower import FollowerWork
from keeper.node.genesis import Genesis, load_share, save_share
from keeper.node.member import MemberWork, rules
from keeper.node.parts import Parts
from keeper.node.shown import Shown
from keeper.node.state import FinalState
from keeper.observe.light_client.service import configured
from keeper.observe.service import Watcher
from keeper.observe.table import Table
from keeper.parameters import Parameters
from keeper.settle.slashing import Slasher
from keeper.snapshot.archive import Archive
from keeper.store import Store
from keeper.units import ChainId
from keeper.venue import bonds
from keeper.web.server import Response, Server
from p2p.agreement.evidence import Evidence
from p2p.frost.keyfile import SAFE, Work
from p2p.frost.keys import KeyShare
from p2p.host import Libp2pNetwork
from p2p.identity import peer_id_text
from p2p.scorebook import StoredScores
from p2p.types import Committee, Member

log = structlog.get_logger(__name__)

POLL_S = 0.5
CONNECT_S = 10.0
"""How long an RPC may take to answer for the first time before the node gives up with a reason."""


class Node:
    """One keeper."""

    def __init__(
        self,
        config: Config,
        network: NetworkSpec,
        keys: Keys,
        work: Work = SAFE,
        record: BinaryIO | None = None,
    ) -> None:
        """Compose the long-lived parts; nothing runs and nothing is sent yet.

        Args:
            config: this node's settings.
            network: the descriptor.
            keys: this keeper's opened keys.
            work: how hard new key files are to open.
            record: where the agreement's inputs are recorded, or None.

        Raises:
            LocalError: a setting, the store or an address cannot be used.
        """
        self.config, self.network, self.keys, self._work = config, network, keys, work
        self.parameters = Parameters.decode(network.parameters)
        missing = [chain.id for chain in network.chains if chain.id not in config.endpoints]
        if missing:
            raise ConfigError(
                f"no endpoint for chain {missing[0]}",
                where=str(config.home / "keeper.toml"),
                remedy=f'add [chains.{missing[0]}] with rpc = ["http://…"]',
            )
        self.metrics = Metrics()
        self.store = Store(config.store_file)
        self.archive = Archive(self.store)
        self.light_clients = {
            chain.id: configured(chain.id, config.light_clients[chain.id])
            for chain in network.chains
            if chain.id in config.light_clients
        }
        finality = {chain: client.finality for chain, client in self.light_clients.items()}
        self.chains: dict[ChainId, Chain] = {
            chain.id: EvmChain(chain.id, config.endpoints[chain.id], finality.get(chain.id))
            for chain in network.chains
        }
        self.watchers = {
            chain.id: Watcher(chain, self.chains[chain.id]) for chain in network.chains
        }
        self.p2p = Libp2pNetwork(
            keys.identity,
            config.listen,
            config.bootstrap,
            metrics=self.metrics,
            book=StoredScores(self.store),
        )
        self.executor = Executor(
            Ledger(self.store),
            self.chains,
            Mode(config.mode),
            self._lane_keys(),
            metrics=self.metrics,
        )
        self.parts = Parts(
            config.home,
            network,
            self.parameters,
            keys,
            self.store,
            self.archive,
            self.metrics,
            self.p2p,
            self.watchers,
            self.executor,
            0.15,
            self._on_evidence,
            record,
        )
        self.slasher = Slasher(network, self.executor, self.watchers[network.hub])
        self.phase = "starting"
        self.epoch: Epoch | None = None
        self.genesis: Genesis | None = None
        self.work: MemberWork | None = None
        self.follower: FollowerWork | None = None
        self.evidence: list[Evidence] = []

    def _lane_keys(self) -> dict[tuple[ChainId, Lane], Any]:
        """Return where each lane's key comes from: one account a lane, all from the operator's."""
        return {
            (chain.id, lane): partial(lane_key, self.keys.operator, lane)
            for chain in self.network.chains
            for lane in Lane
        }

    def _on_evidence(self, evidence: Evidence) -> None:
        self.evidence.append(evidence)
        self.slasher.offer(evidence)
        log.warning("equivocation_proven", culprit=evidence.culprit, view=evidence.view)

    # life

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled.

        Raises:
            LocalError: the node cannot do its work and a person must act.
        """
        server = Server(self.config.http_host, self.config.http_port, self.routes())
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(server.run)
                await self._check_chains()
                for client in self.light_clients.values():
                    nursery.start_soon(client.run)
                for watcher in self.watchers.values():
                    nursery.start_soon(watcher.run)
                nursery.start_soon(self.executor.run)
                nursery.start_soon(self.slasher.run)
                await self._until_indexed()
                self._admit_now()  # before the first frame: nobody is judged by an empty registry
                await nursery.start(self.p2p.run)
                task_status.started()
                log.info("node_started", address=self.keys.address.hex(), http=server.port)
                nursery.start_soon(self._admit)
                await self._work_through_epochs()
        finally:
            self.store.close()

    async def _check_chains(self) -> None:
        """Make sure every endpoint answers and is the chain it should be."""
        for chain_id, urls in self.config.endpoints.items():
            for url in urls:
                await check_endpoint(chain_id, url)

    def tables(self) -> dict[ChainId, Table]:
        """Return the newest table of every chain whose index has begun."""
        return {
            chain: watcher.index.newest.table
            for chain, watcher in self.watchers.items()
            if watcher.index.newest is not None
        }

    async def _admit(self) -> None:
        """Keep admission in step with the registry: members, bonded keepers, nobody else."""
        while True:
            self._admit_now()
            await trio.sleep(POLL_S)

    def _admit_now(self) -> None:
        tables = self.tables()
        self.epoch = registered(self.network, tables) or self.epoch
        bonded = bonded_peers(self.network, tables)
        self.p2p.allow(frozenset(self._member_peers(bonded)), frozenset(bonded.values()))

    async def _until_indexed(self) -> None:
        """Return once every chain's index holds a final block."""
        for watcher in self.watchers.values():
            while watcher.index.newest is None:
                with trio.move_on_after(POLL_S):
                    await watcher.moved.wait()

    def _member_peers(self, bonded: Mapping[bytes, bytes]) -> set[bytes]:
        if self.epoch is not None:
            # a jailed or leaving member keeps its seat, and its links, until the epoch ends
            hub = self.network.hub
            peers = bonds.peers(self.network.chain(hub), self.tables()[hub])
            return {peers[one] for one in self.epoch.members if one in peers}
        chosen = candidates(self.network, self.tables())
        return {member.peer_id for member in chosen or ()}

    async def _work_through_epochs(self) -> None:
        while True:
            tables = self.tables()
            epoch = registered(self.network, tables)
            if epoch is None:
                await self._ceremony(tables)
                continue
            await self._one_epoch(epoch, tables)

    async def _ceremony(self, tables: Mapping[ChainId, Table]) -> None:
        """Take part in the first ceremony if we are a candidate; wait for the registration."""
        members = candidates(self.network, tables)
        self.phase = "waiting"
        if members is None or self.keys.address not in {m.address for m in members}:
            await trio.sleep(POLL_S)
            return
        committee = committee_of(self.network, 1, members)
        password = self.config.password()
        share = await trio.to_thread.run_sync(load_share, self.config.keys, 1, password)
        if share is None:
            self.phase = "ceremony"
            await self._generate(committee, password)
        else:
            self._show_key(committee, share)
            await trio.sleep(POLL_S)

    async def _generate(self, committee: Committee, password: str) -> None:
        """Run the ceremony, save the share, and stay until the epoch is registered everywhere."""
        self.p2p.allow(
            frozenset(member.peer_id for member in committee.members),
            frozenset(bonded_peers(self.network, self.tables()).values()),
        )
        genesis = self.genesis = Genesis(committee, self.keys, self.p2p)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(genesis.run)
            nursery.start_soon(self._pump, genesis)
            await genesis.done.wait()
            assert genesis.share is not None
            await trio.to_thread.run_sync(
                save_share,
                self.config.keys,
                1,
                genesis.share,
                genesis.recovery,
                password,
                self._work,
            )
            self._show_key(committee, genesis.share)
            await self._until_registered()
            nursery.cancel_scope.cancel()

    async def _until_registered(self) -> None:
        hub = self.watchers[self.network.hub]
        while registered(self.network, self.tables()) is None:
            with trio.move_on_after(POLL_S):
                await hub.moved.wait()

    async def _pump(self, genesis: Genesis) -> None:
        while True:
            item = await self.p2p.inbox.receive()
            self.p2p.report(item.peer, genesis.take_inbound(item))

    def _show_key(self, committee: Committee, share: KeyShare) -> None:
        self.phase = "registering"
        self.generated = {
            "epoch": committee.epoch,
            "group_key": "0x" + share.group.x_only.hex(),
            "config": "0x" + committee.config.hex(),
            "members": ["0x" + member.address.hex() for member in committee.members],
        }

    generated: dict[str, Any] | None = None

    async def _one_epoch(self, epoch: Epoch, tables: Mapping[ChainId, Table]) -> None:
        peers = bonds.peers(self.network.chain(self.network.hub), tables[self.network.hub])
        members = tuple(Member(address, peers.get(address, b"")) for address in epoch.members)
        committee = committee_of(self.network, epoch.number, members)
        if committee.config != epoch.config:
            raise ConfigError(
                "the registered committee has another config than this node computes",
                where="network.json",
                remedy="this node's descriptor or parameters differ from the network's: "
                "copy network.json again from whoever deployed the contracts",
            )
        if self.keys.address not in epoch.members:
            self.phase = "follower"
            self.follower = FollowerWork(self.parts, committee, epoch, rules())
            await self.follower.run()
            return
        password = self.config.password()
        share = await trio.to_thread.run_sync(load_share, self.config.keys, epoch.number, password)
        if share is None or int.from_bytes(share.group.x_only, "big") != epoch.group_key:
            raise ConfigError(
                f"this keeper has no key share for epoch {epoch.number}",
                where=str(self.config.keys),
                remedy="restore the share from a backup, or have the committee repair it",
            )
        self.phase = "member"
        self.work = MemberWork(self.parts, self.config, committee, share)
        await self.work.run()

    # what is shown

    def routes(self) -> dict[str, Any]:
        """Return the HTTP routes of this node."""
        return {
            "/livez": lambda _: Response(b'{"live": true}'),
            "/readyz": lambda _: self.health().response(),
            "/metrics": lambda _: Response(
                self.metrics.exposition(), content_type="text/plain; version=0.0.4"
            ),
            "/status": lambda _: status.json_response(self.status()),
            "/account": self._account,
            "/proof": self._proof,
        }

    def _account(self, query: str) -> Response:
        """Answer /account?id=0x…: what the newest sealed snapshot says of it."""
        account = _account_id(query)
        shown = self._shown()
        value = None if shown is None or account is None else shown.account(account)
        if value is None:
            return Response(b'{"error": "no such account in the newest sealed snapshot"}', 404)
        return status.json_response(value)

    def _proof(self, query: str) -> Response:
        """Answer /proof?id=0x…: proof files of an account."""
        account = _account_id(query)
        shown = self._shown()
        proofs = [] if shown is None or account is None else shown.proofs(account)
        return status.json_response(proofs) if proofs else Response(b"[]", 404)

    def _shown(self) -> Shown | None:
        work = self.work or self.follower
        return None if work is None else work.shown

    def health(self) -> status.Health:
        """Return whether this node does its work, and why not."""
        linked = sum(row.connected and row.role.value == "committee" for row in self.p2p.peers())
        state = self._state()
        needed = 0 if self.work is None else self.work.session.committee.quorum - 1
        return status.judge(
            self.phase,
            {chain: self._trouble(chain) for chain in self.watchers},
            status.now(),
            state.final_at if state else None,
            state.sealed_at if state else None,
            linked,
            needed,
        )

    def _trouble(self, chain: ChainId) -> str:
        """Return what is wrong with a chain: its endpoints, or the proof of its finality."""
        client = self.light_clients.get(chain)
        return self.watchers[chain].trouble or (client.trouble if client else "")

    def status(self) -> dict[str, Any]:
        """Return everything `keeper status` shows."""
        finals, seals = self.archive.counts()
        value: dict[str, Any] = {
            "version": __version__,
            "address": self.keys.address,
            "peer": peer_id_text(self.keys.peer_id),
            "listening": list(self.p2p.addresses),
            "mode": self.config.mode,
            "phase": self.phase,
            "keccak": hashing.BACKEND,
            "health": {"ready": self.health().ready, "reasons": list(self.health().reasons)},
            "generated": self.generated,
            "missing": list(self.genesis.missing()) if self.genesis else [],
            "finals": finals,
            "seals": seals,
            "lanes": {lane.value: lane_address(self.keys.operator, lane) for lane in Lane},
            "chains": {
                str(chain): {
                    "final": watcher.index.newest.number if watcher.index.newest else None,
                    "records": len(watcher.index.newest.table) if watcher.index.newest else 0,
                    "trouble": self._trouble(chain),
                }
                for chain, watcher in self.watchers.items()
            },
            "evidence": len(self.evidence),
            "peers": [
                {
                    "peer": peer_id_text(row.peer),
                    "role": row.role.value,
                    "connected": row.connected,
                    "round_trip_ms": None if row.round_trip_s is None else row.round_trip_s * 1000,
                    "lateness_ms": None if row.lateness_s is None else row.lateness_s * 1000,
                    "score": row.score,
                    "standing": row.standing.value,
                    "received": row.received_bytes,
                    "sent": row.sent_bytes,
                    "drops": {reason.value: count for reason, count in row.drops},
                }
                for row in self.p2p.peers()
            ],
        }
        work = self.work or self.follower
        if work is not None:
            value |= work.status()
        return value

    def _state(self) -> FinalState | None:
        if self.work is not None:
            return self.work.session.state
        return None if self.follower is None else self.follower.state


def _account_id(query: str) -> bytes | None:
    """Return the account of a query `id=0x…`, or None when it is none."""
    found = parse_qs(query).get("id", [""])[0].removeprefix("0x")
    try:
        raw = bytes.fromhex(found)
    except ValueError:
        return None
    return raw if len(raw) == 32 else None


async def check_endpoint(chain: ChainId, url: str) -> None:
    """Make sure an endpoint answers and serves this chain.

    Raises:
        UnreachableError: nobody answers.
        ConfigError: it is another chain.
    """
    rpc = connect(url)
    answer: str | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rpc.run)
            with trio.move_on_after(CONNECT_S):
                while answer is None:
                    try:
                        answer = await rpc.call("eth_chainId")
                    except RemoteFault:
                        await trio.sleep(POLL_S)
            nursery.cancel_scope.cancel()
    finally:
        await rpc.aclose()
    if answer is None:
        raise UnreachableError(
            f"chain {chain} cannot be reached",
            where=url,
            remedy="start the endpoint, or mend [chains] in keeper.toml",
        )
    if int(answer, 16) != chain:
        raise ConfigError(
            f"the endpoint serves chain {int(answer, 16)}, not {chain}",
            where=url,
            remedy="mend [chains] in keeper.toml",
        )
