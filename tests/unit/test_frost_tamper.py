"""Every field of every signing message changed: the exact culprit is named, and nothing crashes."""

import dataclasses
import random
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest

from keeper.errors import RemoteFault
from keeper.reasons import Reason
from keeper.units import Instant
from p2p.frost import messages, signer
from p2p.frost.aggregate import Culprits, Signature, aggregate, verify, verify_share
from p2p.frost.dkg import Blame, Fault, Participant, Round1Package, verify_proof
from p2p.frost.group import ED25519_GROUP, SECP256K1_GROUP
from p2p.frost.keys import GroupKey, KeyShare
from p2p.frost.messages import (
    Nonces,
    Refusal,
    Seal,
    Share,
    SigningMessage,
    SignRequest,
    WantNonces,
)
from p2p.frost.nonces import NonceHandle
from p2p.frost.round1 import SigningNonces, generate_nonces, sorted_commitments
from p2p.frost.round2 import Session, SignatureShare, SigningPackage, sign
from p2p.frost.secret import Secret
from p2p.frost.suite import ED25519, SECP256K1, SUITES, TR, Identifier, Suite
from tests.support.frost import deal, seeded
from tests.support.frost_net import Net

ROOT = b"\x0a" * 32
NOW = Instant(1.0)


def net_with_a_request() -> tuple[Net, SignRequest]:
    """A network in which member 1 leads view 1, and what it asks member 2 for."""
    net = Net(3, 4)
    net.run(0.5)
    net.final(1, ROOT, [2])
    net.final(1, ROOT, [1])
    request = next(m for s, r, m in net.sent if isinstance(m, SignRequest) and r == 2)
    return net, request


def replies(effects: tuple[signer.Effect, ...]) -> list[SigningMessage]:
    return [effect.message for effect in effects if isinstance(effect, signer.Send)]


def with_entry(request: SignRequest, index: int, **changes: Any) -> SignRequest:
    entries = list(request.entries)
    entries[index] = dataclasses.replace(entries[index], **changes)
    return dataclasses.replace(request, entries=tuple(entries))


def own_entry(request: SignRequest) -> int:
    return [e.commitments.identifier for e in request.entries].index(Identifier(3))


def swap_points(request: SignRequest, index: int) -> SignRequest:
    held = request.entries[index].commitments
    swapped = dataclasses.replace(held, hiding=held.binding, binding=held.hiding)
    return with_entry(request, index, commitments=swapped)


REQUESTS: dict[str, tuple[Callable[[SignRequest], SignRequest], Reason | None]] = {
    "epoch": (lambda r: dataclasses.replace(r, epoch=2), Reason.OTHER_EPOCH),
    "root": (lambda r: dataclasses.replace(r, root=b"\x0b" * 32), Reason.OTHER_ROOT),
    "view not final": (lambda r: dataclasses.replace(r, view=3), None),
    "own boot": (
        lambda r: with_entry(r, own_entry(r), handle=NonceHandle(9, 0)),
        Reason.SPENT_NONCE,
    ),
    "own counter": (
        lambda r: with_entry(r, own_entry(r), handle=NonceHandle(1, 10**6)),
        Reason.SPENT_NONCE,
    ),
    "own points": (lambda r: swap_points(r, own_entry(r)), Reason.MALFORMED),
    "own entry missing": (
        lambda r: dataclasses.replace(
            r, entries=tuple(e for e in r.entries if e.commitments.identifier != 3)
        ),
        Reason.MALFORMED,
    ),
    "own entry twice": (
        lambda r: dataclasses.replace(r, entries=(*r.entries, r.entries[own_entry(r)])),
        Reason.MALFORMED,
    ),
    "too few": (
        lambda r: dataclasses.replace(r, entries=(r.entries[own_entry(r)],)),
        Reason.MALFORMED,
    ),
    "unsorted": (
        lambda r: dataclasses.replace(r, entries=r.entries[::-1]),
        Reason.MALFORMED,
    ),
    "duplicate identifier": (
        lambda r: dataclasses.replace(r, entries=(r.entries[0], *r.entries)),
        Reason.MALFORMED,
    ),
    "unknown identifier": (
        lambda r: dataclasses.replace(
            r,
            entries=(
                *r.entries,
                dataclasses.replace(
                    r.entries[0],
                    commitments=dataclasses.replace(
                        r.entries[0].commitments, identifier=Identifier(9)
                    ),
                ),
            ),
        ),
        Reason.MALFORMED,
    ),
}


@pytest.mark.parametrize("field", sorted(REQUESTS))
def test_a_changed_request_names_the_coordinator_and_gets_no_share(field: str) -> None:
    change, reason = REQUESTS[field]
    net, request = net_with_a_request()
    effects = net.signers[2].receive(1, change(request), NOW)
    assert not any(isinstance(message, Share) for message in replies(effects))
    refused = [effect for effect in effects if isinstance(effect, signer.Refused)]
    expected = [] if reason is None else [(1, reason)]
    assert [(effect.member, effect.reason) for effect in refused] == expected


def test_a_repeated_request_gets_the_same_share_and_a_changed_one_none() -> None:
    net, request = net_with_a_request()
    first = replies(net.signers[2].receive(1, request, NOW))
    again = replies(net.signers[2].receive(1, request, NOW))
    assert first == again
    assert isinstance(first[0], Share)
    other = dataclasses.replace(request, entries=request.entries[:-1])
    effects = net.signers[2].receive(1, other, NOW)
    assert effects == (signer.Refused(1, Reason.DUPLICATE, "attempt 0"),)
    spent = dataclasses.replace(request, attempt=1)
    effects = net.signers[2].receive(1, spent, NOW)
    assert signer.Refused(1, Reason.SPENT_NONCE) in effects
    assert not any(isinstance(message, Share) for message in replies(effects))


def test_a_nonce_is_promised_to_one_coordinator() -> None:
    net, request = net_with_a_request()
    effects = net.signers[2].receive(0, request, NOW)
    assert signer.Refused(0, Reason.SPENT_NONCE) in effects
    assert isinstance(replies(net.signers[2].receive(1, request, NOW))[0], Share)


def test_a_coordinator_cannot_ask_for_ever() -> None:
    net, request = net_with_a_request()
    for attempt in range(2):
        net.signers[2].receive(1, dataclasses.replace(request, attempt=attempt), NOW)
    effects = net.signers[2].receive(1, dataclasses.replace(request, attempt=2), NOW)
    assert effects == (signer.Refused(1, Reason.TOO_MANY_ATTEMPTS, "view 1"),)


def decoded_or_blamed(raw: bytes) -> SigningMessage | None:
    try:
        return messages.decode(TR, raw, "member 1")
    except RemoteFault as fault:
        blamed = fault.culprit, fault.reason
    assert blamed == ("member 1", Reason.MALFORMED)
    return None


def test_every_flipped_byte_of_every_message_is_survived() -> None:
    """Bytes that still decode may do no harm: no exception, and no share for another digest."""
    base, _ = net_with_a_request()
    base.final(1, ROOT, [0, 3])
    base.run(2.0)
    kinds: dict[type, SigningMessage] = {}
    for _, _, message in base.sent:
        kinds.setdefault(type(message), message)
    fresh = next(m for m in kinds.values() if isinstance(m, Nonces))
    kinds[Refusal] = Refusal(1, 1, 0, fresh)
    kinds[WantNonces] = WantNonces(1)
    assert set(kinds) == {Nonces, SignRequest, Share, Refusal, WantNonces, Seal}
    decoded = 0
    for sent in kinds.values():
        raw = messages.encode(TR, sent)
        assert messages.decode(TR, raw) == sent
        net, _ = net_with_a_request()
        for at in range(len(raw)):
            flipped = raw[:at] + bytes([raw[at] ^ (1 << at % 8)]) + raw[at + 1 :]
            altered = decoded_or_blamed(flipped)
            if altered is None:
                continue
            decoded += 1
            for effect in net.signers[2].receive(1, altered, NOW):
                if isinstance(effect, signer.PersistLock):
                    assert effect.digest == net.signers[2]._views[1].digest
                if isinstance(effect, signer.Refused):
                    assert effect.member == 1
                assert not isinstance(effect, signer.Sealed)
    assert decoded > 50


@pytest.mark.parametrize("raw", [b"", b"\x00", b"\x90", b"\x91\x01", b"\xc1" * 9, bytes(20_000)])
def test_junk_is_malformed_or_oversize(raw: bytes) -> None:
    with pytest.raises(RemoteFault) as caught:
        messages.decode(TR, raw)
    assert caught.value.reason in (Reason.MALFORMED, Reason.OVERSIZE)


def test_random_junk_never_crashes_the_decoder() -> None:
    chance = random.Random(1)
    for _ in range(2000):
        raw = bytes([0x90 | chance.randrange(16), 1, 32 + chance.randrange(8)])
        with pytest.raises(RemoteFault):
            messages.decode(TR, raw + chance.randbytes(chance.randrange(40)) + b"\xff")


# ---- the primitives


@pytest.mark.parametrize(
    "raw",
    [
        bytes(33),
        b"\x02" + bytes(32),
        b"\x04" + bytes(32),
        b"\x02" + SECP256K1_GROUP.field.to_bytes(32, "big"),
        b"\x02" + (5).to_bytes(32, "big"),
        b"\x02" * 32,
        b"",
    ],
)
def test_secp256k1_refuses_identity_and_off_curve_points(raw: bytes) -> None:
    with pytest.raises(ValueError):
        SECP256K1_GROUP.decode(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x01" + bytes(31),
        bytes(32),
        b"\xec" + b"\xff" * 30 + b"\x7f",
        b"\xed" + b"\xff" * 30 + b"\x7f",
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        b"\x02" + bytes(31),
        b"",
    ],
)
def test_ed25519_refuses_identity_small_order_and_off_curve_points(raw: bytes) -> None:
    with pytest.raises(ValueError):
        ED25519_GROUP.decode(raw)


@pytest.mark.parametrize("group", [SECP256K1_GROUP, ED25519_GROUP], ids=lambda g: g.name)
def test_scalars_must_be_canonical(group: Any) -> None:
    for number in (group.order, group.order + 1, 2**256 - 1):
        raw = number.to_bytes(32, "big" if group is SECP256K1_GROUP else "little")
        with pytest.raises(ValueError):
            group.decode_scalar(raw)
        with pytest.raises(ValueError):
            group.secret(raw)
    for raw in (bytes(31), bytes(33), b""):
        with pytest.raises(ValueError):
            group.decode_scalar(raw)
    with pytest.raises(ValueError):
        group.secret(bytes(32))
    one = group.base_public(1)
    refused: tuple[Callable[[], object], ...] = (
        lambda: group.base_public(0),
        lambda: group.multiply(one, 0),
        lambda: group.sum([one, group.negate(one)]),
        lambda: group.scale(group.secret(group.encode_scalar(3)), 0),
    )
    for broken in refused:
        with pytest.raises(ValueError):
            broken()


def test_both_groups_agree_on_their_arithmetic() -> None:
    for group in (SECP256K1_GROUP, ED25519_GROUP):
        a, b = (group.secret(group.encode_scalar(number)) for number in (11, group.order - 4))
        assert group.decode_scalar(group.multiply_add(a, b, 3).reveal()) == (11 - 12) % group.order
        assert group.decode_scalar(group.add(a, b).reveal()) == 7
        assert group.decode_scalar(group.negate_secret(a).reveal()) == group.order - 11
        value = group.polynomial([a, b, a], 2)
        assert group.decode_scalar(value.reveal()) == (11 - 8 + 44) % group.order
        point = group.base_point(a)
        assert point == group.multiply(group.base_public(1), 11)
        assert group.sum([point, group.base_point(b)]) == group.base_public(7)
        assert group.decode(point.raw) == point


# ---- sessions


def ready(
    t: int = 3, n: int = 5, suite: Suite = TR, seed: object = 0
) -> tuple[GroupKey, dict[Identifier, KeyShare], dict[Identifier, SigningNonces]]:
    group, shares = deal(t, n, suite, seed)
    nonces = {i: generate_nonces(share, seeded((seed, i))) for i, share in shares.items()}
    return group, shares, nonces


def session_of(
    group: GroupKey, nonces: dict[Identifier, SigningNonces], ids: tuple[int, ...]
) -> Session:
    held = sorted_commitments([nonces[Identifier(i)].commitments for i in ids])
    return Session(group, SigningPackage(b"m" * 32, held))


@pytest.mark.parametrize("name", sorted(SUITES))
def test_every_set_of_culprits_is_named_exactly(name: str) -> None:
    group, shares, nonces = ready(4, 5, SUITES[name])
    ids = (1, 2, 4, 5)
    session, order = session_of(group, nonces, ids), SUITES[name].group.order
    made = {Identifier(i): sign(session, shares[Identifier(i)], nonces[Identifier(i)]) for i in ids}
    for size in range(1, 5):
        for bad in combinations(ids, size):
            spoiled = {
                i: SignatureShare(i, (share.z + i) % order) if i in bad else share
                for i, share in made.items()
            }
            assert aggregate(session, spoiled) == Culprits(tuple(map(Identifier, bad)))
    signature = aggregate(session, made)
    assert isinstance(signature, Signature)
    assert verify(group, b"m" * 32, signature)
    assert not verify(group, b"n" * 32, signature)
    zero = {**made, Identifier(1): SignatureShare(Identifier(1), 0)}
    assert aggregate(session, zero) == Culprits((Identifier(1),))


def test_a_share_under_another_name_is_wrong() -> None:
    group, shares, nonces = ready()
    session = session_of(group, nonces, (1, 2, 3))
    share = sign(session, shares[Identifier(1)], nonces[Identifier(1)])
    assert verify_share(session, share)
    assert not verify_share(session, SignatureShare(Identifier(2), share.z))
    assert not verify_share(session, SignatureShare(Identifier(5), share.z))
    with pytest.raises(ValueError, match="other signers"):
        aggregate(session, {share.identifier: share})


def test_sessions_refuse_bad_lists() -> None:
    group, shares, nonces = ready()
    for ids in ((1, 2), (1, 1, 2), (1, 2, 3, 3)):
        with pytest.raises(ValueError):
            session_of(group, nonces, ids)
    stranger, strange_shares, strange_nonces = ready(3, 7, seed="other")
    with pytest.raises(ValueError, match="outside the group"):
        session_of(group, {**nonces, **strange_nonces}, (1, 2, 7))
    session = session_of(group, nonces, (1, 2, 3))
    with pytest.raises(ValueError, match="not in the session"):
        sign(session, shares[Identifier(4)], nonces[Identifier(4)])
    with pytest.raises(ValueError, match="another group"):
        sign(session, strange_shares[Identifier(1)], strange_nonces[Identifier(1)])
    other = generate_nonces(shares[Identifier(1)], seeded("other"))
    with pytest.raises(ValueError, match="not in the session"):
        sign(session, shares[Identifier(1)], other)
    assert stranger != group


def test_nonces_are_used_once() -> None:
    group, shares, nonces = ready()
    one = Identifier(1)
    sign(session_of(group, nonces, (1, 2, 3)), shares[one], nonces[one])
    for ids in ((1, 2, 3), (1, 2, 4)):
        with pytest.raises(ValueError, match="used before"):
            sign(session_of(group, nonces, ids), shares[one], nonces[one])


def test_a_signature_of_another_suite_is_not_valid() -> None:
    group, shares, nonces = ready(suite=SECP256K1)
    session = session_of(group, nonces, (1, 2, 3))
    made = {i: sign(session, shares[i], nonces[i]) for i in session.identifiers}
    signature = aggregate(session, made)
    assert isinstance(signature, Signature)
    other = dataclasses.replace(group, suite=TR)
    assert not verify(other, b"m" * 32, signature)
    with pytest.raises(ValueError, match="BIP340"):
        signature.bip340()
    assert signature.evm()[2] == signature.z
    edwards, shares, nonces = ready(suite=ED25519)
    session = session_of(edwards, nonces, (1, 2, 3))
    made = {i: sign(session, shares[i], nonces[i]) for i in session.identifiers}
    signature = aggregate(session, made)
    assert isinstance(signature, Signature)
    with pytest.raises(ValueError, match="EVM"):
        signature.evm()
    with pytest.raises(ValueError, match="x-only"):
        _ = edwards.x_only


# ---- key generation


def participants(suite: Suite = TR) -> dict[Identifier, Participant]:
    ids = [Identifier(i) for i in (1, 2, 3, 4)]
    return {i: Participant(suite, i, ids, 3, seeded(i)) for i in ids}


def others(packages: dict[Identifier, Round1Package], me: int) -> dict[Identifier, Round1Package]:
    return {i: package for i, package in packages.items() if i != me}


@pytest.mark.parametrize("name", sorted(SUITES))
def test_tampered_packages_name_their_author(name: str) -> None:
    suite = SUITES[name]
    group = suite.group
    crew = participants(suite)
    packages = {i: member.round1() for i, member in crew.items()}
    two, three = Identifier(2), Identifier(3)
    good = packages[two]
    proof = good.proof_of_knowledge
    shifted = group.sum([proof.nonce_point, group.base_public(1)])
    cases = {
        Fault.WRONG_LENGTH: [
            dataclasses.replace(good, commitment=(*good.commitment, good.commitment[0])),
            dataclasses.replace(good, commitment=good.commitment[:-1]),
        ],
        Fault.BAD_PROOF: [
            dataclasses.replace(
                good, proof_of_knowledge=dataclasses.replace(proof, z=(proof.z + 1) % group.order)
            ),
            dataclasses.replace(good, proof_of_knowledge=dataclasses.replace(proof, z=0)),
            dataclasses.replace(
                good, proof_of_knowledge=dataclasses.replace(proof, nonce_point=shifted)
            ),
            # a rogue key: another's constant term, with that proof replayed under this identifier
            dataclasses.replace(packages[three], identifier=two),
            dataclasses.replace(
                good, commitment=(packages[three].commitment[0], *good.commitment[1:])
            ),
        ],
        Fault.BAD_MESSAGE: [packages[three]],
    }
    for fault, variants in cases.items():
        for variant in variants:
            answer = crew[Identifier(1)].round2({**others(packages, 1), two: variant})
            assert answer == Blame(((two, fault),))
    absent = {i: package for i, package in packages.items() if i not in (1, 2)}
    assert crew[Identifier(1)].round2(absent) == Blame(((two, Fault.MISSING),))
    assert not verify_proof(suite, packages[three], b"another ceremony")


@pytest.mark.parametrize("name", sorted(SUITES))
def test_tampered_shares_name_their_dealer(name: str) -> None:
    suite = SUITES[name]
    crew = participants(suite)
    packages = {i: member.round1() for i, member in crew.items()}
    dealt = {i: member.round2(others(packages, i)) for i, member in crew.items()}
    me = Identifier(1)
    received: dict[Identifier, Secret] = {}
    for i, shares in dealt.items():
        assert isinstance(shares, dict)
        if i != me:
            received[i] = shares[me]
    one = suite.group.secret(suite.group.encode_scalar(1))
    for bad in combinations([Identifier(2), Identifier(3), Identifier(4)], 2):
        spoiled = {
            i: suite.group.add(share, one) if i in bad else share for i, share in received.items()
        }
        answer = crew[me].finalize(spoiled)
        assert answer == Blame(tuple((i, Fault.BAD_SHARE) for i in bad))
    absent = {i: share for i, share in received.items() if i != 3}
    assert crew[me].finalize(absent) == Blame(((Identifier(3), Fault.MISSING),))
    assert isinstance(crew[me].finalize(received), KeyShare)


def test_a_coefficient_that_cancels_all_others_does_not_crash() -> None:
    """The last dealer may aim at the identity; it cannot deal shares of such a polynomial."""
    crew = participants()
    packages = {i: member.round1() for i, member in crew.items()}
    group, last = TR.group, Identifier(4)
    rest = group.negate(group.sum([packages[Identifier(i)].commitment[1] for i in (1, 2, 3)]))
    kept = packages[last].commitment
    packages[last] = dataclasses.replace(packages[last], commitment=(kept[0], rest, kept[2]))
    me = crew[Identifier(1)]
    assert isinstance(me.round2(others(packages, 1)), dict)
    received: dict[Identifier, Secret] = {}
    for i in (2, 3):
        shares = crew[Identifier(i)].round2(others(packages, i))
        assert isinstance(shares, dict)
        received[Identifier(i)] = shares[Identifier(1)]
    received[last] = group.secret(group.encode_scalar(12345))
    assert me.finalize(received) == Blame(((last, Fault.BAD_SHARE),))
