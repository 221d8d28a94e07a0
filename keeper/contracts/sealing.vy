# pragma version 0.4.3
# pragma evm-version prague
"""
@title sealing
@license Apache-2.0
@notice Is a root sealed? Asked by every contract that consumes leaves.
@dev A module. A seal goes straight to the committee, which saves a call; a seal with s = 0 asks
    Snapshots for the root it keeps.
"""
from keeper.contracts import ICommittee
from keeper.contracts import ISnapshots
from keeper.contracts import proofs

SNAPSHOTS: immutable(ISnapshots)
COMMITTEE: immutable(ICommittee)
NETWORK: immutable(bytes32)


@deploy
def __init__(snapshots: address):
    SNAPSHOTS = ISnapshots(snapshots)
    COMMITTEE = ICommittee(staticcall SNAPSHOTS.committee())
    NETWORK = staticcall SNAPSHOTS.network()


@internal
@view
def _require(seal: proofs.Seal):
    if seal.s == 0:
        assert staticcall SNAPSHOTS.check(seal), "seal: not kept"
    else:
        assert staticcall COMMITTEE.verify_seal(
            seal.epoch, seal.view, seal.root, seal.rx, seal.ry, seal.s
        ), "seal: not valid"
