"""What a light client trusts, how that begins, and how it outlives the process.

    trusted root + bootstrap ─▶ from_bootstrap ─▶ TrustedState ─▶ LightClient ─▶ TrustedState
                                                       ▲                             │
                                                       └──── TrustBook (one row a chain) ◀┘

A restart goes on from the newest state that was kept, so the configured root may grow older than
the trusting period while the node runs; the kept state's own age is checked again by `LightClient`.
A row belongs to one trusted root: who configures another one starts anew. An equivocation is kept
as well: a chain that signed twice is not trusted again because the process was restarted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from keeper.observe.light_client.spec import BeaconSpec, need
from keeper.observe.light_client.ssz import (
    CURRENT_COMMITTEE_GINDEX,
    PUBKEY_SIZE,
    BadEncoding,
    Bootstrap,
    LightHeader,
    SyncCommittee,
    Update,
    branch_root,
    decode_header,
    decode_update,
    sha256,
)
from keeper.reasons import Reason
from keeper.store import Store
from keeper.units import ChainId


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two headers of one slot, each signed by two thirds of a committee."""

    first: Update
    second: Update


@dataclass(frozen=True, slots=True)
class TrustedState:
    """A header that is proven final, the committee of its period, and the next one if known."""

    finalized: LightHeader
    current: SyncCommittee
    next: SyncCommittee | None = None
    equivocation: Equivocation | None = None


def from_bootstrap(spec: BeaconSpec, trusted_root: bytes, bootstrap: Bootstrap) -> TrustedState:
    """Return the state at a block that the operator trusts.

    Args:
        spec: of the chain.
        trusted_root: beacon block root, from somebody the operator trusts.
        bootstrap: what a source says about it.

    Raises:
        Refused: the bootstrap is not that block's.
    """
    header, committee = bootstrap.header, bootstrap.committee
    need(
        header.beacon.root() == trusted_root,
        Reason.UNTRUSTED_ROOT,
        f"block {header.beacon.root().hex()}, trusted is {trusted_root.hex()}",
    )
    need(committee.size == spec.committee_size, Reason.WRONG_COMMITTEE, f"{committee.size} members")
    need(header.is_consistent(), Reason.BAD_PROOF, "execution header of the bootstrap")
    need(
        branch_root(committee.root, bootstrap.branch, CURRENT_COMMITTEE_GINDEX)
        == header.beacon.state_root,
        Reason.WRONG_COMMITTEE,
        "the bootstrap's committee is not the one in that block's state",
    )
    return TrustedState(header, committee)


_VERSION = 1
_TABLE = """CREATE TABLE light_client (
    chain INTEGER PRIMARY KEY, source BLOB NOT NULL, header BLOB NOT NULL, current BLOB NOT NULL,
    next BLOB NOT NULL, first BLOB NOT NULL, second BLOB NOT NULL)"""


class TrustBook:
    """Where one chain's trusted state is kept.

    Args:
        store: the node's database.
        chain: the execution chain's id.
        spec: of the beacon chain.
        trusted_root: what the operator trusts; a row under another root is not ours.
    """

    def __init__(self, store: Store, chain: ChainId, spec: BeaconSpec, trusted_root: bytes) -> None:
        self._store, self._chain, self._spec = store, chain, spec
        self._source = sha256(spec.genesis_validators_root + trusted_root)
        store.table("light_client", _VERSION, _TABLE)

    def keep(self, state: TrustedState) -> None:
        """Write the state. One that is lost with the power is proven again, so it need not wait."""
        found = state.equivocation
        with self._store.durable() if found else self._store.cached() as rows:
            rows.execute(
                "INSERT OR REPLACE INTO light_client VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    *(self._chain, self._source, state.finalized.encode(), state.current.raw),
                    b"" if state.next is None else state.next.raw,
                    *((found.first.encode(), found.second.encode()) if found else (b"", b"")),
                ),
            )

    def load(self) -> TrustedState | None:
        """Return what was kept under this root, or None where nothing was.

        Raises:
            BadEncoding: somebody changed the row.
        """
        found = self._store.read(
            "SELECT header, current, next, first, second FROM light_client"
            " WHERE chain = ? AND source = ?",
            (self._chain, self._source),
        )
        return self._state(found[0]) if found else None

    def _state(self, row: Sequence[bytes]) -> TrustedState:
        header, current, following, first, second = row
        finalized, size = decode_header(header), self._spec.committee_size
        wanted = PUBKEY_SIZE * (size + 1)
        if not finalized.is_consistent() or len(current) != wanted:
            raise BadEncoding("the kept state is no header with its committee")
        if following and len(following) != wanted:
            raise BadEncoding("the kept next committee has another size")
        return TrustedState(
            finalized,
            SyncCommittee(current),
            SyncCommittee(following) if following else None,
            Equivocation(decode_update(first, size), decode_update(second, size))
            if first
            else None,
        )
