"""The rules and the contracts agree: every decision derived from real logs is taken by real code.

Vyper contracts in memory ─ logs ─▶ Table ─▶ derive ─▶ decisions ─▶ calls.py ─▶ contracts
"""

from dataclasses import dataclass, field, replace

import pytest

from keeper import leaves
from keeper.clear.conservation import imbalances
from keeper.clear.credit import CreditRule
from keeper.clear.release import ReleaseRule
from keeper.clear.stop import StopRule
from keeper.clear.transfer import TransferRule
from keeper.compete.award import REVEAL_VIEWS, AwardRule
from keeper.compete.bids import Bid, make_vector
from keeper.compete.state import AwardState, decode
from keeper.devnet.wallet import created
from keeper.hashing import keccak
from keeper.network import ChainSpec, Feed, NetworkSpec, Token
from keeper.observe.observation import ObservationBody, SeenCommitment, SeenHead, SeenPrice
from keeper.observe.table import EMPTY, Log, Table
from keeper.parameters import Parameters
from keeper.snapshot.decisions import CutBlock, Decision, Observed
from keeper.snapshot.derive import Lacking, Setting, Snapshot, derive, genesis
from keeper.units import ChainId, symbol
from keeper.venue.bonds import bonds
from keeper.venue.book import house_account
from keeper.venue.calls import bring, execute
from keeper.venue.port import Call
from keeper.venue.vault import withdraw_requests
from tests.support.contracts import (
    E8,
    ETH_USD,
    ETHER,
    NETWORK,
    USD,
    Receipt,
    Reverted,
    World,
    account_id,
    build_world,
    hexed,
    set_price,
)

USDC = symbol("USDC")
MEMBERS = tuple(bytes([i]) * 20 for i in range(1, 5))
START = 1_700_000_000
RATES = (50_000, 30_000, 500, 5_000, 10_000)
"""Initial, maintenance, fee, bonus, funding: as in the parameters of the devnet."""


@dataclass
class Net:
    """One real chain under the real derivation; `world` is the contracts' world."""

    world: World = field(default_factory=build_world)
    table: Table = EMPTY
    number: int = 0
    bodies: dict[bytes, bytes] = field(default_factory=dict)
    commitments: tuple[SeenCommitment, ...] = ()
    reveals: tuple[bytes, ...] = ()
    eth: int = 2_000

    def __post_init__(self) -> None:
        world = self.world
        deployer = world.actor("deployer")
        nonce = world.env.evm.vm.state.get_nonce(deployer)
        world.deploy(
            "Perps",
            *(world.at["Snapshots"], world.at["Awards"], bytes(20)),
            account_id(created(deployer, nonce)),
            [account_id(bytes(19) + bytes([at])) for at in range(4)],
            20,
            [(ETH_USD, world.at["ETH feed"], 3600, 8, *RATES, 1_000 * E8)],
        )
        self.chain = ChainId(world.chain)
        names = ("Committee", "Snapshots", "Bonds", "Awards", "Perps", "Vault")
        spec = ChainSpec(
            self.chain,
            tuple(sorted((name, world.at[name]) for name in names)),
            (Token(USDC, world.at["DevToken"], 6),),
            tuple(Feed(market, bytes(20)) for market in sorted((ETH_USD, USDC))),
            finality_depth=0,
        )
        self.network = NetworkSpec(NETWORK, START * 1000, 500, self.chain, (spec,))
        rules = (TransferRule(), ReleaseRule(), CreditRule(), AwardRule(), StopRule())
        parameters = Parameters.devnet([self.chain])
        digest, config = keccak(b"digest"), keccak(b"config")
        self.setting = Setting(self.network, parameters, digest, 1, config, MEMBERS, 1, 3, rules)
        self.snapshot: Snapshot = genesis(self.setting)

    def call(self, *args: object, sender: str = "anyone", value: int = 0) -> Receipt:
        """Call a contract and index its logs."""
        name, function, *rest = args
        receipt = self.world.call(str(name), str(function), *rest, sender=sender, value=value)
        self.table = self.table.apply(Log(*log) for log in receipt.logs)
        return receipt

    def at(self, ref: CutBlock) -> Table:
        return self.table

    def view(self) -> Snapshot:
        """Decide one view on the chain as it is."""
        self.world.mine()
        self.number += 1
        head = SeenHead(self.chain, self.world.block, keccak(b"h"), self.table.root, START)
        prices = tuple(
            SeenPrice(market, price, START)
            for market, price in sorted(((ETH_USD, self.eth * E8), (USDC, E8)))
        )
        body = ObservationBody(self.number, (head,), prices, self.commitments, self.reveals)
        observed = [Observed(i, who, body) for i, who in enumerate(MEMBERS)]
        result = derive(
            self.setting, self, self.snapshot, self.number, self.number, observed, self.bodies
        )
        assert not isinstance(result, Lacking)
        self.snapshot, _ = result
        rules = self.snapshot.book.rules
        assert imbalances(self.network, {self.chain: self.table}, rules) == ()
        return self.snapshot

    def only(self, kind: str) -> Decision:
        (found,) = [d for d in self.snapshot.decisions if d.kind == kind]
        return found

    def send(self, call: Call, sender: str = "anyone") -> None:
        """Send calldata as an executor would, and index the logs."""
        who = self.world.actor(sender)
        result = self.world.env.execute_code(
            to_address=hexed(call.to), sender=hexed(who), data=call.data
        )
        if result.is_error:
            raise Reverted(bytes(result.output)[68:].rstrip(b"\0").decode(errors="replace"))
        self.table = self.table.apply(
            Log(bytes(at), tuple(t.to_bytes(32, "big") for t in topics), bytes(data))
            for at, topics, data in result.get_log_entries()
        )

    def bring(self, decision: Decision) -> None:
        """Seal a decision and bring it to its contract."""
        sealed = self.world.seal(decision.leaf)
        self.send(bring(decision, sealed.seal, sealed.proof(decision.leaf)))

    def settle(self) -> None:
        """Decide views until nothing is left to transfer."""
        for _ in range(12):
            for decision in self.view().decisions:
                if decision.kind == "Transfer":
                    self.bring(decision)

    def balance(self, account: bytes) -> int:
        token = self.world.at["DevToken"]
        return int(self.world.call("Vault", "balance_of", account, token).value)

    @property
    def competition(self) -> AwardState:
        return decode(self.snapshot.book.rules["award"])


def fund(net: Net, account: bytes, amount: int) -> None:
    token = net.world.at["DevToken"]
    net.call("DevToken", "mint", net.world.actor("bank"), amount, sender="bank")
    net.call("DevToken", "approve", net.world.at["Vault"], amount, sender="bank")
    net.call("Vault", "deposit_for", account, token, amount, sender="bank")


@pytest.fixture(scope="module")
def opened() -> Net:
    """Return a chain on which alice holds 4 ETH long within a certified credit."""
    net = Net()
    alice = account_id(net.world.actor("alice"))
    fund(net, alice, 1_000 * USD)
    fund(net, house_account(net.network, net.chain), 5_000 * USD)
    net.call("Perps", "request_credit", 0, 410 * USD, sender="alice")
    net.view()
    net.bring(net.only("Credit"))
    net.call("Perps", "increase", 0, ETH_USD, 4 * E8, 0, sender="alice")
    return net


def copy(net: Net) -> Net:
    """Return the same state of the rules; the chain itself is rolled back by the caller."""
    other = object.__new__(Net)
    other.__dict__.update(net.__dict__)
    return other


def test_release_and_transfer_on_real_contracts(opened: Net) -> None:
    with opened.world.env.anchor():
        net = copy(opened)
        alice = account_id(net.world.actor("alice"))
        net.eth = 2_100
        set_price(net.world, "ETH", 2_100)
        net.call("Perps", "reduce", 0, ETH_USD, 4 * E8, 0, sender="alice")
        before = net.balance(alice)
        net.settle()
        won = net.balance(alice) - before
        assert 390 * USD < won < 400 * USD  # 400 less the venue's fees
        for _ in range(net.setting.parameters.clearing.credit_blocks):
            net.world.mine()
        token = net.world.at["DevToken"]
        to = net.world.actor("alice")
        net.call("Vault", "request_withdraw", 0, token, before + won, to, sender="alice")
        spec = net.network.chain(net.chain)
        assert [r.amount for r in withdraw_requests(spec, net.table)] == [before + won]
        net.view()
        net.bring(net.only("Release"))
        assert net.balance(alice) == 0
        assert list(withdraw_requests(spec, net.table)) == []


def auction(net: Net, keepers: list[bytes]) -> Decision:
    """Let keepers bid falling prices for the one open task."""
    (task,) = net.competition.tasks
    vectors = [
        make_vector(
            net.competition.collecting,
            keeper,
            [Bid(task.target.subject, task.reserve + 9 - i)],
            bytes(32),
        )
        for i, keeper in enumerate(keepers)
    ]
    net.commitments = tuple(sorted(SeenCommitment(v.view, v.bidder, v.commitment) for v in vectors))
    net.view()
    net.bodies = {vector.commitment: vector.encode() for vector in vectors}
    net.commitments, net.reveals = (), tuple(sorted(net.bodies))
    net.view()
    net.reveals = ()
    return net.only("Award")


def sicken(net: Net) -> list[bytes]:
    """Bond two keepers and let the price fall until alice is liquidatable."""
    keepers = [net.world.actor(f"keeper {i}") for i in range(2)]
    for i in range(2):
        admin = net.world.actor("admin")
        net.call("Bonds", "join", admin, b"peer", sender=f"keeper {i}", value=100 * ETHER)
    spec = net.network.chain(net.chain)
    assert {b.free for b in bonds(spec, net.table).values()} == {100 * ETHER}
    net.eth = 1_820
    set_price(net.world, "ETH", 1_820)
    net.view()
    return keepers


def test_winner_executes_by_certificate_and_is_paid(opened: Net) -> None:
    with opened.world.env.anchor():
        net = copy(opened)
        keepers = sicken(net)
        award = auction(net, keepers)
        net.world.mine(net.setting.parameters.competition.start_blocks)
        sealed = net.world.seal(award.leaf)
        purse, size = account_id(keepers[0]), net.competition.awards[0].task.size
        call = execute(award, sealed.seal, sealed.proof(award.leaf), size, purse)
        with pytest.raises(Reverted):
            net.send(call, "keeper 1")
        net.send(call, "keeper 0")
        net.view()
        assert net.competition.awards == ()
        net.settle()
        assert net.balance(purse) > 0
        assert net.snapshot.margins[account_id(net.world.actor("alice"))].healthy


def test_fallback_slashes_the_silent_winner(opened: Net) -> None:
    with opened.world.env.anchor():
        net = copy(opened)
        keepers = sicken(net)
        award = auction(net, keepers)
        rules = net.setting.parameters.competition
        net.world.mine(rules.start_blocks + rules.exclusive_blocks)
        sealed = net.world.seal(award.leaf)
        purse, size = account_id(keepers[1]), net.competition.awards[0].task.size
        net.send(execute(award, sealed.seal, sealed.proof(award.leaf), size, purse), "keeper 1")
        net.view()
        assert net.competition.no_shows == ((keepers[0], 1),)
        stakes = bonds(net.network.chain(net.chain), net.table)
        lock = award.fields[12]
        assert isinstance(lock, int)
        assert stakes[keepers[0]].amount == 100 * ETHER - lock
        assert not any(d.kind == "Penalty" for d in net.snapshot.decisions)


def test_healed_task_is_voided_by_attestation(opened: Net) -> None:
    with opened.world.env.anchor():
        net = copy(opened)
        keepers = sicken(net)
        award = auction(net, keepers)
        fund(net, account_id(net.world.actor("alice")), 2_000 * USD)
        net.view()
        net.bring(net.only("Attestation"))
        net.world.mine(net.setting.parameters.competition.start_blocks)
        sealed = net.world.seal(award.leaf)
        call = execute(award, sealed.seal, sealed.proof(award.leaf), 4 * E8, b"\1" * 32)
        with pytest.raises(Reverted, match="task is done"):
            net.send(call, "keeper 0")
        net.view()
        assert net.competition.awards == ()


def test_penalty_of_a_closed_commitment_is_taken_on_the_hub(opened: Net) -> None:
    with opened.world.env.anchor():
        net = copy(opened)
        keepers = sicken(net)
        vector = make_vector(net.competition.collecting, keepers[0], [Bid(bytes(32), 1)], bytes(32))
        net.commitments = (SeenCommitment(vector.view, keepers[0], vector.commitment),)
        net.view()
        net.commitments = ()
        for _ in range(REVEAL_VIEWS):
            net.view()
        penalty = net.only("Penalty")
        net.bring(penalty)
        amount = penalty.fields[2]
        assert isinstance(amount, int)
        stakes = bonds(net.network.chain(net.chain), net.table)
        assert stakes[keepers[0]].amount == 100 * ETHER - amount
        assert net.view().book.outstanding == tuple(
            d for d in net.snapshot.book.outstanding if d.kind != "Penalty"
        )


def test_a_decision_with_one_changed_field_is_refused(opened: Net) -> None:
    with opened.world.env.anchor():
        net = copy(opened)
        net.call("Perps", "request_credit", 0, 100 * USD, sender="bob")
        fund(net, account_id(net.world.actor("bob")), 1_000 * USD)
        net.view()
        credit = net.only("Credit")
        forged = replace(credit, fields=(credit.fields[0], 900 * USD, *credit.fields[2:]))
        with pytest.raises(Reverted, match="not in the root"):
            net.bring(forged)
        net.bring(credit)


def test_a_big_transfer_that_nobody_agreed_on_is_stopped(opened: Net) -> None:
    # whoever stole the group key seals what it likes; the members never saw it in their state
    with opened.world.env.anchor():
        net = copy(opened)
        world, token = net.world, net.world.at["DevToken"]
        rich, thief = account_id(world.actor("rich")), account_id(world.actor("thief"))
        fund(net, rich, 150_000 * USD)
        net.view()
        move = {
            "source": rich,
            "to": thief,
            "token": token,
            "amount": 120_000 * USD,
            "nonce": 10**6,
            "expiry": world.block + 99,
        }
        leaf = leaves.transfer_leaf(*world.place("Vault"), **move)
        sealed = world.seal(leaf)
        net.call("Vault", "transfer", sealed.seal, sealed.proof(leaf), *move.values())
        assert net.balance(rich) == 30_000 * USD
        net.view()
        stop = net.only("Stop")
        assert [d for d in net.view().decisions if d.kind == "Stop"] == []  # it is on its way
        net.bring(stop)
        assert (net.balance(rich), net.balance(thief)) == (150_000 * USD, 0)
        net.view()
        assert [d for d in net.snapshot.book.outstanding if d.kind == "Stop"] == []


def test_a_big_release_that_was_agreed_waits_and_is_not_stopped(opened: Net) -> None:
    with opened.world.env.anchor():
        net = copy(opened)
        world, token = net.world, net.world.at["DevToken"]
        fund(net, account_id(world.actor("rich")), 150_000 * USD)
        to = world.actor("payee")
        net.call("Vault", "request_withdraw", 0, token, 120_000 * USD, to, sender="rich")
        net.view()
        release = net.only("Release")
        net.bring(release)
        for _ in range(3):
            assert not [d for d in net.view().decisions if d.kind == "Stop"]
        world.mine(50)
        net.call("Vault", "finish", release.leaf)
        assert world.call("DevToken", "balanceOf", to).value == 120_000 * USD
        assert not [d for d in net.view().decisions if d.kind == "Stop"]
