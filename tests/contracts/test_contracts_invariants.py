"""Laws that hold after every step, whoever does what in whatever order.

    deposits, withdrawals, transfers, exits ─┐
    credits, trades, liquidations, prices ───┤─▶ one chain ─▶ sums, locks, replay, sum of Realised
    bonds, locks, slashes, penalties ────────┘                 re-entrant and fee-taking tokens too

A step that a contract refuses is a step like any other: it must change nothing. Sealed decisions
wait in a bag and may be brought late, twice, in any order, or never; a reorg forgets some again.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import pytest
from coincurve import PrivateKey
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from keeper import leaves
from keeper.contracts import encode_call
from keeper.hashing import abi_hash, keccak, type_hash
from tests.support.contracts import (
    BTC_USD,
    E8,
    EPOCH,
    ETH_USD,
    ETHER,
    USD,
    Reverted,
    Sealed,
    World,
    account_id,
    award_fields,
    award_tuple,
    build_world,
    compact,
    hexed,
    members,
    vote_digest,
)

HOSTILE = Path(__file__).parent / "hostile"
PEOPLE = ("alice", "bob", "carol")
KEEPERS = ("keeper 0", "keeper 1", "keeper 2")
TOKENS = ("DevToken", "FeeToken", "ReentrantToken")
CONFIG = keccak(b"config")
WHO = st.sampled_from(PEOPLE)
NOW = st.booleans()
KEEPER = st.sampled_from(range(len(KEEPERS)))
TOKEN = st.sampled_from(TOKENS)
AMOUNT = st.sampled_from([1, 7, USD, 100_000 * USD, 100_001 * USD, 150_000 * USD])
KEYS = (PrivateKey(keccak(b"dealer")), PrivateKey(keccak(b"second group")))
"""Group keys of the two epochs; the first is the one the test world is built with."""
went: Counter[str] = Counter()
"""How often each function went through, over all runs."""


def hostile_world() -> World:
    """A hub chain with two hostile tokens; everybody approved the vault for everything."""
    world = build_world()
    world.deploy_source("FeeToken", HOSTILE / "FeeToken.vy", 1)
    world.deploy_source("ReentrantToken", HOSTILE / "ReentrantToken.vy")
    for token in TOKENS:
        for who in PEOPLE:
            world.call(token, "mint", world.actor(who), 10**13)
            world.call(token, "approve", world.at["Vault"], 10**14, sender=who)
    reentrant = world.at["ReentrantToken"]
    world.call("ReentrantToken", "mint", reentrant, 10**13)
    world.call("ReentrantToken", "approve_own", world.at["Vault"], 10**13)
    again = encode_call("Vault", "deposit_for", account_id(world.actor("alice")), reentrant, 7)
    world.call("ReentrantToken", "arm", world.at["Vault"], again)
    for name in (*PEOPLE, "reporter", "passer-by", "payee", *KEEPERS):
        world.actor(name)
    return world


class Chain(RuleBasedStateMachine):
    """One world that is rolled back at the end of each run."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.anchor: AbstractContextManager[Any] = self.world.env.anchor()
        self.anchor.__enter__()
        self.bag: list[Callable[[], None]] = []
        self.made: dict[bytes, int] = {}
        self.served: dict[bytes, int] = {}
        self.queued: list[bytes] = []
        self.changed = True
        self.epoch = EPOCH

    def teardown(self) -> None:
        self.anchor.__exit__(None, None, None)

    def send(self, name: str, function: str, *args: object, **options: Any) -> bool:
        """Send a transaction; return whether it went through."""
        try:
            receipt = self.world.call(name, function, *args, **options)
        except Reverted:
            return False
        self.changed = True
        went[function] += 1
        for contract in ("Vault", "Perps", "Awards", "Bonds"):
            for event in self.world.events(receipt, contract, "LeafUsed"):
                self.served[event["leaf"]] = self.served.get(event["leaf"], 0) + 1
                assert self.made[event["leaf"]] == self.epoch or not self.is_expired()
        self.queued += [event["leaf"] for event in self.world.events(receipt, "Vault", "Queued")]
        return True

    def seal(self, leaf: bytes) -> Sealed:
        """Seal a leaf as the committee of the epoch, and remember which."""
        self.made[leaf] = self.epoch
        return self.world.seal(leaf, epoch=self.epoch, key=KEYS[self.epoch - EPOCH])

    def place(self, name: str) -> tuple[bytes, int, int, bytes]:
        """Return the prefix of a leaf of this epoch."""
        return self.world.place(name, self.epoch)

    def attest(self, name: str, type_string: str, word: bytes) -> bytes:
        """Return an attestation's leaf of this epoch."""
        event = abi_hash(("bytes32", "bytes32"), (type_hash(type_string), word))
        return leaves.attestation_leaf(*self.place(name), event_hash=event)

    def is_expired(self) -> bool:
        """Return whether the first committee's key is over."""
        return not self.world.call("Committee", "is_active", EPOCH).value

    @precondition(lambda self: self.epoch == EPOCH)
    @rule(chance=st.integers(0, 7))
    def the_committee_changes(self, chance: int) -> None:
        """Rarely: from then on the old key seals nothing that is taken, soon."""
        if chance:
            return
        world = self.world
        change: dict[str, Any] = {
            "next_epoch": EPOCH + 1,
            "group_key": int.from_bytes(KEYS[1].public_key.format()[1:], "big"),
            "config": keccak(b"second config"),
            "members_hash": abi_hash(("address[]",), (members(),)),
            "old_expiry": world.block + 12,
        }
        leaf = leaves.committee_change_leaf(*world.place("Committee"), **change)
        sealed = world.seal(leaf)
        propose = ("propose_change", sealed.seal, sealed.proof(leaf), (*change.values(),))
        assert self.send("Committee", *propose)
        world.mine(10)
        assert self.send("Committee", "activate", members())
        self.epoch += 1
        world.mine(20)
        for late in self.bag[:3]:
            late()

    def decide(
        self, name: str, function: str, leaf: bytes, fields: dict[str, Any], now: bool = True
    ) -> None:
        """Seal a decision, put bringing it into the bag, and perhaps bring it at once."""
        sealed = self.seal(leaf)
        self.bag.append(lambda: self._bring(name, function, sealed, leaf, fields))
        if now:
            self.bag[-1]()

    def _bring(
        self, name: str, function: str, sealed: Sealed, leaf: bytes, fields: dict[str, Any]
    ) -> None:
        if self.made[leaf] != self.epoch and self.is_expired():
            went["brought too late"] += 1
        self.send(name, function, sealed.seal, sealed.proof(leaf), *fields.values())

    @precondition(lambda self: self.bag)
    @rule(pick=st.integers(0, 10**6))
    def bring_a_decision(self, pick: int) -> None:
        self.bag[pick % len(self.bag)]()

    @precondition(lambda self: self.bag)
    @rule(pick=st.integers(0, 10**6))
    def a_block_is_reorganised(self, pick: int) -> None:
        before, waiting = dict(self.served), list(self.queued)
        with self.world.env.anchor():
            self.bag[pick % len(self.bag)]()
        self.served, self.queued = before, waiting

    @rule(blocks=st.sampled_from([1, 1, 5, 60, 250]))
    def time_passes(self, blocks: int) -> None:
        self.world.mine(blocks)

    @invariant()
    def the_laws_hold(self) -> None:
        if self.changed:  # what was refused changed nothing
            self.changed = False
            assert all(times == 1 for times in self.served.values())
            self.check()

    def check(self) -> None:
        """Assert the laws of this machine."""


class VaultChain(Chain):
    """Deposits, requests, releases, transfers, big ones, stops and exits over three tokens."""

    @initialize()
    def start(self) -> None:
        self.nonce = 0
        for who in PEOPLE:
            for token in ("DevToken", "ReentrantToken"):
                self.send("Vault", "deposit", 0, self.world.at[token], 10**12, sender=who)

    def balance(self, who: str, token: str) -> int:
        account = account_id(self.world.actor(who))
        return int(self.world.call("Vault", "balance_of", account, self.world.at[token]).value)

    @rule(who=WHO, token=TOKEN, amount=AMOUNT)
    def deposit(self, who: str, token: str, amount: int) -> None:
        went = self.send("Vault", "deposit", 0, self.world.at[token], amount, sender=who)
        assert went or token == "FeeToken"

    @rule(who=WHO, token=TOKEN, amount=AMOUNT, now=NOW)
    def request(self, who: str, token: str, amount: int, now: bool) -> None:
        world, payee = self.world, self.world.actor("payee")
        asked = world.call(
            "Vault", "request_withdraw", 0, world.at[token], amount, payee, sender=who
        )
        (event,) = world.events(asked, "Vault", "WithdrawRequested")
        fields: dict[str, Any] = {
            "account": account_id(world.actor(who)),
            "token": world.at[token],
            "amount": amount,
            "to": payee,
            "nonce": event["nonce"],
            "expiry": world.block + 500,
        }
        leaf = leaves.release_leaf(*self.place("Vault"), **fields)
        self.decide("Vault", "release", leaf, fields, now)

    @rule(who=WHO, token=TOKEN)
    def cancel(self, who: str, token: str) -> None:
        self.send("Vault", "cancel_withdraw", 0, self.world.at[token], sender=who)

    @rule(source=WHO, to=WHO, token=TOKEN, amount=AMOUNT, now=NOW)
    def transfer(self, source: str, to: str, token: str, amount: int, now: bool) -> None:
        world = self.world
        self.nonce += 1
        fields: dict[str, Any] = {
            "source": account_id(world.actor(source)),
            "to": account_id(world.actor(to)),
            "token": world.at[token],
            "amount": amount,
            "nonce": self.nonce,
            "expiry": world.block + 500,
        }
        leaf = leaves.transfer_leaf(*self.place("Vault"), **fields)
        self.decide("Vault", "transfer", leaf, fields, now)

    @rule(who=WHO, halt=st.booleans())
    def a_big_one(self, who: str, halt: bool) -> None:
        self.request(who, "DevToken", 100_001 * USD, True)
        if self.queued:
            self.finish_or_stop(len(self.queued) - 1, halt)

    @precondition(lambda self: self.queued)
    @rule(pick=st.integers(0, 10**6), halt=st.sampled_from([False, False, True]))
    def finish_or_stop(self, pick: int, halt: bool) -> None:
        leaf = self.queued[pick % len(self.queued)]
        if not halt:
            self.world.mine(50)
            self.send("Vault", "finish", leaf)
            return
        stop = self.attest("Vault", "Stop(bytes32 leaf)", leaf)
        if stop not in self.served:
            self.decide("Vault", "stop", stop, {"leaf": leaf})

    @rule(who=WHO, token=TOKEN, blocks=st.sampled_from([0, 199, 200]))
    def exit(self, who: str, token: str, blocks: int) -> None:
        self.send("Vault", "start_exit", 0, sender=who)
        self.world.mine(blocks)
        args = (0, self.world.at[token], self.world.actor("payee"))
        went = self.send("Vault", "exit", *args, sender=who)
        assert not went or blocks == 200

    def check(self) -> None:
        """Per token: what the vault holds is what it owes."""
        world = self.world
        waiting = [world.call("Vault", "queued", leaf).value for leaf in self.queued]
        for token in TOKENS:
            at = world.at[token]
            owed = sum(self.balance(who, token) for who in PEOPLE)
            owed += sum(p[4] for p in waiting if p[0] and bytes.fromhex(p[3][2:]) == at)
            held = world.call(token, "balanceOf", world.at["Vault"]).value
            assert held == owed
        assert world.call("ReentrantToken", "successes").value == 0


class VenueChain(Chain):
    """Credits, trades, prices, funding, awards, public liquidation and the split of prices."""

    @initialize()
    def start(self) -> None:
        self.tasks: dict[bytes, int] = {}
        for i in range(len(KEEPERS)):
            admin = self.world.actor(f"admin {i}")
            self.send("Bonds", "join", admin, b"", sender=KEEPERS[i], value=2 * ETHER)
        for who in PEOPLE:
            self.credit(who, 30_000 * USD, 2_000)
            self.increase(who, ETH_USD, 5 * E8)

    @rule(
        who=WHO,
        limit=st.integers(0, 50_000 * USD),
        life=st.sampled_from([20, 2_000]),
        now=NOW,
    )
    def credit(self, who: str, limit: int, life: int, now: bool = True) -> None:
        world = self.world
        asked = world.call("Perps", "request_credit", 0, limit, sender=who)
        (event,) = world.events(asked, "Perps", "CreditRequested")
        fields: dict[str, Any] = {
            "account": account_id(world.actor(who)),
            "limit": limit,
            "nonce": event["nonce"],
            "expiry": world.block + life,
        }
        leaf = leaves.credit_leaf(*self.place("Perps"), **fields)
        self.decide("Perps", "apply_credit", leaf, fields, now)

    @rule(
        who=WHO,
        market=st.sampled_from([ETH_USD, BTC_USD]),
        size=st.integers(-20 * E8, 20 * E8),
    )
    def increase(self, who: str, market: bytes, size: int) -> None:
        went = self.send("Perps", "increase", 0, market, size, 0, sender=who)
        if went:
            # no position is opened beyond the certified credit
            account = account_id(self.world.actor(who))
            credit = self.world.call("Perps", "credit", account).value
            imr, _, unrealised = self.world.call("Perps", "exposure", account).value
            assert imr + max(0, -unrealised) <= credit[0]
            assert self.world.block <= credit[2]

    @rule(who=WHO, market=st.sampled_from([ETH_USD, BTC_USD]), size=st.integers(1, 30 * E8))
    def reduce(self, who: str, market: bytes, size: int) -> None:
        account = account_id(self.world.actor(who))
        held = abs(self.world.call("Perps", "position", account, market).value[0])
        went = self.send("Perps", "reduce", 0, market, min(size, held), 0, sender=who)
        assert went or held == 0

    @rule(feed=st.sampled_from([("ETH", 2_000), ("BTC", 60_000)]), ppm=st.integers(500, 2_000))
    def price(self, feed: tuple[str, int], ppm: int) -> None:
        answer = feed[1] * E8 * ppm // 1_000
        self.send(f"{feed[0]} feed", "set_answer", answer, sender="deployer")

    @rule(
        who=WHO,
        winner=KEEPER,
        price=st.sampled_from([0, USD]),
        size=st.integers(1, 20 * E8),
        same=st.booleans(),
        now=NOW,
    )
    def award(self, who: str, winner: int, price: int, size: int, same: bool, now: bool) -> None:
        world = self.world
        task = keccak(b"%d" % (len(self.tasks) if not same else 0))
        self.tasks.setdefault(task, 0)
        fields = award_fields(
            world,
            task=task,
            account=account_id(world.actor(who)),
            max_size=size,
            price=price,
            ranks=(world.actor(KEEPERS[winner]), world.actor(KEEPERS[(winner + 1) % 3])),
        )
        leaf = leaves.award_leaf(*self.place("Awards"), **fields)
        sealed = self.seal(leaf)
        args = (sealed.seal, sealed.proof(leaf), award_tuple(fields), size)

        def bring(keeper: str) -> None:
            purse = account_id(world.actor(keeper))
            if self.send("Awards", "execute", *args, purse, sender=keeper):
                self.tasks[task] += 1

        if now:
            bring(KEEPERS[winner])
        self.bag.extend(lambda keeper=keeper: bring(keeper) for keeper in KEEPERS)  # type: ignore[misc]  # mypy cannot infer a lambda with a default

    @rule(who=WHO)
    def heal(self, who: str) -> None:
        for task in self.tasks:
            leaf = self.attest("Awards", "Healed(bytes32 task)", task)
            if leaf not in self.served:
                self.decide("Awards", "void", leaf, {"task": task})

    @rule(who=WHO, size=st.integers(1, 20 * E8))
    def public(self, who: str, size: int) -> None:
        account = account_id(self.world.actor(who))
        self.send("Perps", "flag", account)
        purse = account_id(self.world.actor("passer-by"))
        self.send("Perps", "liquidate_public", account, ETH_USD, size, purse)

    @rule()
    def distribute(self) -> None:
        self.send("Perps", "distribute")

    @rule(pick=st.integers(0, 10**6))
    def a_block_is_reorganised(self, pick: int) -> None:
        tasks = dict(self.tasks)
        before = dict(self.served)
        if self.bag:
            with self.world.env.anchor():
                self.bag[pick % len(self.bag)]()
        self.served, self.tasks = before, tasks

    def check(self) -> None:
        """Realised sums to zero, tasks are executed once, the skew is the sum of sizes."""
        world = self.world
        names = [*PEOPLE, *KEEPERS, "house", "passer-by", *(f"share {i}" for i in range(4))]
        accounts = [account_id(world.actor(name)) for name in names]
        accounts.append(world.call("Perps", "pot").value)
        assert sum(world.call("Perps", "realised", a).value for a in accounts) == 0
        assert all(times <= 1 for times in self.tasks.values())
        for market in (ETH_USD, BTC_USD):
            sizes = [
                world.call("Perps", "position", account_id(world.actor(who)), market).value[0]
                for who in PEOPLE
            ]
            assert world.call("Perps", "skew", market).value == sum(sizes)


class BondChain(Chain):
    """Bonds, locks, penalties, evidence true and false, leaving and claiming."""

    @initialize()
    def start(self) -> None:
        self.count, self.accused, self.held = 0, "", self.bonds()
        for i in range(len(KEEPERS)):
            self.join(i, 2 * ETHER)

    def stake(self, keeper: str) -> tuple[int, ...]:
        return tuple(self.world.call("Bonds", "stake", self.world.actor(keeper)).value)

    def send(self, name: str, function: str, *args: object, **options: Any) -> bool:
        """Send a transaction, and see that it takes from no bond without a reason for that bond."""
        if not super().send(name, function, *args, **options):
            return False
        before, self.held = self.held, self.bonds()
        for keeper, amount in before.items():
            lost = amount - self.held[keeper]
            if lost <= 0:
                continue
            if function == "penalise":  # seal, proof, task, keeper, amount: what was sealed
                assert args[3] == self.world.actor(keeper)
                assert lost <= cast(int, args[4])
            elif function == "withdraw":
                assert args[0] == self.world.actor(keeper)
            else:
                assert function == "slash_conflict"
                assert keeper == self.accused
        return True

    def bonds(self) -> dict[str, int]:
        return {keeper: self.stake(keeper)[0] for keeper in KEEPERS}

    @rule(pick=st.integers(0, 10**6))
    def a_block_is_reorganised(self, pick: int) -> None:
        before = dict(self.served)
        if self.bag:
            with self.world.env.anchor():
                self.bag[pick % len(self.bag)]()
        self.served, self.held = before, self.bonds()

    @rule(i=KEEPER, value=st.integers(0, 3 * ETHER))
    def join(self, i: int, value: int) -> None:
        admin = self.world.actor(f"admin {i}")
        self.send("Bonds", "join", admin, b"p", sender=KEEPERS[i], value=value)

    @rule(i=KEEPER, value=st.integers(1, ETHER))
    def post(self, i: int, value: int) -> None:
        self.send("Bonds", "post", self.world.actor(KEEPERS[i]), sender="reporter", value=value)

    @rule(i=KEEPER, verb=st.sampled_from(["leave", "unjail"]))
    def admin(self, i: int, verb: str) -> None:
        self.send("Bonds", verb, self.world.actor(KEEPERS[i]), sender=f"admin {i}")

    @rule(i=KEEPER, by=st.sampled_from(["admin 0", "admin 1", "admin 2", "keeper 0", "deployer"]))
    def withdraw(self, i: int, by: str) -> None:
        before = self.stake(KEEPERS[i])
        payee = self.world.actor("payee")
        went = self.send("Bonds", "withdraw", self.world.actor(KEEPERS[i]), payee, sender=by)
        assert not went or (by == f"admin {i}" and before[1] == 0)

    @rule(days=st.sampled_from([1, 7, 14]))
    def days_pass(self, days: int) -> None:
        self.world.mine(1, days * 86_400)

    @rule(i=KEEPER, amount=st.integers(0, 2 * ETHER), now=NOW)
    def lock(self, i: int, amount: int, now: bool) -> None:
        world = self.world
        self.count += 1
        fields = award_fields(
            world,
            task=keccak(b"lock %d" % self.count),
            ranks=(world.actor(KEEPERS[i]),),
            lock=amount,
        )
        leaf = leaves.award_leaf(*self.place("Awards"), **fields)
        rest = {"place": world.chain, "awards": world.at["Awards"], "award": award_tuple(fields)}
        self.decide("Bonds", "lock", leaf, rest, now)

    @rule(pick=st.integers(1, 30))
    def unlock(self, pick: int) -> None:
        self.send("Bonds", "unlock", keccak(b"lock %d" % pick))

    @rule(i=KEEPER, task=st.integers(0, 5), amount=st.integers(0, 2 * ETHER), now=NOW)
    def penalty(self, i: int, task: int, amount: int, now: bool) -> None:
        world = self.world
        self.count += 1
        fields: dict[str, Any] = {
            "task": keccak(b"lock %d" % task),
            "keeper": world.actor(KEEPERS[i]),
            "amount": amount,
            "beneficiary": world.actor("reporter"),
            "nonce": self.count,
            "expiry": world.block + 500,
        }
        leaf = leaves.penalty_leaf(*self.place("Bonds"), **fields)
        self.decide("Bonds", "penalise", leaf, fields, now)
        if not task:
            self.claim()

    @rule(
        i=KEEPER,
        other=st.none() | KEEPER,
        kinds=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        digests=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    )
    def evidence(
        self, i: int, other: int | None, kinds: tuple[int, int], digests: tuple[int, int]
    ) -> None:
        j = i if other is None else other
        votes = []
        for who, kind, digest in zip((i, j), kinds, digests, strict=True):
            word = bytes(32) if kind == 2 else keccak(b"%d" % digest)
            signed = vote_digest(1, CONFIG, kind, 7, word)
            votes.append((kind, word, compact(World.key(KEEPERS[who]), signed)))
        before, self.accused = self.stake(KEEPERS[i]), KEEPERS[i] if i == j else ""
        went = self.send("Bonds", "slash_conflict", 1, CONFIG, 7, *votes, sender="reporter")
        zf = sorted(kinds) == [2, 3]
        two = 2 not in kinds and digests[0] != digests[1]
        should = i == j and (zf or two) and before[4] in (1, 2, 3)
        assert went == should

    @rule()
    def claim(self) -> None:
        for who in ("reporter", *KEEPERS):
            self.send("Bonds", "claim", self.world.actor("payee"), sender=who)

    @rule()
    def sweep(self) -> None:
        self.send("Bonds", "sweep")

    def check(self) -> None:
        """Locks stay within bonds, and the coin held is the coin owed."""
        world = self.world
        stakes = [self.stake(keeper) for keeper in KEEPERS]
        assert all(locked <= amount for amount, locked, *_ in stakes)
        owed = sum(amount for amount, *_ in stakes) + world.call("Bonds", "insurance").value
        for name in ("reporter", *KEEPERS):
            owed += world.call("Bonds", "claimable", world.actor(name)).value
        assert world.env.get_balance(hexed(world.at["Bonds"])) == owed


_WORLD = hostile_world()
_SETTINGS = settings(
    max_examples=16,
    stateful_step_count=70,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


OVER = ("activate", "brought too late")
"""The committee changed, and decisions of the old one came after its key had expired."""


def run(machine: type[Chain], *functions: str, phases: Sequence[Phase] = tuple(Phase)) -> None:
    """Run a machine, and see that the functions it is about went through."""
    machine.world = _WORLD
    went.clear()
    run_state_machine_as_test(machine, settings=settings(_SETTINGS, phases=phases))
    assert not [name for name in functions if not went[name]]


def test_the_vault_owes_what_it_holds() -> None:
    run(VaultChain, "deposit", "release", "transfer", "finish", "stop", "exit", *OVER)


def test_the_venue_sums_to_zero_and_tasks_are_done_once() -> None:
    run(VenueChain, "apply_credit", "increase", "reduce", "execute", *OVER)


def test_bonds_are_locked_within_and_taken_by_evidence() -> None:
    run(BondChain, "join", "lock", "penalise", "slash_conflict", "claim", *OVER)


class Thief(BondChain):
    """A machine in which a bond is taken that nobody was accused for."""

    @rule()
    def take(self) -> None:
        signed = [vote_digest(1, CONFIG, 1, 9, keccak(b"%d" % i)) for i in range(2)]
        votes = [
            (1, keccak(b"%d" % i), compact(World.key(KEEPERS[0]), digest))
            for i, digest in enumerate(signed)
        ]
        self.accused = ""
        self.send("Bonds", "slash_conflict", 1, CONFIG, 9, *votes, sender="reporter")


def test_control_a_bond_that_shrinks_is_noticed() -> None:
    with pytest.raises(AssertionError):
        run(Thief, phases=[Phase.generate])
