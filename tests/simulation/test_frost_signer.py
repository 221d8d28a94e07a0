"""Sealing by whole committees on virtual time: one round trip, loss, silence, lies, restarts."""

import dataclasses
import random
from collections.abc import Sequence

import coincurve
import pytest

from keeper.reasons import Reason
from p2p.frost import signer
from p2p.frost.messages import Nonces, Refusal, Seal, Share, SigningMessage, SignRequest
from p2p.frost.signer import Timing, seal_digest
from tests.support.frost_net import NETWORK, Net

ROOT = b"\x0a" * 32
SIZES = [(3, 4), (4, 5), (5, 7), (11, 16)]


def check_all_sealed(net: Net, views: Sequence[int], root: bytes = ROOT) -> None:
    for member in range(net.max_signers):
        if member in net.down:
            continue
        seals = net.sealed(member)
        assert sorted(seals) == sorted(views), f"member {member}, seed {net.seed}"
        for view, seal in seals.items():
            digest = seal_digest(NETWORK, 1, view, root)
            key = coincurve.PublicKeyXOnly(net.group.x_only)
            assert key.verify(seal.signature.bip340(), digest)


def shares_by_nonce(net: Net) -> None:
    """No published nonce ever gave two different shares."""
    asked: dict[tuple[int, int, int, int], SignRequest] = {}
    spent: dict[tuple[int, int, int], int] = {}
    for sender, receiver, message in net.sent:
        if isinstance(message, SignRequest):
            asked[receiver, sender, message.view, message.attempt] = message
        if isinstance(message, Share):
            request = asked[sender, receiver, message.view, message.attempt]
            own = [e for e in request.entries if e.commitments.identifier == sender + 1]
            key = (sender, own[0].handle.boot, own[0].handle.counter)
            assert spent.setdefault(key, message.z) == message.z


@pytest.mark.parametrize(("t", "n"), SIZES)
def test_a_seal_costs_one_round_trip(t: int, n: int) -> None:
    net = Net(t, n, through_bytes=True, delay=(0.05, 0.05))
    net.run(1.0)
    net.final(1, ROOT)
    net.run(1.101)
    assert 1 in net.sealed(net.leaders(1)[0])
    net.run(1.151)
    check_all_sealed(net, [1])
    requests = [m for _, _, m in net.sent if isinstance(m, SignRequest)]
    assert {m.attempt for m in requests} == {0}


def test_many_views_by_rotating_leaders() -> None:
    net = Net(5, 7)
    net.run(0.5)
    for view in range(1, 60):
        net.final(view, ROOT)
        net.run(net.now + 0.2)
    check_all_sealed(net, list(range(1, 60)))
    shares_by_nonce(net)


@pytest.mark.parametrize("seed", range(12))
def test_loss_delay_and_late_finality(seed: int) -> None:
    chance = random.Random(seed)

    def lossy(sender: int, receiver: int, message: SigningMessage) -> Sequence[SigningMessage]:
        return () if chance.random() < 0.2 else (message,) * chance.choice((1, 1, 2))

    net = Net(3, 4, seed=seed, filter=lossy, delay=(0.01, 0.4))
    net.run(0.5)
    for view in range(1, 6):
        for member in chance.sample(range(4), 4):
            net.final(view, ROOT, [member])
            net.run(net.now + 0.1)
    net.run(net.now + 120)
    for member in range(4):
        seals = net.sealed(member)
        lost = set(range(1, 6)) - set(seals)
        assert not lost, f"seed {seed}: member {member} lacks {lost}"
    shares_by_nonce(net)


@pytest.mark.parametrize(("t", "n"), SIZES)
def test_silent_members_up_to_n_minus_t(t: int, n: int) -> None:
    net = Net(t, n, down=set(range(n - t)))
    net.run(0.5)
    for view in range(1, 4):
        net.final(view, ROOT)
        net.run(net.now + 40)
    check_all_sealed(net, [1, 2, 3])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("t", "n"), [(3, 4), (5, 7), (11, 16)])
def test_attempts_are_bounded_with_silent_late_and_lying_signers(t: int, n: int, seed: int) -> None:
    chance = random.Random(seed)
    bad = chance.sample(range(1, n), n - t)
    sins = {member: chance.choice(("silent", "liar", "late", "refuser")) for member in bad}

    def wire(sender: int, receiver: int, message: SigningMessage) -> Sequence[SigningMessage]:
        sin = sins.get(sender)
        if not isinstance(message, Share) or sin is None:
            return (message,)
        if sin == "liar":
            return (dataclasses.replace(message, z=message.z ^ 1),)
        if sin == "refuser":
            return (Refusal(message.epoch, message.view, message.attempt, message.fresh),)
        return () if sin == "silent" else (message,)

    net = Net(t, n, seed=seed, filter=wire, timing=Timing(fallback_s=1000.0))
    net.run(0.5)
    net.slow = {member: 2.0 for member, sin in sins.items() if sin == "late"}
    net.final(n, ROOT)
    net.run(net.now + 60)
    check_all_sealed(net, [n])
    requests = [(r, m) for _, r, m in net.sent if isinstance(m, SignRequest)]
    assert len({m.attempt for _, m in requests}) <= n - t + 1
    blamed = {e.member for e in net.refusals(0) if e.reason is Reason.BAD_SHARE}
    assert blamed <= {member for member, sin in sins.items() if sin == "liar"}
    shares_by_nonce(net)


def test_a_liar_in_the_first_attempt_is_named_and_left_out() -> None:
    def lie(sender: int, receiver: int, message: SigningMessage) -> Sequence[SigningMessage]:
        if sender == 2 and isinstance(message, Share):
            return (dataclasses.replace(message, z=message.z ^ 1),)
        return (message,)

    net = Net(5, 7, filter=lie)
    net.run(0.5)
    net.final(1, ROOT)
    net.run(net.now + 1)
    check_all_sealed(net, [1])
    requests = [m for s, _, m in net.sent if s == 1 and isinstance(m, SignRequest)]
    assert {m.attempt for m in requests} == {0, 1}
    assert signer.Refused(2, Reason.BAD_SHARE) in net.refusals(1)
    assert len([e for e in net.refusals(1) if e.reason is Reason.BAD_SHARE]) == 1


def test_a_dead_leader_is_replaced_by_the_next() -> None:
    net = Net(3, 4, down={1})
    net.run(0.5)
    net.final(1, ROOT)
    net.run(net.now + 0.9)
    assert not net.sealed(0)
    net.run(net.now + 2.0)
    check_all_sealed(net, [1])


def test_a_restarted_signer_gives_no_share_for_earlier_nonces() -> None:
    net = Net(3, 4)
    net.run(0.5)
    net.boot(2, 2)
    net.final(1, ROOT)
    net.run(net.now + 10)
    check_all_sealed(net, [1])
    spent = [m for s, _, m in net.sent if s == 2 and isinstance(m, Share)]
    assert all(message.fresh.boot == 2 for message in spent)


def test_another_root_is_refused_and_named() -> None:
    def lie(sender: int, receiver: int, message: SigningMessage) -> Sequence[SigningMessage]:
        if sender == 1 and isinstance(message, SignRequest):
            return (dataclasses.replace(message, root=b"\x0b" * 32),)
        return (message,)

    net = Net(3, 4, filter=lie)
    net.run(0.5)
    net.final(1, ROOT)
    net.run(net.now + 10)
    check_all_sealed(net, [1])
    assert any(e.member == 1 and e.reason is Reason.OTHER_ROOT for e in net.refusals(2))


def test_a_lock_of_an_earlier_life_forbids_another_digest() -> None:
    net = Net(3, 4)
    net.locks[2, 1] = b"\x01" * 32
    net.boot(2, 2)
    net.run(0.5)
    net.final(1, ROOT)
    net.run(net.now + 10)
    assert not any(s == 2 and isinstance(m, Share) for s, _, m in net.sent)
    check_all_sealed(net, [1])


def test_forged_seal_and_stranger_are_refused() -> None:
    net = Net(3, 4)
    net.run(0.5)
    net.final(1, ROOT)
    net.run(net.now + 1)
    seal = net.sealed(0)[1]
    forged = Seal(1, 2, ROOT, seal.signature)
    assert net.signers[0].receive(1, forged) == (
        signer.Refused(1, Reason.BAD_SIGNATURE, "seal of view 2"),
    )
    assert net.signers[0].receive(9, forged)[0] == signer.Refused(9, Reason.NOT_A_MEMBER)
    other = dataclasses.replace(forged, epoch=2)
    assert net.signers[0].receive(1, other)[0] == signer.Refused(1, Reason.OTHER_EPOCH, "epoch 2")


def test_state_stays_bounded_under_a_flood() -> None:
    net = Net(3, 4)
    net.run(0.5)
    target = net.signers[0]
    request = next(m for _, _, m in _requests_of(net))
    for view in range(10, 400):
        target.receive(1, dataclasses.replace(request, view=view))
        target.receive(1, Nonces(1, 1, view * 100, ()))
    assert sum(len(held) for held in target._held.values()) <= signer.HELD
    for view in range(2, 300):
        net.final(view, ROOT, [0])
    assert len(target._views) <= signer.WINDOW + 1


def _requests_of(net: Net) -> list[tuple[int, int, SignRequest]]:
    net.final(1, ROOT)
    net.run(net.now + 1)
    return [(s, r, m) for s, r, m in net.sent if isinstance(m, SignRequest)]
