"""Refresh, reshare and repair keep the key, make old shares worthless, and name who lies."""

from collections.abc import Mapping, Sequence

import pytest

from p2p.frost import reshare
from p2p.frost.aggregate import Culprits, Signature, aggregate, verify
from p2p.frost.dkg import Blame, Fault
from p2p.frost.keys import GroupKey, KeyShare
from p2p.frost.round1 import generate_nonces, sorted_commitments
from p2p.frost.round2 import Session, SigningPackage, sign
from p2p.frost.secret import Secret
from p2p.frost.suite import SUITES, TR, Identifier, Suite
from tests.support.frost import deal, seeded

ids = [Identifier(i) for i in range(1, 8)]


def signed(shares: Sequence[KeyShare], group: GroupKey) -> Signature | Culprits:
    nonces = [generate_nonces(share, seeded(share.identifier)) for share in shares]
    package = SigningPackage(b"m" * 32, sorted_commitments([n.commitments for n in nonces]))
    session = Session(group, package)
    return aggregate(
        session,
        {s.identifier: sign(session, s, n) for s, n in zip(shares, nonces, strict=True)},
    )


def check_signs(shares: Sequence[KeyShare], group: GroupKey) -> None:
    signature = signed(shares, group)
    assert isinstance(signature, Signature)
    assert verify(group, b"m" * 32, signature)


def reshared(
    t: int, n: int, new_t: int, new_n: int, suite: Suite = TR, dealers: int | None = None
) -> tuple[GroupKey, Mapping[Identifier, KeyShare], dict[Identifier, KeyShare]]:
    group, shares = deal(t, n, suite)
    chosen, receivers = ids[: dealers or t], ids[:new_n]
    dealings = {i: reshare.reshare(shares[i], chosen, receivers, new_t, seeded(i)) for i in chosen}
    made: dict[Identifier, KeyShare] = {}
    for j in receivers:
        result = reshare.accept_reshare(
            group,
            j,
            receivers,
            new_t,
            {i: dealing.commitment for i, dealing in dealings.items()},
            {i: dealing.shares[j] for i, dealing in dealings.items()},
        )
        assert isinstance(result, KeyShare)
        made[j] = result
    return group, shares, made


@pytest.mark.parametrize("name", sorted(SUITES))
@pytest.mark.parametrize(
    ("t", "n", "new_t", "new_n"), [(3, 4, 5, 7), (5, 7, 3, 4), (3, 4, 3, 4), (2, 3, 1, 2)]
)
def test_reshare_keeps_the_key(t: int, n: int, new_t: int, new_n: int, name: str) -> None:
    group, _, made = reshared(t, n, new_t, new_n, SUITES[name])
    new = made[Identifier(1)].group
    assert new.verifying_key == group.verifying_key
    assert (new.min_signers, new.max_signers) == (new_t, new_n)
    assert all(share.group == new for share in made.values())
    check_signs(list(made.values())[-new_t:], new)


def test_old_and_new_shares_do_not_mix() -> None:
    group, shares, made = reshared(3, 4, 3, 4)
    new = made[Identifier(1)].group
    with pytest.raises(ValueError, match="does not belong"):
        KeyShare(Identifier(1), shares[Identifier(1)].signing_share, new)
    assert shares[Identifier(1)].signing_share != made[Identifier(1)].signing_share
    result = signed([shares[ids[0]], made[ids[1]], made[ids[2]]], new)
    assert result == Culprits((Identifier(1),))
    assert group.verifying_key == new.verifying_key


def test_a_lying_dealer_of_a_reshare_is_named() -> None:
    group, shares = deal(3, 4)
    chosen, receivers = ids[:3], ids[:4]
    dealings = {i: reshare.reshare(shares[i], chosen, receivers, 3, seeded(i)) for i in chosen}
    commitments = {i: dealing.commitment for i, dealing in dealings.items()}
    received = {i: dealing.shares[ids[0]] for i, dealing in dealings.items()}

    def accept(
        points: Mapping[Identifier, Sequence[object]], secrets: Mapping[Identifier, Secret]
    ) -> KeyShare | Blame:
        return reshare.accept_reshare(group, ids[0], receivers, 3, points, secrets)  # type: ignore[arg-type]  # lies

    other = reshare.reshare(shares[ids[3]], [ids[0], ids[1], ids[3]], receivers, 3, seeded(9))
    lie = {**commitments, ids[1]: other.commitment}
    assert accept(lie, received) == Blame(((ids[1], Fault.BAD_PROOF),))
    longer = {**commitments, ids[1]: (*commitments[ids[1]], commitments[ids[1]][0])}
    assert accept(longer, received) == Blame(((ids[1], Fault.WRONG_LENGTH),))
    swapped = {**received, ids[2]: received[ids[1]]}
    assert accept(commitments, swapped) == Blame(((ids[2], Fault.BAD_SHARE),))
    absent = {i: secret for i, secret in received.items() if i != ids[1]}
    assert accept(commitments, absent) == Blame(((ids[1], Fault.MISSING),))
    with pytest.raises(ValueError, match="quorum of the old"):
        accept({ids[0]: commitments[ids[0]]}, received)


@pytest.mark.parametrize("name", sorted(SUITES))
def test_refresh_keeps_the_key_and_spoils_old_shares(name: str) -> None:
    group, shares = deal(3, 5, SUITES[name])
    dealings = {i: reshare.refresh(share, seeded(i)) for i, share in shares.items()}
    commitments = {i: dealing.commitment for i, dealing in dealings.items()}
    made: dict[Identifier, KeyShare] = {}
    for j, share in shares.items():
        received = {i: dealing.shares[j] for i, dealing in dealings.items()}
        result = reshare.accept_refresh(share, commitments, received)
        assert isinstance(result, KeyShare)
        made[j] = result
    new = made[ids[0]].group
    assert new.verifying_key == group.verifying_key
    check_signs([made[i] for i in ids[2:5]], new)
    assert signed([shares[ids[0]], made[ids[1]], made[ids[2]]], new) == Culprits((ids[0],))


def test_a_lying_dealer_of_a_refresh_is_named() -> None:
    _, shares = deal(3, 4)
    dealings = {i: reshare.refresh(share, seeded(i)) for i, share in shares.items()}
    commitments = {i: dealing.commitment for i, dealing in dealings.items()}
    received = {i: dealing.shares[ids[0]] for i, dealing in dealings.items()}
    me = shares[ids[0]]
    swapped = {**received, ids[2]: received[ids[1]]}
    assert reshare.accept_refresh(me, commitments, swapped) == Blame(((ids[2], Fault.BAD_SHARE),))
    longer = {**commitments, ids[3]: (*commitments[ids[3]], commitments[ids[3]][0])}
    assert reshare.accept_refresh(me, longer, received) == Blame(((ids[3], Fault.WRONG_LENGTH),))
    absent = {i: points for i, points in commitments.items() if i != ids[1]}
    assert reshare.accept_refresh(me, absent, received) == Blame(((ids[1], Fault.MISSING),))


def repair_of(suite: Suite, lie: str = "") -> KeyShare | Blame:
    group, shares = deal(3, 5, suite)
    helpers, lost = [ids[0], ids[2], ids[4]], ids[1]
    split = {i: reshare.repair_split(shares[i], helpers, lost, seeded(i)) for i in helpers}
    packages = {i: package for i, (package, _) in split.items()}
    parts = {i: {j: split[j][1][i] for j in helpers} for i in helpers}
    if lie == "part":
        parts[ids[0]][ids[2]] = parts[ids[0]][ids[4]]
    if lie == "points":
        packages[ids[2]] = packages[ids[4]]
    sums: dict[Identifier, Secret] = {}
    for i in helpers:
        result = reshare.repair_sum(group, i, lost, packages, parts[i])
        if isinstance(result, Blame):
            return result
        sums[i] = result
    if lie == "sum":
        sums[ids[4]] = sums[ids[0]]
    if lie == "silent":
        del sums[ids[4]]
    repaired = reshare.repair_finish(group, lost, packages, sums)
    if isinstance(repaired, KeyShare):
        assert repaired.signing_share == shares[lost].signing_share
    return repaired


@pytest.mark.parametrize("name", sorted(SUITES))
def test_repair_gives_the_lost_share_back(name: str) -> None:
    assert isinstance(repair_of(SUITES[name]), KeyShare)


def test_a_lying_helper_is_named() -> None:
    assert repair_of(TR, "part") == Blame(((ids[2], Fault.BAD_SHARE),))
    assert repair_of(TR, "sum") == Blame(((ids[4], Fault.BAD_SHARE),))
    assert repair_of(TR, "silent") == Blame(((ids[4], Fault.MISSING),))
    named = repair_of(TR, "points")
    assert isinstance(named, Blame)
    assert {i for i, _ in named.faults} == {ids[2]}
