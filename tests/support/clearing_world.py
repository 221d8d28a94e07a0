"""A model of the contracts on two chains, driven through the real snapshot derivation.

    world = World()                       hub 31501 with vault, bonds, awards; venue chain 31502
    world.deposit(alice, A, 1_000)        model call ─▶ log ─▶ account table of the chain
    world.view()                          observations of all members ─▶ derive ─▶ Snapshot
    world.bring(decision)                 model contract: checks leaf, expiry, nonce, balance

The model refuses exactly what the contracts refuse; its tokens are counted apart from the tables,
so sums can be compared with what really went in and out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

from eth_abi.abi import encode

from keeper.clear.credit import CreditRule
from keeper.clear.release import ReleaseRule
from keeper.clear.transfer import TransferRule
from keeper.compete.award import AwardRule
from keeper.compete.bids import Bid, BidVector, make_vector
from keeper.compete.state import AwardState, decode
from keeper.hashing import keccak, type_hash
from keeper.network import ChainSpec, Feed, NetworkSpec, Token
from keeper.observe.observation import (
    ObservationBody,
    SeenCommitment,
    SeenHead,
    SeenPrice,
)
from keeper.observe.table import EMPTY, Log, Table
from keeper.parameters import Parameters
from keeper.snapshot.decisions import CutBlock, Decision, DecisionRule, Observed
from keeper.snapshot.derive import Lacking, Setting, Snapshot, derive, genesis
from keeper.units import ChainId, ceil_div, symbol
from keeper.venue.book import SystemAccount, house_account, pot_account, system_account

A, B = ChainId(31501), ChainId(31502)
USD = 10**6
E8 = 10**8
ETH = symbol("ETH-USD")
BTC = symbol("BTC-USD")
USDC, WETH = symbol("USDC"), symbol("WETH")
GENESIS_MS = 1_700_000_000_000
NETWORK_ID = keccak(b"clearing world")
UNIT = 10**8  # size units of one coin in both markets
BONUS_PPM = 5_000
IM_PPM = 50_000
BOND = 10**21
SPENT = 3 * 10**14
"""Wei one execution costs its keeper: at the devnet's rate, three quarters of a dollar."""


def fields(decision: Decision) -> Any:
    """Return the fields of a decision without their union type."""
    return decision.fields


class Refused(Exception):
    """What a contract would revert with."""


def address(chain: int, name: str) -> bytes:
    return keccak(f"{chain} {name}".encode())[:20]


def _spec(chain: ChainId) -> ChainSpec:
    names = ["Awards", "Breaker", "Committee", "Perps", "Snapshots", "Vault"]
    if chain == A:
        names.append("Bonds")
    return ChainSpec(
        chain,
        tuple(sorted((name, address(chain, name)) for name in names)),
        (Token(USDC, address(chain, "USDC"), 6), Token(WETH, address(chain, "WETH"), 18)),
        tuple(
            Feed(market, address(chain, market.hex())) for market in sorted((ETH, BTC, USDC, WETH))
        ),
        finality_depth=0,
    )


NETWORK = NetworkSpec(NETWORK_ID, GENESIS_MS, 500, A, (_spec(A), _spec(B)))
HOUSE = house_account(NETWORK, B)
INSURANCE = system_account(NETWORK, SystemAccount.INSURANCE)


def trader(number: int) -> bytes:
    return NETWORK.account((1_000 + number).to_bytes(20, "big"))


def _word(value: bytes) -> bytes:
    return value.rjust(32, b"\0")


def _topic(signature: str) -> bytes:
    return type_hash(signature)


@dataclass
class ModelChain:
    """One chain: a table that grows by logs, blocks, and what its contracts remember."""

    id: ChainId
    number: int = 1
    table: Table = EMPTY
    heads: dict[int, tuple[bytes, Table]] = field(default_factory=dict)
    balances: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    held: dict[bytes, int] = field(default_factory=dict)
    requests: dict[tuple[bytes, bytes], tuple[int, bytes, int]] = field(default_factory=dict)
    nonce: int = 0
    used: set[bytes] = field(default_factory=set)
    positions: dict[tuple[bytes, bytes], tuple[int, int]] = field(default_factory=dict)
    realised: dict[bytes, int] = field(default_factory=dict)
    credits: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)
    credit_nonce: dict[bytes, int] = field(default_factory=dict)
    tasks: dict[bytes, str] = field(default_factory=dict)
    stakes: dict[bytes, int] = field(default_factory=dict)
    punished: set[tuple[bytes, bytes]] = field(default_factory=set)

    def log(
        self, name: str, signature: str, topics: list[bytes], types: list[str], *data: Any
    ) -> None:
        at = address(self.id, name)
        log = Log(at, (_topic(signature), *topics), encode(types, data) if types else b"")
        self.table = self.table.apply((log,))

    def mine(self) -> None:
        self.number += 1
        block_hash = keccak(self.id.to_bytes(8, "big") + self.number.to_bytes(8, "big"))
        self.heads[self.number] = (block_hash, self.table)

    def head(self) -> SeenHead:
        block_hash, table = self.heads[self.number]
        return SeenHead(
            self.id, self.number, block_hash, table.root, GENESIS_MS // 1000 + self.number
        )

    def set_balance(self, account: bytes, token: bytes, amount: int) -> None:
        assert amount >= 0
        self.balances[account, token] = amount
        self.log(
            "Vault",
            "Balance(bytes32,address,uint256)",
            [account, _word(token)],
            ["uint256"],
            amount,
        )

    def add_realised(self, account: bytes, amount: int) -> None:
        total = self.realised.get(account, 0) + amount
        self.realised[account] = total
        self.log("Perps", "Realised(bytes32,int256)", [account], ["int256"], total)

    def set_position(self, account: bytes, market: bytes, size: int, quote: int) -> None:
        self.positions[account, market] = (size, quote)
        self.log(
            "Perps",
            "Position(bytes32,bytes32,int256,int256,int256)",
            [account, market],
            ["int256", "int256", "int256"],
            size,
            quote,
            0,
        )

    def use(self, name: str, leaf: bytes) -> None:
        self.used.add(leaf)
        self.log(name, "LeafUsed(bytes32)", [leaf], [])


@dataclass
class World:
    """See the module."""

    members: int = 4
    rules: tuple[DecisionRule, ...] = (
        TransferRule(),
        ReleaseRule(),
        CreditRule(),
        AwardRule(),
    )
    parameters: Parameters = field(default_factory=lambda: Parameters.devnet([A, B]))
    prices: dict[bytes, int] = field(
        default_factory=lambda: {ETH: 2_000 * E8, BTC: 40_000 * E8, USDC: E8, WETH: 2_000 * E8}
    )

    def __post_init__(self) -> None:
        self.chains = {A: ModelChain(A), B: ModelChain(B)}
        self.addresses = tuple(bytes([100 + i]) * 20 for i in range(self.members))
        faults = (self.members - 1) // 3
        self.setting = Setting(
            NETWORK,
            self.parameters,
            keccak(b"digest"),
            1,
            keccak(b"config"),
            self.addresses,
            faults,
            (self.members + faults) // 2 + 1,
            self.rules,
        )
        self.snapshot: Snapshot = genesis(self.setting)
        self.number = 0
        self.sealed: list[Decision] = []
        self.moved: dict[tuple[ChainId, bytes], int] = {}
        self.commitments: dict[tuple[int, bytes], set[tuple[int, bytes]]] = {}
        self.reveals: dict[int, set[bytes]] = {i: set() for i in range(self.members)}
        self.bodies: dict[bytes, bytes] = {}
        for chain in self.chains.values():
            chain.mine()

    # --- agreement

    def at(self, ref: CutBlock) -> Table | None:
        found = self.chains[ref.chain].heads.get(ref.number)
        return None if found is None or found[0] != ref.hash else found[1]

    def observed(self, tick: int) -> tuple[Observed, ...]:
        heads = tuple(chain.head() for chain in self.chains.values())
        now = GENESIS_MS // 1000 + tick // 2
        prices = tuple(SeenPrice(m, p, now) for m, p in sorted(self.prices.items()))
        found = []
        for i, who in enumerate(self.addresses):
            seen = sorted(
                SeenCommitment(view, bidder, commitment)
                for (view, bidder), entries in self.commitments.items()
                for member, commitment in entries
                if member == i
            )
            body = ObservationBody(tick, heads, prices, tuple(seen), tuple(sorted(self.reveals[i])))
            found.append(Observed(i, who, body))
        return tuple(found)

    def view(self, mine: bool = True, skip: int = 0) -> Snapshot:
        """Let every chain make a block, and decide one view on them."""
        if mine:
            for chain in self.chains.values():
                chain.mine()
        self.number += 1 + skip
        observed = self.observed(self.number)
        result = derive(
            self.setting, self, self.snapshot, self.number, self.number, observed, self.bodies
        )
        assert not isinstance(result, Lacking), result
        self.snapshot, _ = result
        self.sealed += self.snapshot.decisions
        self.reveals = {i: set() for i in range(self.members)}
        return self.snapshot

    @property
    def competition(self) -> AwardState:
        return decode(self.snapshot.book.rules["award"])

    @contextmanager
    def abandoned(self) -> Iterator[None]:
        """Let what happens inside be on branches that no chain keeps; decide no view inside."""
        moved = dict(self.moved)
        before = [
            (model, {k: copy(v) for k, v in vars(model).items()}) for model in self.chains.values()
        ]
        yield
        for model, values in before:
            vars(model).update(values)
        self.moved = moved

    def hand_over(self, last_blocks: dict[ChainId, int]) -> None:
        """Go on as the next epoch; the old key ends on each chain in a block."""
        self.setting = replace(self.setting, epoch=self.setting.epoch + 1, config=keccak(b"next"))
        epoch = (self.setting.epoch - 1).to_bytes(32, "big")
        for chain, block in last_blocks.items():
            self.chains[chain].log(
                "Committee", "EpochExpires(uint32,uint64)", [epoch], ["uint64"], block
            )
        self.commitments.clear()

    # --- bidding

    def commit(
        self, bidder: bytes, bids: dict[bytes, int], salt: int = 0, members: int | None = None
    ) -> BidVector:
        """Gossip a commitment for the round that collects now, to the first `members` members."""
        vector = make_vector(
            self.competition.collecting,
            bidder,
            [Bid(subject, price) for subject, price in bids.items()],
            salt.to_bytes(32, "big"),
        )
        seen = self.commitments.setdefault((vector.view, bidder), set())
        for i in range(self.members if members is None else members):
            if not any(member == i for member, _ in seen):
                seen.add((i, vector.commitment))
        return vector

    def reveal(self, vector: BidVector, members: int | None = None) -> None:
        body = vector.encode()
        self.bodies[vector.commitment] = body
        for i in range(self.members if members is None else members):
            self.reveals[i].add(vector.commitment)

    def auction(self, bids: dict[bytes, dict[bytes, int]]) -> Snapshot:
        """Run one round: every bidder commits and reveals; return the snapshot that awards."""
        vectors = [self.commit(bidder, prices) for bidder, prices in bids.items()]
        self.view()
        for vector in vectors:
            self.reveal(vector)
        return self.view()

    # --- what people do

    def deposit(self, account: bytes, chain: ChainId, amount: int, asset: bytes = USDC) -> None:
        model, token = self.chains[chain], self.token(chain, asset)
        model.set_balance(account, token, model.balances.get((account, token), 0) + amount)
        self.moved[chain, token] = self.moved.get((chain, token), 0) + amount

    def token(self, chain: ChainId, asset: bytes = USDC) -> bytes:
        return next(t.address for t in NETWORK.chain(chain).tokens if t.asset == asset)

    def balance(self, account: bytes, chain: ChainId, asset: bytes = USDC) -> int:
        return self.chains[chain].balances.get((account, self.token(chain, asset)), 0)

    def request_withdraw(
        self, account: bytes, chain: ChainId, amount: int, asset: bytes = USDC
    ) -> None:
        model, token = self.chains[chain], self.token(chain, asset)
        model.nonce += 1
        model.requests[account, token] = (amount, account[:20], model.nonce)
        self._log_request(model, account, token, amount, account[:20], model.nonce)

    def _log_request(
        self, model: ModelChain, account: bytes, token: bytes, amount: int, to: bytes, nonce: int
    ) -> None:
        model.log(
            "Vault",
            "WithdrawRequested(bytes32,address,uint256,address,uint64)",
            [account, _word(token)],
            ["uint256", "address", "uint64"],
            amount,
            to,
            nonce,
        )

    def request_credit(self, account: bytes, limit: int, chain: ChainId = B) -> None:
        model = self.chains[chain]
        nonce = model.credit_nonce.get(account, 0) + 1
        model.credit_nonce[account] = nonce
        model.log(
            "Perps",
            "CreditRequested(bytes32,uint256,uint64)",
            [account],
            ["uint256", "uint64"],
            limit,
            nonce,
        )

    def value(self, market: bytes, size: int) -> int:
        return size * self.prices[market] // (UNIT * 100)

    def increase(self, account: bytes, size: int, market: bytes = ETH, chain: ChainId = B) -> None:
        """Open at the price of the moment, within the credit in force."""
        model = self.chains[chain]
        limit, _, expiry = model.credits.get(account, (0, 0, 0))
        if model.number > expiry:
            raise Refused("credit expired")
        before = model.positions.get((account, market), (0, 0))
        paid = ceil_div(size * self.prices[market], UNIT * 100)
        model.positions[account, market] = (before[0] + size, before[1] - paid)
        used = sum(
            ceil_div(abs(self.value(m, s)) * IM_PPM, 10**6) + max(0, -(self.value(m, s) + q))
            for (who, m), (s, q) in model.positions.items()
            if who == account
        )
        if used > limit:
            model.positions[account, market] = before
            raise Refused("above the credit")
        model.set_position(account, market, *model.positions[account, market])
        self._touch_funding(model, market)

    def _touch_funding(self, model: ModelChain, market: bytes) -> None:
        model.log("Perps", "Funding(bytes32,int256)", [market], ["int256"], 0)

    def close(
        self,
        account: bytes,
        market: bytes = ETH,
        chain: ChainId = B,
        size: int | None = None,
        bonus: int = 0,
        keeper: bytes | None = None,
    ) -> int:
        """Close a position at the price of the moment; return the profit realised."""
        model = self.chains[chain]
        held, quote = model.positions[account, market]
        part = held if size is None else min(abs(held), size) * (1 if held > 0 else -1)
        share = quote * part // held
        profit = self.value(market, part) + share
        model.set_position(account, market, held - part, quote - share)
        house = house_account(NETWORK, chain)
        model.add_realised(account, profit - bonus)
        model.add_realised(house, -profit)
        if keeper is not None:
            model.add_realised(keeper, bonus)
        return profit

    # --- contracts take decisions

    def bring(self, decision: Decision) -> None:
        """Bring a sealed decision to its contract."""
        model = self.chains[decision.chain]
        if decision not in self.sealed:
            raise Refused("not sealed")
        if decision.leaf in model.used:
            raise Refused("decision used")
        dies = decision.kind in ("Credit", "Release", "Transfer", "Penalty")
        if dies and model.number > decision.expiry:
            raise Refused("decision expired")
        getattr(self, f"_bring_{decision.kind.lower()}")(model, decision)

    def _bring_credit(self, model: ModelChain, decision: Decision) -> None:
        account, limit, nonce, expiry = fields(decision)
        if nonce <= model.credits.get(account, (0, 0, 0))[1]:
            raise Refused("decision used")
        if nonce < model.credit_nonce.get(account, 0):
            raise Refused("a newer request is open")
        model.credits[account] = (limit, nonce, expiry)
        model.use("Perps", decision.leaf)
        model.log(
            "Perps",
            "CreditSet(bytes32,uint256,uint64,uint64)",
            [account],
            ["uint256", "uint64", "uint64"],
            limit,
            nonce,
            expiry,
        )

    def _bring_release(self, model: ModelChain, decision: Decision) -> None:
        account, token, amount, to, nonce, _ = fields(decision)
        if model.requests.get((account, token)) != (amount, to, nonce):
            raise Refused("no such request")
        left = model.balances.get((account, token), 0) - amount
        if left < 0:
            raise Refused("balance too low")
        del model.requests[account, token]
        model.use("Vault", decision.leaf)
        self._log_request(model, account, token, 0, to, nonce)
        model.set_balance(account, token, left)
        self.moved[model.id, token] -= amount

    def _bring_transfer(self, model: ModelChain, decision: Decision) -> None:
        source, to, token, amount, _, _ = fields(decision)
        left = model.balances.get((source, token), 0) - amount
        if left < 0:
            raise Refused("balance too low")
        model.use("Vault", decision.leaf)
        model.set_balance(source, token, left)
        model.set_balance(to, token, model.balances.get((to, token), 0) + amount)

    def _bring_attestation(self, model: ModelChain, decision: Decision) -> None:
        (task,) = fields(decision)
        if task in model.tasks:
            raise Refused("task is done")
        model.tasks[task] = "voided"
        model.use("Awards", decision.leaf)
        model.log("Awards", "Voided(bytes32)", [task], [])

    def _bring_penalty(self, model: ModelChain, decision: Decision) -> None:
        task, keeper, amount, to, _, _ = fields(decision)
        if (task, keeper) in model.punished:
            raise Refused("punished already")
        model.punished.add((task, keeper))
        model.use("Bonds", decision.leaf)
        slashed = "Slashed(address,bytes32,uint256,address)"
        model.log("Bonds", slashed, [_word(keeper), task], ["uint256", "address"], amount, to)
        self.bond(keeper, max(0, model.stakes.get(keeper, 0) - amount))

    def bond(self, keeper: bytes, amount: int = BOND, status: int = 1, locked: int = 0) -> None:
        """Set a keeper's bond on the hub."""
        self.chains[A].stakes[keeper] = amount
        self.chains[A].log(
            "Bonds",
            "Bond(address,uint256,uint256,uint8)",
            [_word(keeper)],
            ["uint256", "uint256", "uint8"],
            amount,
            locked,
            status,
        )

    def execute(self, decision: Decision, keeper: bytes, size: int | None = None) -> int:
        """Liquidate by an award as `keeper`; return the rank."""
        task, account, _, market, most, price, ranks, *window, last, lock = fields(decision)
        model = self.chains[decision.chain]
        if task in model.tasks:
            raise Refused("task is done")
        if model.number > last:
            raise Refused("award is over")
        rank = self._rank(model.number, keeper, ranks, *window)
        held, _ = model.positions.get((account, market), (0, 0))
        closed = min(abs(held), most if size is None else size)
        if closed == 0:
            raise Refused("nothing to liquidate")
        notional = ceil_div(closed * self.prices[market], UNIT * 100)
        bonus = notional * BONUS_PPM // 10**6
        due = price if rank == 0 else 0
        if due > bonus:
            raise Refused("bonus below the price")
        model.tasks[task] = "executed"
        purse = NETWORK.account(keeper)
        self.close(account, market, decision.chain, closed, bonus)
        model.add_realised(purse, bonus - due)
        model.add_realised(pot_account(NETWORK, address(decision.chain, "Perps")), due)
        model.use("Awards", decision.leaf)
        model.log(
            "Awards",
            "Executed(bytes32,bytes32,address,uint256,bytes32,uint256,uint256,uint256)",
            [task, account, _word(keeper)],
            ["uint256", "bytes32", "uint256", "uint256", "uint256"],
            rank,
            market,
            closed,
            bonus,
            SPENT,
        )
        if rank:
            model.log(
                "Awards",
                "NoShow(bytes32,address,uint256)",
                [task, _word(ranks[0])],
                ["uint256"],
                lock,
            )
        return rank

    @staticmethod
    def _rank(
        now: int, keeper: bytes, ranks: Any, start: int, exclusive: int, step: int, open_at: int
    ) -> int:
        if now < start:
            raise Refused("too early")
        late = now >= start + exclusive
        for rank, who in enumerate(ranks):
            if who == keeper and (
                (rank == 0 and not late) or (rank and now >= start + exclusive + (rank - 1) * step)
            ):
                return rank
        raise Refused("not your turn")
