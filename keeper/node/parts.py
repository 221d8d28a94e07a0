"""What a node has once it is started: the concrete parts that an epoch is composed of."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from keeper.execute.service import Executor
from keeper.keys import Keys
from keeper.metrics import Metrics
from keeper.network import NetworkSpec
from keeper.node.recorder import Recorder
from keeper.observe.service import Watcher
from keeper.parameters import Parameters
from keeper.snapshot.archive import Archive
from keeper.store import Store
from keeper.units import ChainId
from p2p.agreement.evidence import Evidence
from p2p.port import Network


@dataclass(frozen=True, slots=True)
class Parts:
    """The long-lived parts of one node.

    Args:
        home: the node's directory.
        network: the descriptor.
        parameters: what governance set.
        keys: this keeper's own keys.
        store: the database.
        archive: final snapshots.
        metrics: the instruments.
        p2p: the peer-to-peer network.
        watchers: one per chain.
        executor: sends transactions.
        bound_s: D, the time in which a message usually arrives.
        on_evidence: what to do with a proven equivocation.
        recorder: writes the record of the competition.
        record: opens where an epoch's inputs are recorded for `keeper replay`; None for nowhere.
        random_bytes: where nonces come from.
    """

    home: Path
    network: NetworkSpec
    parameters: Parameters
    keys: Keys
    store: Store
    archive: Archive
    metrics: Metrics
    p2p: Network
    watchers: Mapping[ChainId, Watcher]
    executor: Executor
    bound_s: float
    on_evidence: Callable[[Evidence], None]
    recorder: Recorder
    record: Callable[[int], BinaryIO] | None = None
    random_bytes: Callable[[int], bytes] = os.urandom
