"""Within an epoch: new shares of the same key; a change of committee is a new key, never this.

    refresh   all members deal polynomials with f(0) = 0: old shares become worthless
    reshare   t old members deal polynomials with f(0) = λ_i·s_i to any new set and threshold
              (Desmedt–Jajodia, Wong–Wing): replaces a dead keeper
    repair    t helpers give one member its lost share back, and learn nothing (RTS, ZF
              `keys::repairable`)

The group key never changes, so unbonded members who keep old shares of a *reshared* key could sign
for ever: what leaves the committee must take its key along. Every dealt value is committed to, so
each check names who lied; the caller encrypts and authenticates, as for the key generation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from p2p.frost import polynomial
from p2p.frost.aggregate import Signature
from p2p.frost.dkg import Blame, Fault, Round1Package, prove, share_fits, verify_proof
from p2p.frost.group import Element, RandomBytes, random_secret
from p2p.frost.keys import GroupKey, KeyShare, lagrange, make_shares
from p2p.frost.secret import Secret
from p2p.frost.suite import Identifier


@dataclass(frozen=True, slots=True)
class Dealing:
    """What one dealer hands out: a public commitment, and a secret share per receiver."""

    dealer: Identifier
    commitment: tuple[Element, ...]
    shares: Mapping[Identifier, Secret] = field(repr=False)


# ---- reshare


def reshare(
    share: KeyShare,
    dealers: Sequence[Identifier],
    receivers: Sequence[Identifier],
    min_signers: int,
    random_bytes: RandomBytes,
) -> Dealing:
    """Deal this member's weighted share anew; `dealers` are the old members who all do so."""
    group = share.group.suite.group
    weight = lagrange(share.identifier, dealers, group.order)
    coefficients = [group.scale(share.signing_share, weight)]
    coefficients += [random_secret(group, random_bytes) for _ in range(min_signers - 1)]
    return _deal(share, coefficients, receivers)


def accept_reshare(
    old: GroupKey,
    identifier: Identifier,
    receivers: Sequence[Identifier],
    min_signers: int,
    commitments: Mapping[Identifier, Sequence[Element]],
    shares: Mapping[Identifier, Secret],
) -> KeyShare | Blame:
    """Return this receiver's share of the old key, or who dealt wrongly.

    `commitments` are of exactly the dealers that were agreed on, at least `old.min_signers`;
    `shares` are what each of them dealt to `identifier`.

    Raises:
        ValueError: the dealers are too few, or strangers.
    """
    dealers = sorted(commitments)
    if len(dealers) < old.min_signers or not set(dealers) <= set(old.verifying_shares):
        raise ValueError("dealers must be a quorum of the old members")
    group, faults = old.suite.group, []
    for i in dealers:
        weight = lagrange(i, dealers, group.order)
        if len(commitments[i]) != min_signers:
            faults.append((i, Fault.WRONG_LENGTH))
        elif commitments[i][0] != group.multiply(old.verifying_shares[i], weight):
            faults.append((i, Fault.BAD_PROOF))
    if faults:
        return Blame(tuple(faults))
    secret = _sum_checked(old, identifier, commitments, shares)
    if isinstance(secret, Blame):
        return secret
    total = polynomial.add_all(group, [commitments[i] for i in dealers])
    public = {i: polynomial.evaluate(group, total, i) for i in receivers}
    key = GroupKey(old.suite, min_signers, old.verifying_key, _present(public))
    return KeyShare(identifier, secret, key)


class Reshaper:
    """One member's side of a reshare, with the steps of `p2p.frost.dkg.Participant`.

    A dealer holds an old share; any other receiver only checks and takes. Identifiers keep their
    meaning: seat i of the old set is seat i of the new one.
    """

    def __init__(
        self,
        old: GroupKey,
        share: KeyShare | None,
        identifier: Identifier,
        dealers: Sequence[Identifier],
        receivers: Sequence[Identifier],
        min_signers: int,
        random_bytes: RandomBytes,
        context: bytes,
    ) -> None:
        self._old, self._random_bytes, self._context = old, random_bytes, context
        self.identifier, self._receivers = identifier, tuple(receivers)
        self._dealers, self._min_signers = tuple(dealers), min_signers
        self._commitments: dict[Identifier, tuple[Element, ...]] = {}
        self._dealing: Dealing | None = None
        self._proof: Signature | None = None
        if identifier in self._dealers:
            if share is None or share.group != old or share.identifier != identifier:
                raise ValueError("a dealer needs its share of the old key")
            group = old.suite.group
            self._dealing = reshare(share, dealers, receivers, min_signers, random_bytes)
            weight = lagrange(identifier, dealers, group.order)
            constant = group.scale(share.signing_share, weight)
            public = self._dealing.commitment[0]
            self._proof = prove(old.suite, identifier, constant, public, random_bytes, context)

    def round1(self) -> Round1Package:
        """Return a dealer's package."""
        assert self._dealing is not None
        assert self._proof is not None
        return Round1Package(self.identifier, self._dealing.commitment, self._proof)

    def round2(
        self, packages: Mapping[Identifier, Round1Package]
    ) -> dict[Identifier, Secret] | Blame:
        """Check every dealer's package; return the shares to deal, none from a mere receiver."""
        group, faults = self._old.suite.group, []
        for i in self._dealers:
            package = packages.get(i)
            if package is None:
                faults.append((i, Fault.MISSING))
                continue
            weight = lagrange(i, self._dealers, group.order)
            expected = group.multiply(self._old.verifying_shares[i], weight)
            if len(package.commitment) != self._min_signers:
                faults.append((i, Fault.WRONG_LENGTH))
            elif package.commitment[0] != expected or not verify_proof(
                self._old.suite, package, self._context
            ):
                faults.append((i, Fault.BAD_PROOF))
            self._commitments[i] = package.commitment
        if faults:
            return Blame(tuple(faults))
        if self._dealing is None:
            return {}
        shares = self._dealing.shares.items()
        return {i: Secret(share.buffer) for i, share in shares if i != self.identifier}

    def own_share(self) -> Secret:
        """Return what a dealer deals to itself."""
        assert self._dealing is not None
        return Secret(self._dealing.shares[self.identifier].buffer)

    def finalize(self, shares: Mapping[Identifier, Secret]) -> KeyShare | Blame:
        """Return the new share of the old key, or who dealt wrongly."""
        return accept_reshare(
            self._old,
            self.identifier,
            self._receivers,
            self._min_signers,
            self._commitments,
            shares,
        )

    def wipe(self) -> None:
        """Destroy what was dealt."""
        if self._dealing is not None:
            for share in self._dealing.shares.values():
                share.wipe()

    def __repr__(self) -> str:
        return f"Reshaper({self.identifier}, hidden)"

    def __reduce_ex__(self, protocol: object) -> str:
        raise TypeError("a reshaper is never pickled or copied")


# ---- refresh


def refresh(share: KeyShare, random_bytes: RandomBytes) -> Dealing:
    """Deal a polynomial with f(0) = 0 to all members; its commitment leaves the zero out."""
    group = share.group.suite.group
    tail = [random_secret(group, random_bytes) for _ in range(share.group.min_signers - 1)]
    if not tail:
        raise ValueError("a share that signs alone cannot be refreshed")
    shares = {i: group.scale(group.polynomial(tail, i), i) for i in share.group.identifiers}
    return Dealing(share.identifier, tuple(group.base_point(a) for a in tail), shares)


def accept_refresh(
    share: KeyShare,
    commitments: Mapping[Identifier, Sequence[Element]],
    shares: Mapping[Identifier, Secret],
) -> KeyShare | Blame:
    """Return the refreshed share; all members must deal. The old one should be wiped then.

    `commitments` are of every member, `shares` what each of them dealt to this one.
    """
    old, group = share.group, share.group.suite.group
    missing = [i for i in old.identifiers if i not in commitments or i not in shares]
    if missing:
        return Blame(tuple((i, Fault.MISSING) for i in missing))
    wrong = [i for i in old.identifiers if len(commitments[i]) != old.min_signers - 1]
    if wrong:
        return Blame(tuple((i, Fault.WRONG_LENGTH) for i in wrong))
    padded = {i: (None, *commitments[i]) for i in old.identifiers}
    added = _sum_checked(old, share.identifier, padded, shares)
    if isinstance(added, Blame):
        return added
    total = polynomial.add_all(group, [padded[i] for i in old.identifiers])
    public = {
        i: polynomial.add(group, (old.verifying_shares[i], polynomial.evaluate(group, total, i)))
        for i in old.identifiers
    }
    key = GroupKey(old.suite, old.min_signers, old.verifying_key, _present(public))
    return KeyShare(share.identifier, group.add(share.signing_share, added), key)


def _deal(
    share: KeyShare, coefficients: Sequence[Secret], receivers: Sequence[Identifier]
) -> Dealing:
    group = share.group.suite.group
    commitment = tuple(group.base_point(coefficient) for coefficient in coefficients)
    return Dealing(
        share.identifier, commitment, {i: group.polynomial(coefficients, i) for i in receivers}
    )


def _sum_checked(
    old: GroupKey,
    identifier: Identifier,
    commitments: Mapping[Identifier, polynomial.Commitment],
    shares: Mapping[Identifier, Secret],
) -> Secret | Blame:
    """Return the sum of the dealt shares, each checked against its commitment."""
    group, faults = old.suite.group, []
    total: Secret | None = None
    for i in sorted(commitments):
        if i not in shares:
            faults.append((i, Fault.MISSING))
        elif not share_fits(old.suite, commitments[i], identifier, shares[i]):
            faults.append((i, Fault.BAD_SHARE))
        else:
            total = shares[i] if total is None else group.add(total, shares[i])
    if faults or total is None:
        return Blame(tuple(faults))
    return total


def _present(public: Mapping[Identifier, Element | None]) -> dict[Identifier, Element]:
    return make_shares((i, element) for i, element in public.items() if element is not None)


# ---- repair


@dataclass(frozen=True, slots=True)
class RepairPackage:
    """How a helper split λ_i(lost)·s_i: one public point per helper."""

    helper: Identifier
    points: Mapping[Identifier, Element]


def repair_split(
    share: KeyShare,
    helpers: Sequence[Identifier],
    lost: Identifier,
    random_bytes: RandomBytes,
) -> tuple[RepairPackage, dict[Identifier, Secret]]:
    """Split this helper's contribution; return what to publish, and a secret for each helper."""
    group = share.group.suite.group
    weight = lagrange(share.identifier, helpers, group.order, at=lost)
    rest = group.scale(share.signing_share, weight)
    parts: dict[Identifier, Secret] = {}
    for helper in helpers[:-1]:
        parts[helper] = random_secret(group, random_bytes)
        rest = group.add(rest, group.negate_secret(parts[helper]))
    parts[helpers[-1]] = rest
    points = {helper: group.base_point(part) for helper, part in parts.items()}
    return RepairPackage(share.identifier, points), parts


def repair_sum(
    group_key: GroupKey,
    me: Identifier,
    lost: Identifier,
    packages: Mapping[Identifier, RepairPackage],
    parts: Mapping[Identifier, Secret],
) -> Secret | Blame:
    """Return σ, the sum of what all helpers sent to this one, or who sent a wrong part."""
    faults = check_repair(group_key, lost, packages)
    group = group_key.suite.group
    total: Secret | None = None
    for helper in sorted(packages):
        part = parts.get(helper)
        if part is None:
            faults.append((helper, Fault.MISSING))
        elif group.base_point(part) != packages[helper].points.get(me):
            faults.append((helper, Fault.BAD_SHARE))
        else:
            total = part if total is None else group.add(total, part)
    if faults or total is None:
        return Blame(tuple(sorted(set(faults))))
    return total


def check_repair(
    group_key: GroupKey, lost: Identifier, packages: Mapping[Identifier, RepairPackage]
) -> list[tuple[Identifier, Fault]]:
    """Return whose published points do not add up to its share's contribution."""
    group, helpers = group_key.suite.group, sorted(packages)
    faults = []
    for helper in helpers:
        weight = lagrange(helper, helpers, group.order, at=lost)
        expected = group.multiply(group_key.verifying_shares[helper], weight)
        points = packages[helper].points
        if sorted(points) != helpers:
            faults.append((helper, Fault.WRONG_LENGTH))
        elif polynomial.add(group, [points[i] for i in helpers]) != expected:
            faults.append((helper, Fault.BAD_PROOF))
    return faults


def repair_finish(
    group_key: GroupKey,
    lost: Identifier,
    packages: Mapping[Identifier, RepairPackage],
    sums: Mapping[Identifier, Secret],
) -> KeyShare | Blame:
    """Return the lost share from every helper's σ, or who sent a wrong one."""
    faults = check_repair(group_key, lost, packages)
    group = group_key.suite.group
    total: Secret | None = None
    for helper in sorted(packages):
        expected = polynomial.add(group, [package.points[helper] for package in packages.values()])
        if helper not in sums:
            faults.append((helper, Fault.MISSING))
        elif group.base_point(sums[helper]) != expected:
            faults.append((helper, Fault.BAD_SHARE))
        else:
            total = sums[helper] if total is None else group.add(total, sums[helper])
    if faults or total is None:
        return Blame(tuple(sorted(set(faults))))
    return KeyShare(lost, Secret(total.buffer), group_key)
