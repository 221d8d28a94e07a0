"""A tiny network in memory: tables with one vault, observations of four members, an application."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eth_abi.abi import encode as abi_encode

from keeper.hashing import keccak
from keeper.network import ChainSpec, Feed, NetworkSpec, Token
from keeper.observe import observation
from keeper.observe.observation import ObservationBody, SeenHead, SeenPrice
from keeper.observe.table import EMPTY, Log, Table
from keeper.parameters import Parameters
from keeper.snapshot.application import SnapshotApplication
from keeper.snapshot.decisions import Context, CutBlock, Decision, DecisionRule
from keeper.snapshot.derive import Setting
from keeper.units import ChainId, symbol
from p2p.types import SignedObservation

CHAIN = ChainId(31501)
VAULT = b"\x11" * 20
USDC_ADDRESS = b"\x22" * 20
USDC = symbol("USDC")
NETWORK = keccak(b"test network")
MEMBERS = tuple(bytes([member]) * 20 for member in range(1, 5))
CONFIG = keccak(b"test config")
GENESIS_MS = 1_700_000_000_000

SPEC = NetworkSpec(
    NETWORK,
    GENESIS_MS,
    500,
    CHAIN,
    (
        ChainSpec(
            CHAIN,
            (("Vault", VAULT),),
            (Token(USDC, USDC_ADDRESS, 6),),
            (Feed(USDC, b"\x33" * 20),),
        ),
    ),
)


def balance_log(account: bytes, amount: int) -> Log:
    """Return the vault's Balance event."""
    topic = keccak(b"Balance(bytes32,address,uint256)")
    token = USDC_ADDRESS.rjust(32, b"\0")
    return Log(VAULT, (topic, account, token), abi_encode(("uint256",), (amount,)))


@dataclass
class MemoryTables:
    """Tables by block number; `at` answers only for the exact block."""

    blocks: dict[int, tuple[bytes, Table]] = field(default_factory=dict)

    def add(self, number: int, logs: Sequence[Log]) -> SeenHead:
        """Append a block to the chain and return how an observer names it."""
        before = self.blocks[number - 1][1] if number - 1 in self.blocks else EMPTY
        block_hash = keccak(b"block" + number.to_bytes(8, "big"))
        self.blocks[number] = (block_hash, before.apply(logs))
        return self.head(number)

    def head(self, number: int) -> SeenHead:
        """Return how an observer names a block."""
        block_hash, table = self.blocks[number]
        return SeenHead(CHAIN, number, block_hash, table.root, GENESIS_MS // 1000 + number)

    def at(self, ref: CutBlock) -> Table | None:
        """Return the table after exactly this block."""
        found = self.blocks.get(ref.number)
        if found is None or (found[0], found[1].root) != (ref.hash, ref.account_root):
            return None
        return found[1]


def body(tick: int, heads: Sequence[SeenHead], price_e8: int = 100_000_000) -> ObservationBody:
    """Return what an honest member sees."""
    now = GENESIS_MS // 1000 + tick // 2
    return ObservationBody(tick, tuple(heads), (SeenPrice(USDC, price_e8, now),))


def signed(member: int, seen: ObservationBody) -> SignedObservation:
    """Return the envelope; the application does not look at the signature."""
    return SignedObservation(
        1, CONFIG, seen.tick, *seen.roots(), observation.encode(seen), member, b"\0" * 64
    )


def setting(rules: tuple[DecisionRule, ...] = ()) -> Setting:
    """Return the constants of a committee of four."""
    parameters = Parameters.devnet([CHAIN])
    return Setting(SPEC, parameters, keccak(b"digest"), 1, CONFIG, MEMBERS, 1, 3, rules)


def application(tables: MemoryTables, rules: tuple[DecisionRule, ...] = ()) -> SnapshotApplication:
    """Return a fresh application over the tables."""
    return SnapshotApplication(setting(rules), tables)


class EchoRule:
    """A rule that attaches every reported reveal and decides one thing a view."""

    name = "echo"

    def initial(self) -> bytes:
        """Return the count zero."""
        return b"\0"

    def wanted(self, context: Context, state: bytes) -> frozenset[bytes]:
        """Return every reveal that f + 1 members report."""
        reports = [reveal for one in context.observed for reveal in one.body.reveals]
        return frozenset(r for r in reports if reports.count(r) > context.faults)

    def derive(self, context: Context, state: bytes) -> tuple[bytes, tuple[Decision, ...]]:
        """Return the count plus one, and a decision keyed by it."""
        count = state[0] + 1
        leaf = keccak(b"echo" + bytes([count]) + b"".join(sorted(context.attachments)))
        decision = Decision(
            "Echo", CHAIN, VAULT, bytes([count]), leaf, (count,), expiry=1_000, holds=()
        )
        return bytes([count]), (decision,)


def run_views(
    applications: Mapping[int, SnapshotApplication], heads: Sequence[SeenHead], views: int
) -> list[bytes]:
    """Let member 0 lead some views that all members check; return the payloads."""
    parent, payloads = CONFIG, []
    for view in range(1, views + 1):
        observations = [signed(member, body(view, heads)) for member in range(3)]
        payload = applications[0].propose(parent, view, view, observations)
        assert payload is not None
        digest = keccak(b"digest" + view.to_bytes(8, "big"))
        for one in applications.values():
            one.validate(parent, view, view, observations, payload)
            one.adopt(digest, parent, view, view, observations, payload)
        payloads.append(payload)
        parent = digest
    return payloads
