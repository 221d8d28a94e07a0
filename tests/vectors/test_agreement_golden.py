"""The bytes of every message, of every signed hash, and of what goes on chain are pinned.

A change here is a new wire version, made with `pytest --update` in its own commit.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from keeper.hashing import keccak
from p2p.agreement.certificate import certificate_of, finality_arguments, verify_certificate
from p2p.agreement.evidence import Evidence, slash_arguments, verify_evidence
from p2p.agreement.signing import (
    Ecdsa,
    EcdsaSigner,
    observation_hash,
    recover,
    sign_observation,
    verify_observation,
    vote_hash,
)
from p2p.types import (
    NO_DIGEST,
    Certificate,
    Committee,
    Heartbeat,
    History,
    Kind,
    Member,
    Message,
    Need,
    Proposal,
    Sync,
    Vote,
)
from p2p.wire import body_hash, decode, digest_of, encode

Golden = Callable[[str, bytes], None]

SIGNERS = tuple(EcdsaSigner(keccak(b"golden %d" % i)) for i in range(4))
COMMITTEE = Committee(
    keccak(b"golden network"),
    3,
    tuple(Member(s.address, b"peer %d" % i) for i, s in enumerate(SIGNERS)),
    keccak(b"golden parameters"),
)
DIGEST = keccak(b"golden block")


def vote(kind: Kind, signer: int, digest: bytes = DIGEST, view: int = 9) -> Vote:
    signature = SIGNERS[signer].sign(vote_hash(COMMITTEE, kind, view, digest))
    return Vote(3, kind, view, digest, signer, signature)


def certificate(kind: Kind, digest: bytes = DIGEST, view: int = 9) -> Certificate:
    return certificate_of([vote(kind, signer, digest, view) for signer in (0, 1, 3)])


def proposal() -> Proposal:
    roots = (keccak(b"heads"), keccak(b"prices"), keccak(b"rest"))
    seen = tuple(sign_observation(COMMITTEE, s, 12, roots, b"body") for s in SIGNERS[:3])
    proofs = (certificate(Kind.NOTARIZE, view=7), certificate(Kind.NULLIFY, NO_DIGEST, view=8))
    draft = Proposal(
        3, 9, 7, DIGEST, 12, b"payload", keccak(b"root"), seen, proofs, 2, bytes(64)
    )  # fmt: skip
    return replace(draft, signature=vote(Kind.NOTARIZE, 2, digest_of(draft)).signature)


MESSAGES: dict[str, Message] = {
    "observation": proposal().observations[0],
    "vote_notarize": vote(Kind.NOTARIZE, 1),
    "vote_nullify": vote(Kind.NULLIFY, 1, NO_DIGEST),
    "vote_finalize": vote(Kind.FINALIZE, 1),
    "certificate_notarize": certificate(Kind.NOTARIZE),
    "certificate_nullify": certificate(Kind.NULLIFY, NO_DIGEST),
    "certificate_finalize": certificate(Kind.FINALIZE),
    "proposal": proposal(),
    "need": Need(9),
    "sync": Sync(1, 7),
    "history": History(
        (replace(proposal(), certificates=()),), certificate(Kind.FINALIZE, digest_of(proposal()))
    ),
    "heartbeat": Heartbeat(
        3,
        COMMITTEE.config,
        10,
        9,
        DIGEST,
        ((1, 19_000_000), (10, 120_000_000)),
        1,
        1_700_000_000_123,
    ),
}


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_message_bytes(name: str, golden: Golden) -> None:
    raw = encode(MESSAGES[name])
    golden(name, raw)
    assert decode(raw) == MESSAGES[name]


def test_hashes(golden: Golden) -> None:
    block = proposal()
    golden("hash_config", COMMITTEE.config)
    golden("hash_vote", vote_hash(COMMITTEE, Kind.NOTARIZE, 9, DIGEST))
    golden("hash_observation", observation_hash(COMMITTEE.network, block.observations[0]))
    golden("hash_body", body_hash(block.payload, block.observations))
    golden("hash_block", digest_of(block))


def test_a_vote_is_eip_712_as_wallets_know_it() -> None:
    data = {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "salt", "type": "bytes32"},
            ],
            "Vote": [
                {"name": "epoch", "type": "uint32"},
                {"name": "config", "type": "bytes32"},
                {"name": "kind", "type": "uint8"},
                {"name": "view", "type": "uint64"},
                {"name": "digest", "type": "bytes32"},
            ],
        },
        "primaryType": "Vote",
        "domain": {"name": "Flowkeeper", "version": "1", "salt": COMMITTEE.network},
        "message": {
            "epoch": 3,
            "config": COMMITTEE.config,
            "kind": 1,
            "view": 9,
            "digest": DIGEST,
        },
    }
    message = encode_typed_data(full_message=data)
    wallet = Account.from_key(keccak(b"golden 1")).sign_message(message)
    ours = vote(Kind.NOTARIZE, 1).signature
    vs = int.from_bytes(ours[32:], "big")
    assert (int.from_bytes(ours[:32], "big"), vs & ((1 << 255) - 1)) == (wallet.r, wallet.s)
    assert 27 + (vs >> 255) == wallet.v


def test_an_observation_is_eip_712_as_wallets_know_it() -> None:
    seen = proposal().observations[0]
    fields = (("epoch", "uint32"), ("config", "bytes32"), ("tick", "uint64"))
    roots = (("headsRoot", "bytes32"), ("pricesRoot", "bytes32"), ("restRoot", "bytes32"))
    message = encode_typed_data(
        domain_data={"name": "Flowkeeper", "version": "1", "salt": COMMITTEE.network},
        message_types={"Observation": [{"name": n, "type": t} for n, t in (*fields, *roots)]},
        message_data={
            "epoch": 3,
            "config": COMMITTEE.config,
            "tick": 12,
            "headsRoot": seen.heads_root,
            "pricesRoot": seen.prices_root,
            "restRoot": seen.rest_root,
        },
    )
    digest = keccak(b"\x19\x01" + message.header + message.body)
    assert digest == observation_hash(COMMITTEE.network, seen)
    assert verify_observation(COMMITTEE, Ecdsa(), seen)
    assert not verify_observation(COMMITTEE, Ecdsa(), replace(seen, tick=13))


def test_certificates_verify_with_real_signatures() -> None:
    proof = certificate(Kind.FINALIZE)
    assert verify_certificate(COMMITTEE, Ecdsa(), proof)
    of_block = certificate(Kind.FINALIZE, digest_of(proposal()))
    assert finality_arguments(proposal(), of_block)[7] == 0b1011
    with pytest.raises(ValueError, match="this very block"):
        finality_arguments(proposal(), proof)
    junk = (proof.signatures[0], proof.signatures[2], proof.signatures[1])
    assert not verify_certificate(COMMITTEE, Ecdsa(), replace(proof, signatures=junk))
    assert not verify_certificate(COMMITTEE, Ecdsa(), replace(proof, bitmap=0b0111))
    few = replace(proof, bitmap=0b11, signatures=proof.signatures[:2])
    assert not verify_certificate(COMMITTEE, Ecdsa(), few)
    assert not verify_certificate(COMMITTEE, Ecdsa(), replace(proof, view=10))
    assert not verify_certificate(COMMITTEE, Ecdsa(), replace(proof, bitmap=1 << 9 | 0b11))


def test_evidence_is_what_the_bonds_contract_takes() -> None:
    pair = Evidence(
        COMMITTEE.config, vote(Kind.NULLIFY, 2, NO_DIGEST), vote(Kind.FINALIZE, 2)
    )  # fmt: skip
    assert verify_evidence(COMMITTEE, Ecdsa(), pair)
    epoch, config, view, *words = slash_arguments(pair)
    assert (epoch, config, view) == (3, COMMITTEE.config, 9)
    assert [word[:2] for word in words] == [(2, NO_DIGEST), (3, DIGEST)]
    for kind, digest, (r, vs) in words:
        signed = vote_hash(COMMITTEE, Kind(kind), view, digest)
        assert recover(signed, r + vs) == SIGNERS[2].address
    other = replace(pair, second=vote(Kind.FINALIZE, 1))
    assert not verify_evidence(COMMITTEE, Ecdsa(), other)
    assert not verify_evidence(COMMITTEE, Ecdsa(), replace(pair, second=vote(Kind.NOTARIZE, 2)))
    forged = replace(pair, second=replace(vote(Kind.FINALIZE, 1), signer=2))
    assert not verify_evidence(COMMITTEE, Ecdsa(), forged)
    assert not verify_evidence(COMMITTEE, Ecdsa(), replace(pair, config=bytes(32)))


def test_high_s_and_other_lengths_are_refused() -> None:
    digest = vote_hash(COMMITTEE, Kind.NOTARIZE, 9, DIGEST)
    good = SIGNERS[0].sign(digest)
    assert recover(digest, good) == SIGNERS[0].address
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    packed = int.from_bytes(good[32:], "big")
    s, parity = packed & ((1 << 255) - 1), packed >> 255
    high = (order - s) | ((1 - parity) << 255)
    twin = good[:32] + (high & ((1 << 256) - 1)).to_bytes(32, "big")
    assert recover(digest, twin) != SIGNERS[0].address
    assert recover(digest, good[:63]) is None
    assert recover(digest, bytes(64)) is None
    assert recover(digest, b"\xff" * 64) is None
