"""The courier in a node: where the operator configured bridges that its key signs for.

[bridges.*] ─▶ origins ─▶ Courier ─┬─ frames ─▶ gossip topic of messages ─▶ the other keepers
                                   ├─ deliveries ─▶ executor, settlement lane
                                   └─ latencies ─▶ Traffic
"""

from collections.abc import Sequence

import structlog

from keeper.config import Config
from keeper.errors import ConfigError
from keeper.execute.intent import Intent, Lane
from keeper.execute.service import Executor
from keeper.hashing import keccak
from keeper.node.parts import Parts
from keeper.reasons import Reason
from keeper.route.bridges.origins import origins_of, signers_of
from keeper.route.bridges.port import Send
from keeper.route.bridges.service import Courier
from keeper.route.bridges.settings import bridges_of
from keeper.route.traffic import Traffic
from keeper.units import BlockNumber, ChainId, Wei
from p2p.port import Topic
from p2p.service import verdict_of
from p2p.verdicts import ACCEPT, Ignore, Verdict

log = structlog.get_logger(__name__)

DEADLINE_BLOCKS = 50
FEE_CAP = Wei(10**17)
"""A delivery costs 140,000 gas, of CCIP's tokens 250,000: this is dear at 400 gwei."""


class Bringer:
    """Sends deliveries through the executor, each try as an intent of its own."""

    def __init__(self, parts: Parts) -> None:
        self._executor: Executor = parts.executor
        self._chains = {chain: watcher.chain for chain, watcher in parts.watchers.items()}

    async def __call__(self, send: Send) -> bool:
        """Return whether the transaction was mined and did not revert."""
        head = await self._chains[send.chain].head()
        deadline = BlockNumber(head.ref.number + DEADLINE_BLOCKS)
        outcome = await self._executor.submit(
            Intent(
                key=keccak(b"bridge" + send.data + deadline.to_bytes(8, "big")),
                chain=send.chain,
                lane=Lane.SETTLEMENT,
                to=send.to,
                data=send.data,
                deadline=deadline,
                fee_cap=FEE_CAP,
                value=send.value,
                why="deliver a bridged message",
            ),
            settled=False,
        )
        return outcome.succeeded


class Couriers:
    """What a member runs for bridges: a courier of those that it signs for."""

    def __init__(self, parts: Parts, config: Config) -> None:
        """Compose the courier.

        Raises:
            ConfigError: a section cannot be used.
        """
        where = str(config.home / "keeper.toml")
        bridges = bridges_of(config.bridges, parts.network.id, where)
        _known([at.origin for one in bridges for at in one.crossings()], parts, where)
        others = [one for one in bridges if parts.keys.address not in signers_of(one)]
        if others:
            skipped = f"this keeper signs for {len(bridges) - len(others)} of {len(bridges)}"
            log.warning("bridge", skipped=skipped, where=where)
        self.traffic = Traffic()
        self._courier = Courier(
            origins_of(bridges, parts.keys.operator),
            {chain: watcher.chain for chain, watcher in parts.watchers.items()},
            lambda frame: parts.p2p.publish(Topic.MESSAGES, frame),
            Bringer(parts),
            self.traffic.hear,
        )

    def take(self, peer: bytes, frame: bytes) -> Verdict:
        """Take a frame of the topic of messages."""
        del peer
        reason = self._courier.take(frame)
        if reason is Reason.BAD_SIGNATURE:  # a signer of somebody else's, perhaps
            return Ignore(reason)
        return ACCEPT if reason is None else verdict_of(reason)

    async def run(self) -> None:
        """Serve until cancelled, or return at once if there is nothing to serve."""
        await self._courier.run()


def _known(chains: Sequence[ChainId], parts: Parts, where: str) -> None:
    """Refuse a bridge to where the network is not.

    Raises:
        ConfigError: a chain is not the network's.
    """
    unknown = sorted(set(chains) - set(parts.watchers))
    if unknown:
        raise ConfigError(
            f"[bridges] names chain {unknown[0]}, which the network does not have",
            where=where,
            remedy="leave its route out",
        )
