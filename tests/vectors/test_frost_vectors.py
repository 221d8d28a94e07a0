"""Published vectors: RFC 9591, ZcashFoundation/frost (also taproot, DKG, repair), BIP340."""

import csv
import json
from pathlib import Path
from typing import Any

import coincurve
import pytest

from p2p.frost.aggregate import Signature, aggregate, verify, verify_share, verify_signature
from p2p.frost.dkg import Participant, Round1Package, verify_proof
from p2p.frost.group import SECP256K1_GROUP
from p2p.frost.keys import GroupKey, KeyShare, make_shares
from p2p.frost.round1 import SigningCommitments, SigningNonces, sorted_commitments
from p2p.frost.round2 import Session, SignatureShare, SigningPackage, sign
from p2p.frost.secret import Secret
from p2p.frost.suite import ED25519, SECP256K1, TR, Identifier, Suite
from tests.support.frost import seeded
from tests.support.shared import shared_path

SIGNING = [
    ("rfc-secp256k1", SECP256K1),
    ("rfc-ed25519", ED25519),
    ("secp256k1-vectors", SECP256K1),
    ("secp256k1-tr-vectors", TR),
    ("ed25519-vectors", ED25519),
]
PREFIXES = [("secp256k1", SECP256K1), ("secp256k1-tr", TR), ("ed25519", ED25519)]


def load(name: str) -> dict[str, Any]:
    path: Path = shared_path("vectors/frost") / f"{name}.json"
    return json.loads(path.read_text())  # type: ignore[no-any-return]  # a vector file


def group_of(suite: Suite, inputs: dict[str, Any]) -> tuple[GroupKey, dict[int, KeyShare]]:
    raw = inputs.get("group_public_key") or inputs.get("verifying_key_key")
    held = {
        int(item["identifier"]): bytes.fromhex(item["participant_share"])
        for item in inputs["participant_shares"]
    }
    group = suite.group
    secrets = {i: group.secret(share) for i, share in held.items()}
    public = make_shares((i, group.base_point(secret)) for i, secret in secrets.items())
    key = GroupKey(suite, 2, group.decode(bytes.fromhex(str(raw))), public)
    return key, {i: KeyShare(Identifier(i), secret, key) for i, secret in secrets.items()}


@pytest.mark.parametrize(("name", "suite"), SIGNING)
def test_signing(name: str, suite: Suite) -> None:
    vector = load(name)
    inputs, group = vector["inputs"], suite.group
    key, shares = group_of(suite, inputs)
    nonces: dict[int, SigningNonces] = {}
    for item in vector["round_one_outputs"]["outputs"]:
        i = int(item["identifier"])
        secret = shares[i].signing_share.reveal()
        hiding = suite.h3(bytes.fromhex(item["hiding_nonce_randomness"]) + secret)
        binding = suite.h3(bytes.fromhex(item["binding_nonce_randomness"]) + secret)
        assert hiding.reveal().hex() == item["hiding_nonce"]
        assert binding.reveal().hex() == item["binding_nonce"]
        points = group.base_point(hiding), group.base_point(binding)
        assert points[0].raw.hex() == item["hiding_nonce_commitment"]
        assert points[1].raw.hex() == item["binding_nonce_commitment"]
        nonces[i] = SigningNonces(hiding, binding, SigningCommitments(Identifier(i), *points))
    message = bytes.fromhex(inputs["message"])
    package = SigningPackage(message, sorted_commitments([n.commitments for n in nonces.values()]))
    session = Session(key, package)
    for item in vector["round_one_outputs"]["outputs"]:
        factor = session.binding_factors[Identifier(int(item["identifier"]))]
        assert group.encode_scalar(factor).hex() == item["binding_factor"]
        assert suite.h1(bytes.fromhex(item["binding_factor_input"])) == factor
    made: dict[Identifier, SignatureShare] = {}
    for item in vector["round_two_outputs"]["outputs"]:
        i = Identifier(int(item["identifier"]))
        made[i] = sign(session, shares[i], nonces[i])
        assert group.encode_scalar(made[i].z).hex() == item["sig_share"]
        assert verify_share(session, made[i])
    signature = aggregate(session, made)
    assert isinstance(signature, Signature)
    assert signature.encode().hex() == vector["final_output"]["sig"]
    assert verify(key, message, signature)
    assert Signature.decode(suite, bytes.fromhex(vector["final_output"]["sig"])) == signature


def test_shares_interpolate_to_the_vector_secret() -> None:
    for name, suite in SIGNING:
        inputs = load(name)["inputs"]
        group = suite.group
        secret = group.secret(bytes.fromhex(inputs["group_secret_key"]))
        coefficients = [
            group.secret(bytes.fromhex(c)) for c in inputs["share_polynomial_coefficients"]
        ]
        for item in inputs["participant_shares"]:
            share = group.polynomial([secret, *coefficients], int(item["identifier"]))
            assert share.reveal().hex() == item["participant_share"]


@pytest.mark.parametrize(("prefix", "suite"), PREFIXES)
def test_key_generation(prefix: str, suite: Suite) -> None:
    inputs = load(f"{prefix}-vectors_dkg")["inputs"]
    group = suite.group
    ids = [Identifier(1), Identifier(2), Identifier(3)]
    packages: dict[Identifier, Round1Package] = {}
    for i in ids:
        item = inputs[str(i)]
        proof = Signature.decode(suite, bytes.fromhex(item["proof_of_knowledge"]))
        points = tuple(group.decode(bytes.fromhex(c)) for c in item["vss_commitments"])
        packages[i] = Round1Package(i, points, proof)
        assert verify_proof(suite, packages[i])
    for i in ids:
        item = inputs[str(i)]
        if "signing_key" not in item or "coefficient" not in item:
            continue
        fixed = [group.secret(bytes.fromhex(item[k])) for k in ("signing_key", "coefficient")]
        mine = Participant(suite, i, ids, 2, seeded(i), coefficients=fixed)
        assert mine.round1().commitment == packages[i].commitment
        dealt = mine.round2({j: packages[j] for j in ids if j != i})
        assert isinstance(dealt, dict)
        received = {
            Identifier(int(j)): group.secret(bytes.fromhex(share))
            for j, share in item["signing_shares"].items()
        }
        share = mine.finalize(received)
        assert isinstance(share, KeyShare)
        assert share.signing_share.reveal().hex() == item["signing_share"]
        assert share.group.verifying_key.raw.hex() == inputs["verifying_key"]
        for j in ids:
            expected = inputs[str(j)].get("verifying_share")
            if expected:
                assert share.group.verifying_shares[j].raw.hex() == expected


@pytest.mark.parametrize(("prefix", "suite"), PREFIXES)
def test_elements_and_samples(prefix: str, suite: Suite) -> None:
    group = suite.group
    invalid = bytes.fromhex(load(f"{prefix}-elements")["elements"]["invalid_element"])
    with pytest.raises(ValueError):
        group.decode(invalid)
    sample = load(f"{prefix}-samples")
    assert group.decode_scalar(bytes.fromhex(sample["identifier"])) == 42
    assert group.base_public(1).raw.hex() == sample["element1"]
    assert group.base_public(2).raw.hex() == sample["element2"]
    scalar = bytes.fromhex(sample["scalar1"])
    assert group.encode_scalar(group.decode_scalar(scalar)) == scalar
    proof = bytes.fromhex(sample["proof_of_knowledge"])
    assert Signature.decode(suite, proof).encode() == proof


@pytest.mark.parametrize(("prefix", "suite"), PREFIXES)
def test_repair_sums(prefix: str, suite: Suite) -> None:
    vector, group = load(f"{prefix}-repair-share"), suite.group
    for part in vector.values():
        names = [name for name in part if not name.endswith("_sum")]
        total: Secret | None = None
        for name in names:
            item = group.secret(bytes.fromhex(part[name]))
            total = item if total is None else group.add(total, item)
        (expected,) = (value for name, value in part.items() if name.endswith("_sum"))
        assert total is not None
        assert total.reveal().hex() == expected


def rows() -> list[dict[str, str]]:
    with (shared_path("vectors") / "bip340.csv").open() as file:
        return list(csv.DictReader(file))


def test_bip340_verification() -> None:
    table = rows()
    assert len(table) >= 15
    for row in table:
        message, raw = bytes.fromhex(row["message"]), bytes.fromhex(row["signature"])
        try:
            key = SECP256K1_GROUP.decode(b"\x02" + bytes.fromhex(row["public key"]))
            accepted = verify_signature(TR, key, message, Signature.decode(TR, raw))
        except ValueError:
            accepted = False
        assert accepted == (row["verification result"] == "TRUE"), row


def test_bip340_signing_keys() -> None:
    for row in rows():
        if not row["secret key"]:
            continue
        secret = SECP256K1_GROUP.secret(bytes.fromhex(row["secret key"]))
        point = SECP256K1_GROUP.base_point(secret)
        assert point.raw[1:].hex().upper() == row["public key"]
        # coincurve's own BIP340 signature opens under our verifier
        aux, digest = bytes.fromhex(row["aux_rand"]), b"\x05" * 32
        signed = coincurve.PrivateKey(secret.reveal()).sign_schnorr(digest, aux)
        assert verify_signature(TR, point, digest, Signature.decode(TR, signed))
