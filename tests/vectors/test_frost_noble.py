"""The same bytes as another implementation: @noble/curves, session by session, and mixed crews."""

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from p2p.frost.aggregate import Signature, aggregate
from p2p.frost.dkg import Participant, Round1Package
from p2p.frost.keys import KeyShare
from p2p.frost.round1 import SigningCommitments, SigningNonces, sorted_commitments
from p2p.frost.round2 import Session, SignatureShare, SigningPackage, sign
from p2p.frost.secret import Secret
from p2p.frost.suite import SUITES, TR, Identifier, Suite
from tests.support.frost import deal, seeded
from tests.support.frost_noble import Noble

pytestmark = pytest.mark.npm

SESSIONS = 200


@pytest.fixture(scope="module")
def noble() -> Iterator[Noble]:
    process = Noble("_frost_noble_check.mjs")
    yield process
    process.close()


def one_session(noble: Noble, suite: Suite, seed: int) -> tuple[bool, bool]:
    """Compare one session; return whether key and nonce point were even."""
    chance = random.Random(f"{suite.name} {seed}")
    t, n = (5, 7) if seed % 50 == 0 else (3, 4) if seed % 10 == 0 else (2, 2 + seed % 2)
    numbers = sorted(chance.sample(range(1, 2**16), n)) if seed % 4 == 0 else list(range(1, n + 1))
    group = suite.group
    key, shares = deal(t, n, suite, (seed, suite.name), identifiers=numbers)
    signers = sorted(chance.sample(numbers, n if seed % 20 == 0 else t))
    message = chance.randbytes(chance.choice((0, 1, 32, 32, 77)))

    def named(number: int) -> str:
        return group.encode_scalar(number).hex()

    draw = seeded((seed, suite.name, "nonces"))
    made: dict[Identifier, SigningNonces] = {}
    told: dict[str, list[str]] = {}
    for number in signers:
        i = Identifier(number)
        secret = shares[i].signing_share.reveal()
        pair = suite.h3(draw(32) + secret), suite.h3(draw(32) + secret)
        points = group.base_point(pair[0]), group.base_point(pair[1])
        made[i] = SigningNonces(*pair, SigningCommitments(i, *points))
        told[named(i)] = [item.hex() for item in (secret, pair[0].reveal(), pair[1].reveal())]
    commitments = sorted_commitments([nonces.commitments for nonces in made.values()])
    session = Session(key, SigningPackage(message, commitments))
    zs: dict[Identifier, SignatureShare] = {i: sign(session, shares[i], made[i]) for i in made}
    signature = aggregate(session, zs)
    assert isinstance(signature, Signature)
    mine = {named(i): group.encode_scalar(share.z).hex() for i, share in zs.items()}
    answer = noble.ask(
        "session",
        suite=suite.name,
        min=t,
        max=n,
        key=key.verifying_key.raw.hex(),
        verifying={named(i): point.raw.hex() for i, point in key.verifying_shares.items()},
        commitments=[
            [named(c.identifier), c.hiding.raw.hex(), c.binding.raw.hex()] for c in commitments
        ],
        check=seed % 10 == 0,
        signers=told,
        shares=mine,
        message=message.hex(),
    )
    assert answer == {
        "shares": mine,
        "signature": signature.encode().hex(),
        "accepts": True,
        "plain": True,
    }, f"{suite.name} seed {seed}"
    return key.verifying_key.raw[0] == 2, session.group_commitment.raw[0] == 2


@pytest.mark.parametrize("name", sorted(SUITES))
def test_every_share_and_signature_is_the_same(noble: Noble, name: str) -> None:
    parities = Counter(one_session(noble, SUITES[name], seed) for seed in range(SESSIONS))
    if SUITES[name] is TR:
        assert len(parities) == 4, parities
        assert min(parities.values()) >= 20, parities


@pytest.mark.parametrize("round_number", range(2))
@pytest.mark.parametrize("name", sorted(SUITES))
def test_a_mixed_crew_generates_one_key(noble: Noble, name: str, round_number: int) -> None:
    suite, group = SUITES[name], SUITES[name].group
    ids = [Identifier(i) for i in range(1, 6)]
    ours, theirs = (ids[:2], ids[2:]) if round_number == 0 else (ids[:4], ids[4:])
    crew = {i: Participant(suite, i, ids, 3, seeded((name, round_number, i))) for i in ours}

    def named(i: int) -> str:
        return group.encode_scalar(i).hex()

    said = {
        named(i): [
            [point.raw.hex() for point in member.round1().commitment],
            member.round1().proof_of_knowledge.encode().hex(),
        ]
        for i, member in crew.items()
    }
    packages = {i: member.round1() for i, member in crew.items()}
    for identifier, (points, proof) in noble.ask(
        "round1", suite=name, min=3, max=5, numbers=theirs
    ).items():
        i = Identifier(group.decode_scalar(bytes.fromhex(identifier)))
        commitment = tuple(group.decode(bytes.fromhex(point)) for point in points)
        packages[i] = Round1Package(i, commitment, Signature.decode(suite, bytes.fromhex(proof)))
    dealt: dict[Identifier, dict[Identifier, Secret]] = {}
    for i, member in crew.items():
        shares = member.round2({j: package for j, package in packages.items() if j != i})
        assert isinstance(shares, dict)
        dealt[i] = shares
    received = noble.ask("round2", suite=name, packages=said)
    key = None
    for i, member in crew.items():
        shares = {j: dealt[j][i] for j in ours if j != i}
        shares |= {j: group.secret(bytes.fromhex(received[named(j)][named(i)])) for j in theirs}
        key_share = member.finalize(shares)
        assert isinstance(key_share, KeyShare)
        assert key in (None, key_share.group)
        key = key_share.group
    assert key is not None
    to_them = {named(j): {named(i): dealt[i][j].reveal().hex() for i in ours} for j in theirs}
    results = noble.ask("round3", suite=name, packages=said, shares=to_them)
    for j in theirs:
        result = results[named(j)]
        assert result["key"] == key.verifying_key.raw.hex()
        expected = {named(i): point.raw.hex() for i, point in key.verifying_shares.items()}
        assert result["verifying"] == expected
        KeyShare(j, group.secret(bytes.fromhex(result["share"])), key)
