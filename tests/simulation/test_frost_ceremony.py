"""Whole key generations: they end with one key, or with the name of who spoiled them."""

from collections.abc import Sequence

import pytest

from p2p.frost.aggregate import Signature, aggregate, verify
from p2p.frost.ceremony import Ceremony
from p2p.frost.dkg import Fault
from p2p.frost.keys import KeyShare
from p2p.frost.round1 import generate_nonces, sorted_commitments
from p2p.frost.round2 import Session, SigningPackage, sign
from p2p.frost.suite import SUITES
from p2p.frost.transcript import Kind, Recovery, Signed, pack, pack_package, unpack
from tests.support.frost import seeded
from tests.support.frost_ceremony import Ceremonies


def check_key_works(shares: Sequence[KeyShare]) -> None:
    group = shares[0].group
    assert all(share.group == group for share in shares)
    chosen = shares[-group.min_signers :]
    nonces = [generate_nonces(share, seeded(share.identifier)) for share in chosen]
    package = SigningPackage(b"m" * 32, sorted_commitments([n.commitments for n in nonces]))
    session = Session(group, package)
    made = [sign(session, share, n) for share, n in zip(chosen, nonces, strict=True)]
    signature = aggregate(session, {share.identifier: share for share in made})
    assert isinstance(signature, Signature)
    assert verify(group, b"m" * 32, signature)


@pytest.mark.parametrize("name", sorted(SUITES))
@pytest.mark.parametrize(("t", "n"), [(1, 1), (2, 2), (3, 4), (5, 7)])
def test_honest_members_get_one_key(t: int, n: int, name: str) -> None:
    net = Ceremonies(t, n, suite=SUITES[name]).run()
    check_key_works(net.shares())


def test_loss_and_repetition_do_not_matter() -> None:
    def lossy(net: Ceremonies, sender: int, receiver: int, word: Signed) -> Sequence[Signed]:
        return (word,) * net.chance.choice((0, 1, 1, 2))

    for seed in range(3):
        check_key_works(Ceremonies(3, 4, seed=seed, wire=lossy).run().shares())


def test_every_member_recovers_its_share_from_the_public_record() -> None:
    net = Ceremonies(3, 4).run()
    record = Recovery.decode(net.recovery().encode())
    for seed, share in zip(net.seeds, net.shares(), strict=True):
        recovered = record.open(seed)
        assert recovered.signing_share == share.signing_share
        assert recovered.group == share.group
    stranger = Ceremonies(3, 4, seed=9).seeds[0]
    with pytest.raises(ValueError, match="took no part"):
        record.open(stranger)


def test_a_forged_record_is_refused() -> None:
    net, other = Ceremonies(3, 4).run(), Ceremonies(3, 4, seed=0)
    record, other_record = net.recovery(), None
    other.members = [
        Ceremony(other.terms, seed, random_bytes=seeded(("again", i)))
        for i, seed in enumerate(other.seeds)
    ]
    other_record = other.run().recovery()
    mixed = Recovery(
        record.terms, record.hellos, other_record.commits, record.deals, record.confirms
    )
    with pytest.raises(ValueError, match="signature"):
        mixed.open(net.seeds[0])
    raw = record.encode()
    for index in range(0, len(raw), 97):
        damaged = raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :]
        with pytest.raises(ValueError):
            Recovery.decode(damaged).open(net.seeds[0])


def test_missing_members_are_named() -> None:
    net = Ceremonies(5, 7, down={2, 5}).run()
    for i in set(range(7)) - {2, 5}:
        assert net.outcomes[i].faults == ((2, Fault.MISSING), (5, Fault.MISSING))  # type: ignore[union-attr]  # a Completed would fail the test


@pytest.mark.parametrize("kind", [Kind.COMMIT, Kind.DEAL, Kind.CONFIRM])
def test_a_member_that_falls_silent_is_named(kind: Kind) -> None:
    def wire(net: Ceremonies, sender: int, receiver: int, word: Signed) -> Sequence[Signed]:
        return () if sender == 1 and word.kind >= kind else (word,)

    Ceremonies(3, 4, wire=wire).run().blamed(1, Fault.MISSING)


def test_another_configuration_is_named() -> None:
    net = Ceremonies(3, 4, others={3: b"\x02" * 32}).run()
    net.blamed(3, Fault.WRONG_CONFIG)


def altered(kind: Kind, change: object, only_to: int | None = None) -> object:
    """A wire on which member 1 signs something else in one step."""

    def wire(net: Ceremonies, sender: int, receiver: int, word: Signed) -> Sequence[Signed]:
        if sender != 1 or word.kind is not kind or only_to not in (None, receiver):
            return (word,)
        if forged.get(word.body) is None:
            body = change(net, word.body)  # type: ignore[operator]  # a test's function
            if body is None:
                return ()
            forged[word.body] = net.forge(1, word, body)
            forged[forged[word.body].body] = forged[word.body]
        net.liars = {1}
        if only_to is None:
            net.members[1]._words[kind, 1] = forged[word.body]
        return (forged[word.body],)

    forged: dict[bytes, Signed] = {}
    return wire


def flip(at: int) -> object:
    return lambda net, body: body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def raise_threshold(net: Ceremonies, body: bytes) -> bytes:
    points, proof = unpack(body)
    return pack([[*points, points[-1]], proof])


def lower_threshold(net: Ceremonies, body: bytes) -> bytes:
    points, proof = unpack(body)
    return pack([points[:-1], proof])


def rogue_key(net: Ceremonies, body: bytes) -> bytes | None:
    """Wait for somebody else's constant term, and claim it with their proof."""
    said = net.members[1]._words.get((Kind.COMMIT, 0))
    return said.body if said is not None else None


def other_proof(net: Ceremonies, body: bytes) -> bytes:
    points, proof = unpack(body)
    return pack([points, proof[:-1] + bytes([proof[-1] ^ 1])])


def identity_point(net: Ceremonies, body: bytes) -> bytes:
    points, proof = unpack(body)
    return pack([[points[0], bytes(33), *points[2:]], proof])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (raise_threshold, Fault.WRONG_LENGTH),
        (lower_threshold, Fault.WRONG_LENGTH),
        (rogue_key, Fault.BAD_PROOF),
        (other_proof, Fault.BAD_PROOF),
        (identity_point, Fault.BAD_MESSAGE),
        (lambda net, body: b"junk", Fault.BAD_MESSAGE),
        (lambda net, body: b"", Fault.BAD_MESSAGE),
    ],
)
def test_a_bad_commitment_is_named(change: object, fault: Fault) -> None:
    net = Ceremonies(3, 4, wire=altered(Kind.COMMIT, change))  # type: ignore[arg-type]  # a wire
    net.run().blamed(1, fault)


@pytest.mark.parametrize("only_to", [0, 2])
@pytest.mark.parametrize("kind", [Kind.COMMIT, Kind.DEAL])
def test_an_equivocating_member_is_named_by_all(kind: Kind, only_to: int) -> None:
    changes = {Kind.COMMIT: other_proof, Kind.DEAL: other_box}
    wire = altered(kind, changes[kind], only_to)
    net = Ceremonies(3, 4, wire=wire).run()  # type: ignore[arg-type]  # a wire
    honest = [net.outcomes[i] for i in (0, 2, 3)]
    for outcome in honest:
        named = [member for member, _ in outcome.faults]  # type: ignore[union-attr]  # a Completed would fail the test
        assert named == [1], f"{kind.name} to {only_to}: {honest}"


@pytest.mark.parametrize("only_to", [0, 2])
def test_a_false_confirm_to_one_member_does_not_part_it_from_the_others(only_to: int) -> None:
    wire = altered(Kind.CONFIRM, other_digest, only_to)
    check_key_works(Ceremonies(3, 4, wire=wire).run().shares())  # type: ignore[arg-type]  # a wire


def test_a_false_confirm_to_all_is_named() -> None:
    net = Ceremonies(3, 4, wire=altered(Kind.CONFIRM, other_digest))  # type: ignore[arg-type]  # a wire
    net.run().blamed(1, Fault.FALSE_CONFIRM)


def other_box(net: Ceremonies, body: bytes) -> bytes:
    held = unpack(body)
    return pack([box[:-1] + bytes([box[-1] ^ 1]) for box in held])


def other_digest(net: Ceremonies, body: bytes) -> bytes:
    held = unpack(body)
    return pack([bytes(32), *held[1:]])


def box_of_another_share(net: Ceremonies, body: bytes) -> bytes:
    held = unpack(body)
    return pack([held[0], held[2], held[1], *held[3:]])


@pytest.mark.parametrize("change", [other_box, box_of_another_share])
def test_a_dealer_of_bad_shares_is_named(change: object) -> None:
    net = Ceremonies(3, 4, wire=altered(Kind.DEAL, change))  # type: ignore[arg-type]  # a wire
    net.run().blamed(1)


def test_a_dealer_that_does_not_answer_a_complaint_is_named() -> None:
    lie = altered(Kind.DEAL, other_box)

    def wire(net: Ceremonies, sender: int, receiver: int, word: Signed) -> Sequence[Signed]:
        silent = sender == 1 and word.kind not in (Kind.HELLO, Kind.COMMIT, Kind.DEAL)
        return () if silent else lie(net, sender, receiver, word)  # type: ignore[operator]  # a wire

    Ceremonies(3, 4, wire=wire).run().blamed(1, Fault.BAD_SHARE)


def test_a_false_accuser_is_named() -> None:
    def wire(net: Ceremonies, sender: int, receiver: int, word: Signed) -> Sequence[Signed]:
        if sender == 1 and word.kind is Kind.CONFIRM:
            body = net.members[1]._copies(2)
            session = net.members[1]._session
            return (Signed.make(session, Kind.COMPLAINT, body, net.seeds[1]),)
        return (word,)

    Ceremonies(3, 4, wire=wire).run().blamed(1, Fault.FALSE_COMPLAINT)


def test_framing_with_forged_words_names_the_framer() -> None:
    def wire(net: Ceremonies, sender: int, receiver: int, word: Signed) -> Sequence[Signed]:
        if sender == 1 and word.kind is Kind.CONFIRM:
            shown = net.members[1]._words[Kind.COMMIT, 2]
            body = pack([2, 1, raise_threshold(net, shown.body), shown.signature])
            session = net.members[1]._session
            return (Signed.make(session, Kind.EXPOSE, body, net.seeds[1]),)
        return (word,)

    Ceremonies(3, 4, wire=wire).run().blamed(1, Fault.BAD_MESSAGE)


@pytest.mark.parametrize("kind", [Kind.HELLO, Kind.COMMIT, Kind.DEAL, Kind.CONFIRM])
def test_every_flipped_byte_of_a_signed_body_names_its_author_or_changes_nothing(
    kind: Kind,
) -> None:
    size = {Kind.HELLO: 69, Kind.COMMIT: 174, Kind.DEAL: 329, Kind.CONFIRM: 137}[kind]
    for at in range(0, size, 11):
        net = Ceremonies(3, 4, wire=altered(kind, flip(at)))  # type: ignore[arg-type]  # a wire
        if kind is Kind.HELLO:
            net.members[1]._session = bytes(32)
        net.run(60.0)
        for i in (0, 2, 3):
            outcome = net.outcomes[i]
            if hasattr(outcome, "faults"):
                assert [member for member, _ in outcome.faults] == [1], f"{kind.name} byte {at}"


def test_a_word_not_signed_by_its_sender_is_ignored() -> None:
    net = Ceremonies(3, 4)
    for member in net.members:
        member.start(0.0)  # type: ignore[arg-type]  # an Instant
    hello = net.members[2]._words[Kind.HELLO, 2]
    assert net.members[0].receive(1, hello) == ()
    assert net.members[0].receive(7, hello) == ()
    assert 1 in net.members[0].missing


# ---- reshare: the old key, dealt anew


def old_shares() -> list[KeyShare]:
    return Ceremonies(3, 4, seed=5).run().shares()


@pytest.mark.parametrize("dealers", [(0, 1, 2), (0, 1, 2, 3), (0, 2, 3)])
def test_a_reshare_keeps_the_key_and_serves_who_lost_its_share(dealers: tuple[int, ...]) -> None:
    old = old_shares()
    net = Ceremonies(3, 4, seed=6, old=old, dealers=dealers).run()
    new = net.shares()
    check_key_works(new)
    assert new[0].group.verifying_key == old[0].group.verifying_key
    for before, after in zip(old, new, strict=True):
        assert before.signing_share != after.signing_share
        with pytest.raises(ValueError, match="does not belong"):
            KeyShare(before.identifier, before.signing_share, after.group)
    record = Recovery.decode(net.recovery().encode())
    for seed, share in zip(net.seeds, new, strict=True):
        assert record.open(seed).signing_share == share.signing_share


def test_a_reshare_to_a_larger_committee() -> None:
    old = old_shares()
    net = Ceremonies(5, 7, seed=6, old=old, dealers=(0, 1, 3)).run()
    new = net.shares()
    check_key_works(new)
    assert new[6].group.min_signers == 5
    assert new[6].group.verifying_key == old[0].group.verifying_key


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (Kind.COMMIT, other_proof),
        (Kind.COMMIT, raise_threshold),
        (Kind.COMMIT, rogue_key),
        (Kind.DEAL, other_box),
        (Kind.DEAL, box_of_another_share),
    ],
)
def test_a_lying_dealer_of_a_reshare_is_named(kind: Kind, change: object) -> None:
    wire = altered(kind, change)
    net = Ceremonies(3, 4, seed=6, old=old_shares(), dealers=(0, 1, 2), wire=wire)  # type: ignore[arg-type]  # a wire
    net.run().blamed(1)


def test_a_dealer_of_another_share_is_named() -> None:
    """A member that deals a share it does not hold cannot open the old verifying share."""
    old = old_shares()
    strange = Ceremonies(3, 4, seed=7).run().shares()
    net = Ceremonies(3, 4, seed=6, old=old, dealers=(0, 1, 2))
    other = Ceremonies(3, 4, seed=6, old=strange, dealers=(0, 1, 2))
    package = pack_package(other.members[1]._new_participant().round1())

    def wire(_: Ceremonies, sender: int, receiver: int, word: Signed) -> Sequence[Signed]:
        if sender == 1 and word.kind is Kind.COMMIT:
            net.members[1]._words[Kind.COMMIT, 1] = net.forge(1, word, package)
            return (net.members[1]._words[Kind.COMMIT, 1],)
        return (word,)

    net.wire, net.liars = wire, {1}
    net.run().blamed(1, Fault.BAD_PROOF)


def test_a_silent_dealer_of_a_reshare_is_named() -> None:
    net = Ceremonies(3, 4, seed=6, old=old_shares(), dealers=(0, 1, 2), down={1})
    net.run().blamed(1, Fault.MISSING)


def test_too_few_dealers_are_refused() -> None:
    for dealers in ((0, 1), (0, 1, 9), (1, 0, 2), (0, 0, 1)):
        with pytest.raises(ValueError, match="deal"):
            Ceremonies(3, 4, seed=6, old=old_shares(), dealers=dealers)
    with pytest.raises(ValueError, match="seats of the old"):
        Ceremonies(3, 4, dealers=(0, 1, 2))
