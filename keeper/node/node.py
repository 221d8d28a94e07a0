"""The node: one nursery, every room composed, from a home directory to an epoch's work.

start ─▶ chains answer, indexes begin ─▶ links ─▶ Epochs: the first key, then epoch after epoch
                                                    seated: MemberWork     else: FollowerWork
"""

from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO
from urllib.parse import parse_qs

import structlog
import trio

from keeper import __version__, hashing
from keeper.chain.evm import EvmChain, connect
from keeper.chain.port import Chain
from keeper.config import Config
from keeper.desk.floor import Floor
from keeper.errors import ConfigError, RemoteFault, UnreachableError
from keeper.execute.intent import Lane, Mode
from keeper.execute.lane_keys import lane_address, lane_key
from keeper.execute.ledger import Ledger
from keeper.execute.service import Executor
from keeper.keys import Keys
from keeper.metrics import Metrics
from keeper.network import NetworkSpec
from keeper.node import status
from keeper.node.epochs import Epochs
from keeper.node.member import MemberWork
from keeper.node.parts import Parts
from keeper.node.recorder import Recorder
from keeper.node.shown import Shown
from keeper.node.state import FinalState
from keeper.observe.light_client.service import configured
from keeper.observe.service import Watcher
from keeper.parameters import Parameters
from keeper.settle.slashing import Slasher
from keeper.snapshot.archive import Archive
from keeper.store import Store
from keeper.units import ChainId
from keeper.venue.committee import bonded_peers
from keeper.web.server import Response, Server
from p2p.agreement.evidence import Evidence
from p2p.frost.keyfile import SAFE, Work
from p2p.host import Libp2pNetwork
from p2p.identity import peer_id_text
from p2p.scorebook import StoredScores

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
        record: Callable[[int], BinaryIO] | None = None,
    ) -> None:
        """Compose the long-lived parts; nothing runs and nothing is sent yet.

        Args:
            config: this node's settings.
            network: the descriptor.
            keys: this keeper's opened keys.
            work: how hard new key files are to open.
            record: opens where an epoch's inputs are recorded, or None.

        Raises:
            LocalError: a setting, the store or an address cannot be used.
        """
        self.config, self.network, self.keys = config, network, keys
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
            chain.id: configured(chain.id, config.light_clients[chain.id], self.store)
            for chain in network.chains
            if chain.id in config.light_clients
        }
        finality = {chain: client.finality for chain, client in self.light_clients.items()}
        self.chains: dict[ChainId, Chain] = {
            chain.id: EvmChain(
                chain.id,
                config.endpoints[chain.id],
                finality.get(chain.id),
                prove_logs=chain.id in finality,
            )
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
        self.recorder = Recorder(
            config.home / "records",
            {"network": network.id.hex(), "keeper": keys.address.hex()},
            self.archive,
            self.chains,
            self.metrics,
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
            self.recorder,
            record,
        )
        self.floor = Floor(
            config,
            self.chains,
            self.store,
            self.executor,
            lane_address(keys.operator, Lane.URGENT),
            self.recorder.put,
            self.metrics,
        )
        self.slasher = Slasher(network, self.executor, self.watchers[network.hub])
        self.epochs = Epochs(self.parts, config, work)
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
                nursery.start_soon(self.recorder.run)
                nursery.start_soon(self.slasher.run)
                await self._until_indexed()
                self._admit_now()  # before the first frame: nobody is judged by an empty registry
                await nursery.start(self.p2p.run)
                task_status.started()
                log.info("node_started", address=self.keys.address.hex(), http=server.port)
                nursery.start_soon(self._admit)
                nursery.start_soon(self.floor.run)
                await self.epochs.run()
        finally:
            self.store.close()

    async def _check_chains(self) -> None:
        """Make sure every endpoint answers and is the chain it should be."""
        for chain_id, urls in self.config.endpoints.items():
            for url in urls:
                await check_endpoint(chain_id, url)

    async def _admit(self) -> None:
        """Keep admission in step with the registry: members, bonded keepers, nobody else."""
        while True:
            self._admit_now()
            await trio.sleep(POLL_S)

    def _admit_now(self) -> None:
        bonded = bonded_peers(self.network, self.epochs.registry.tables())
        self.p2p.allow(self.epochs.member_peers(), bonded)

    async def _until_indexed(self) -> None:
        """Return once every chain's index holds a final block."""
        for watcher in self.watchers.values():
            while watcher.index.newest is None:
                with trio.move_on_after(POLL_S):
                    await watcher.moved.wait()

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
        return None if self.epochs.work is None else self.epochs.work.shown

    def health(self) -> status.Health:
        """Return whether this node does its work, and why not."""
        linked = sum(row.connected and row.role.value == "committee" for row in self.p2p.peers())
        state = self._state()
        work = self.epochs.work
        needed = work.session.committee.quorum - 1 if isinstance(work, MemberWork) else 0
        return status.judge(
            self.epochs.phase,
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
            "phase": self.epochs.phase,
            "keccak": hashing.BACKEND,
            "health": {"ready": self.health().ready, "reasons": list(self.health().reasons)},
            "generated": self.epochs.generated,
            "missing": self.epochs.missing(),
            "next_committee": self.epochs.calling.status(),
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
            "desks": self.floor.status(),
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
        if self.epochs.work is not None:
            value |= self.epochs.work.status()
        return value

    def _state(self) -> FinalState | None:
        return None if self.epochs.work is None else self.epochs.work.state


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
