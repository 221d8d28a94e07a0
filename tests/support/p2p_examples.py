"""One example of every message, for docs/protocol.md and the test that keeps it true."""

from keeper.hashing import keccak
from p2p.addresses import make_record, pack_records
from p2p.identity import peer_id_of
from p2p.links import MESSAGE, PING, frame
from p2p.service import Channel
from p2p.types import (
    Certificate,
    Heartbeat,
    History,
    Kind,
    Need,
    Proposal,
    SignedObservation,
    Sync,
    Vote,
)
from p2p.wire import encode

SEED = bytes(range(32))


def examples() -> dict[str, bytes]:
    """Return the bytes of one message of each kind, by name."""
    config, digest = keccak(b"config"), keccak(b"block")
    signature = bytes([7]) * 64
    seen = SignedObservation(
        1, config, 42, keccak(b"heads"), keccak(b"prices"), keccak(b"rest"), b"body", 2, signature
    )
    vote = Vote(1, Kind.NOTARIZE, 9, digest, 2, signature)
    final = Certificate(1, Kind.FINALIZE, 9, digest, 0b0111, (signature,) * 3)
    proposal = Proposal(
        1, 9, 8, keccak(b"parent"), 42, b"payload", keccak(b"root"), (seen,), (), 2, signature
    )
    record = make_record(
        SEED, peer_id_of(SEED), 1_700_000_000_000_000_000, ("/ip4/10.0.0.1/tcp/4001",)
    )
    return {
        "Ping": frame(PING, bytes(7) + b"\x01"),
        "Message on a link": frame(MESSAGE, bytes((Channel.AGREEMENT,)) + encode(Need(9))),
        "Observation": encode(seen),
        "Vote": encode(vote),
        "Certificate": encode(final),
        "Proposal": encode(proposal),
        "Need": encode(Need(9)),
        "Sync": encode(Sync(1, 8)),
        "History": encode(History((proposal,), final)),
        "Heartbeat": encode(
            Heartbeat(1, config, 10, 9, digest, ((1, 20), (10, 30)), 1, 1_700_000_000_000)
        ),
        "Addresses": pack_records([record]),
    }
