"""Chains with the committed escrow and intents contracts, and the real rules deciding over them.

    net.send(0, "Escrow", "prepare", …, sender="alice") ─▶ logs ─▶ table of the block being made
    net.mine() ─▶ one block a chain; the last `LAG` of them are not final
    net.view() ─▶ observations of four members ─▶ derive(rules) ─▶ decisions under one seal
    net.bring(decision) ─▶ the contract call that the carrier makes

Nothing is modelled: contracts run as bytecode, decisions come out of the snapshot's derivation.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from keeper.hashing import keccak
from keeper.leaves import header_leaf
from keeper.margin.breaker import Action, Level, chain_scope
from keeper.merkle import merkle_proof, merkle_root
from keeper.network import ChainSpec, Feed, NetworkSpec, Token
from keeper.observe.observation import NextKey, ObservationBody, SeenHead, SeenPrice
from keeper.observe.table import EMPTY, Log, Table
from keeper.parameters import Parameters
from keeper.settle.attest import AttestationRule
from keeper.settle.flow import FlowRule
from keeper.snapshot.book import Book
from keeper.snapshot.decisions import CutBlock, Decision, DecisionRule, Observed
from keeper.snapshot.derive import Lacking, Setting, Snapshot, derive, genesis
from keeper.snapshot.gates import GRADED
from keeper.units import ChainId, symbol
from keeper.venue.calls import bring
from keeper.venue.port import Call
from tests.support.contracts import (
    E8,
    EPOCH,
    ETH_USD,
    NETWORK,
    Receipt,
    Reverted,
    World,
    deploy_perps,
    hexed,
    make_seal,
)

LAG = 2
"""Blocks at the head that are not final."""
ESCAPE = 1_000_000
PURSE = 1_000
FIRST = 41_001
BREAKER = b"\x0c" * 20
"""Only its records count here."""
DAY_S = 86_400
TICKS_A_DAY = DAY_S * 2
ACTORS = ("alice", "bob", "carol", "dave")


@dataclass(frozen=True)
class Block:
    """One block of a chain and the table after it."""

    number: int
    hash: bytes
    table: Table
    timestamp: int


def small_world(chain: int) -> World:
    """Deploy what settlement needs on one chain; every actor has tokens that both may pull."""
    world = World()
    world.env.evm.patch.chain_id = chain
    world.env.evm.patch.block_number = 1_000
    world.env.evm.patch.timestamp = 1_700_000_000
    for _ in range(chain - FIRST):  # addresses differ between chains
        world.deploy("DevToken", "Padding", "PAD", 6, alias="Padding")
    world.deploy("Committee", NETWORK, 10, 100)
    group = int.from_bytes(world.group.public_key.format()[1:], "big")
    members = [world.actor(f"operator {i}") for i in range(4)]
    genesis_args = (EPOCH, group, keccak(b"config"), members)
    world.call("Committee", "genesis", *genesis_args, sender="deployer")
    world.deploy("Snapshots", world.at["Committee"])
    world.deploy("DevToken", "Dollar", "USDC", 6)
    world.deploy("Escrow", world.at["Snapshots"], ESCAPE)
    world.deploy("Awards", world.at["Snapshots"], bytes(20))
    deploy_perps(world)
    world.deploy("Intents", world.at["Snapshots"], 7 * DAY_S)
    for who in ACTORS:
        world.call("DevToken", "mint", world.actor(who), PURSE)
        for spender in ("Escrow", "Intents"):
            world.call("DevToken", "approve", world.at[spender], 2**200, sender=who)
    return world


@dataclass
class Net:
    """See the module. Chains are named by their place in `worlds`."""

    worlds: Sequence[World]
    rules: tuple[DecisionRule, ...] = (FlowRule(), AttestationRule())
    is_last: Callable[[Book], bool] = lambda _book: False
    epoch: int = EPOCH
    named: NextKey | None = None
    """What every member's observation says of the next committee's key."""
    parameters: Parameters = field(init=False)
    prices: dict[bytes, int] = field(default_factory=lambda: {ETH_USD: 2_000 * E8})
    tables: list[Table] = field(default_factory=list)
    blocks: list[list[Block]] = field(default_factory=list)
    tick: int = 0
    number: int = 0
    sealed: dict[bytes, tuple[Any, tuple[bytes, ...]]] = field(default_factory=dict)
    decided: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = ("Committee", "DevToken", "Escrow", "Intents", "Perps", "Snapshots")
        specs = []
        for world in self.worlds:
            found = tuple((n, world.at[n]) for n in names if n != "DevToken")
            token = Token(symbol("USDC"), world.at["DevToken"], 6)
            feeds = (Feed(ETH_USD, world.at["ETH feed"]),)
            specs.append(ChainSpec(ChainId(world.chain), found, (token,), feeds))
        self.start_ms = self.worlds[0].now * 1000
        self.parameters = Parameters.devnet([spec.id for spec in specs])
        rules = self.parameters.encode()
        self.spec = NetworkSpec(NETWORK, self.start_ms, 500, specs[0].id, tuple(specs), rules)
        self.members = tuple(bytes([100 + i]) * 20 for i in range(4))
        self.snapshot: Snapshot = genesis(self.setting)
        self.tables = [EMPTY for _ in self.worlds]
        self.blocks = [[] for _ in self.worlds]
        self.mine(LAG + 1)

    @property
    def setting(self) -> Setting:
        return Setting(
            network=self.spec,
            parameters=self.parameters,
            digest=keccak(b"digest"),
            epoch=self.epoch,
            config=keccak(b"config"),
            members=self.members,
            faults=1,
            quorum=3,
            rules=self.rules,
            is_last=self.is_last,
        )

    # --- chains

    def send(self, at: int, name: str, function: str, *args: object, sender: str) -> Receipt:
        """Send a transaction; what it logs is in the block that is mined next."""
        receipt = self.worlds[at].call(name, function, *args, sender=sender)
        self._take(at, receipt)
        return receipt

    def _take(self, at: int, receipt: Receipt) -> None:
        self.tables[at] = self.tables[at].apply(Log(*row) for row in receipt.logs)

    def mine(self, blocks: int = 1, seconds: int | None = None) -> None:
        """Let time pass: a second a block, or so many seconds; no more blocks than matter."""
        for at, world in enumerate(self.worlds):
            for _ in range(min(blocks, LAG + 1)):
                salt = keccak(world.block.to_bytes(8, "big") + self.tables[at].root)
                self.blocks[at].append(Block(world.block, salt, self.tables[at], world.now))
                world.mine()
        spent = blocks if seconds is None else seconds
        for world in self.worlds:
            world.mine(0, max(0, spent - min(blocks, LAG + 1)))
        self.tick += 2 * spent

    def curse(self, at: int, level: Level = Level.CURSED) -> None:
        """Let a chain's breaker show that it broke its own finality, or that this is lifted."""
        chains = list(self.spec.chains)
        contracts = dict(chains[at].contracts) | {"Breaker": BREAKER}
        chains[at] = replace(chains[at], contracts=tuple(sorted(contracts.items())))
        self.spec = replace(self.spec, chains=tuple(chains))
        scope, action = chain_scope(chains[at].id), int(Action.SIGN).to_bytes(32, "big")
        data = b"".join(number.to_bytes(32, "big") for number in (int(level), 1, 0))
        self.tables[at] = self.tables[at].apply([Log(BREAKER, (GRADED, scope, action), data)])
        self.mine(LAG + 1)

    def day(self) -> None:
        """Let a day pass on every chain, with some blocks in it that make all before final."""
        self.mine(LAG + 1, DAY_S)
        self.mine(LAG + 1)

    @contextmanager
    def fork(self, at: int) -> Iterator[None]:
        """Play on a branch of one chain that is reorganised away afterwards."""
        table, height = self.tables[at], len(self.blocks[at])
        with self.worlds[at].env.anchor():
            yield
        assert len(self.blocks[at]) - height <= LAG, "that was final"
        del self.blocks[at][height:]
        self.tables[at] = table

    # --- agreement

    def at(self, ref: CutBlock) -> Table | None:
        """Return the table at a block that members name."""
        for chain, blocks in zip(self.spec.chains, self.blocks, strict=True):
            for block in reversed(blocks):
                if chain.id == ref.chain and block.hash == ref.hash:
                    return block.table
        return None

    def view(self) -> tuple[Decision, ...]:
        """Decide one view on the final blocks, and seal it."""
        heads = []
        for chain, blocks in zip(self.spec.chains, self.blocks, strict=True):
            one = blocks[-1 - LAG]
            heads.append(SeenHead(chain.id, one.number, one.hash, one.table.root, one.timestamp))
        self.tick += 1
        self.number += 1
        now = (self.start_ms + self.tick * self.spec.tick_ms) // 1000
        prices = tuple(SeenPrice(market, at, now) for market, at in sorted(self.prices.items()))
        body = ObservationBody(self.tick, tuple(heads), prices, next_key=self.named)
        observed = [Observed(i, who, body) for i, who in enumerate(self.members)]
        result = derive(self.setting, self, self.snapshot, self.number, self.tick, observed, {})
        assert not isinstance(result, Lacking)
        self.snapshot, _ = result
        top = header_leaf(NETWORK, self.epoch, self.number, self.snapshot.header.hash())
        leaves = (top, *(decision.leaf for decision in self.snapshot.decisions))
        seal = make_seal(self.worlds[0].group, self.epoch, self.number, merkle_root(leaves))
        for place, decision in enumerate(self.snapshot.decisions, start=1):
            self.sealed[decision.leaf] = (seal, merkle_proof(leaves, place))
        self.decided += self.snapshot.decisions
        return self.snapshot.decisions

    def settle_down(self, views: int = 3) -> None:
        """Let keepers see and decide for some blocks, bringing nothing."""
        for _ in range(views):
            self.mine()
            self.view()

    def bring(self, decision: Decision) -> None:
        """Bring a decision as the carrier does; raises `Reverted` if its contract refuses."""
        self.do(bring(decision, *self.sealed[decision.leaf]))

    def do(self, call: Call, who: str = "anyone") -> list[Log]:
        """Send a call and return what it logs; raises `Reverted` if its contract refuses."""
        at = [chain.id for chain in self.spec.chains].index(call.chain)
        world = self.worlds[at]
        result = world.env.execute_code(
            to_address=hexed(call.to), sender=hexed(world.actor(who)), data=call.data
        )
        if result.is_error:
            raise Reverted(bytes(result.output)[68:].rstrip(b"\0").decode(errors="replace"))
        logs = [
            Log(bytes(where), tuple(topic.to_bytes(32, "big") for topic in topics), bytes(data))
            for where, topics, data in result.get_log_entries()
        ]
        self.tables[at] = self.tables[at].apply(logs)
        return logs

    def records(self) -> dict[ChainId, Table]:
        """Return the newest table of every chain, final or not."""
        return {
            ChainId(world.chain): table
            for world, table in zip(self.worlds, self.tables, strict=True)
        }

    def outstanding(self) -> tuple[Decision, ...]:
        """Return what is sealed and was not seen on its chain."""
        return self.snapshot.book.outstanding

    # --- tokens

    def held(self, at: int, who: str) -> int:
        """Return an actor's tokens on a chain."""
        world = self.worlds[at]
        return int(world.call("DevToken", "balanceOf", world.actor(who)).value)

    def in_contract(self, at: int, name: str) -> int:
        """Return a contract's tokens on a chain."""
        world = self.worlds[at]
        return int(world.call("DevToken", "balanceOf", world.at[name]).value)

    def conserved(self) -> bool:
        """Return whether every chain has exactly the tokens that were minted."""
        return all(
            sum(self.held(at, who) for who in ACTORS)
            + self.in_contract(at, "Escrow")
            + self.in_contract(at, "Intents")
            == PURSE * len(ACTORS)
            for at in range(len(self.worlds))
        )


@contextmanager
def tolerate(reason: str) -> Iterator[None]:
    """Let the block revert with this reason, and no other."""
    try:
        yield
    except Reverted as error:
        if str(error) != reason:
            raise


@contextmanager
def rolled_back(worlds: Sequence[World]) -> Iterator[None]:
    """Undo everything on all chains at the end."""
    with ExitStack() as stack:
        for world in worlds:
            stack.enter_context(world.anchor())
        yield
