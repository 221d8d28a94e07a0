"""Gas of what users and keepers send, measured on the committed bytecode.

Every figure is a whole transaction (intrinsic and calldata included, refunds taken off) unless it
is named "exec". Storage is as in daily use: accounts that traded before, a purse and a pot that
hold something; roots have 16 leaves, so proofs have 4 steps. The winner's overhead is its
transaction less one that would call the venue's `liquidate` and nothing else: what certificate,
window, one execution per task, permission and events cost on top of the liquidation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keeper import leaves
from keeper.contracts import encode_call
from keeper.hashing import abi_hash, keccak, type_hash
from tests.support.contracts import (
    BREAKER_STEPS,
    BTC_USD,
    E8,
    EPOCH,
    ETH_USD,
    ETHER,
    NEVER,
    USD,
    Receipt,
    Sealed,
    World,
    account_id,
    award_fields,
    award_tuple,
    build_world,
    compact,
    execute,
    fund,
    give_credit,
    intrinsic,
    set_price,
    vote_digest,
)

FILLER = tuple(keccak(b"decision %d" % i) for i in range(14))


@dataclass(frozen=True)
class Row:
    """One line of the table; `limit` is the most it may be, if a limit was set."""

    name: str
    gas: int
    limit: int | None = None


def prepared(operators: int = 4) -> World:
    """Return a world in daily use: bonded keepers, a sick trader, warm purse and pot."""
    world = build_world(exact=True, operators=operators)
    for who in ("trader", "other", "keeper 0", "keeper 1"):
        fund(world, who, 5_000 * USD)
        give_credit(world, who, 3_000 * USD)
        world.call("Perps", "increase", 0, BTC_USD, E8 // 100, 0, sender=who)
    world.call("Perps", "increase", 0, ETH_USD, E8, 0, sender="other")
    world.call("Perps", "increase", 0, ETH_USD, 10 * E8, 0, sender="trader")
    world.call("Perps", "reduce", 0, ETH_USD, E8 // 10, 0, sender="trader")
    for i in range(4):
        admin = world.actor(f"admin {i}")
        world.call("Bonds", "join", admin, bytes(32), sender=f"keeper {i}", value=2 * ETHER)
    set_price(world, "ETH", 1_650)
    account = account_id(world.actor("trader"))
    world.call("Perps", "flag", account)
    world.mine(20)
    first, sealed, leaf = awarded(world, keccak(b"first"), max_size=E8, price=USD)
    execute(world, sealed, leaf, first, sender="keeper 0")
    second, sealed, leaf = awarded(world, keccak(b"second"), max_size=E8, price=USD)
    world.mine(3)
    execute(world, sealed, leaf, second, sender="keeper 1")
    return world


def awarded(world: World, task: bytes, **changes: Any) -> tuple[dict[str, Any], Sealed, bytes]:
    """Return (fields, seal, leaf) of an award under a root of 16 leaves."""
    fields = award_fields(world, task=task, **changes)
    leaf = leaves.award_leaf(*world.place("Awards"), **fields)
    return fields, world.seal(leaf, *FILLER), leaf


def votes(world: World, root: bytes, operators: int) -> tuple[Any, ...]:
    """Return the arguments of `ensure_votes` by a quorum of the operators."""
    quorum = (operators + (operators - 1) // 3) // 2 + 1
    parent, body, view = keccak(b"parent"), keccak(b"body"), world.view
    name = type_hash(
        "Block(uint64 parentView,bytes32 parent,uint64 tick,bytes32 bodyHash,bytes32 root)"
    )
    kinds = ("bytes32", "uint64", "bytes32", "uint64", "bytes32", "bytes32")
    block = abi_hash(kinds, (name, view - 1, parent, 5, body, root))
    digest = vote_digest(EPOCH, keccak(b"config"), 3, view, block)
    sigs = [compact(World.key(f"operator {i}"), digest) for i in range(quorum)]
    return (EPOCH, view, root, view - 1, parent, 5, body, (1 << quorum) - 1, sigs)


def public_liquidation() -> int:
    """Return the gas of the same liquidation without any certificate."""
    world = prepared()
    account, purse = account_id(world.actor("trader")), account_id(world.actor("keeper 0"))
    call = ("Perps", "liquidate_public", account, ETH_USD, 5 * E8, purse)
    return world.call(*call, sender="keeper 0").gas


def winner(operators: int) -> tuple[int, int]:
    """Return (gas of the winner's one transaction by a seal, overhead of it)."""
    world = prepared(operators)
    fields, sealed, leaf = awarded(world, keccak(b"task"), max_size=5 * E8)
    done = execute(world, sealed, leaf, fields, sender="keeper 0")
    (venue,) = [gas for to, gas in done.inner if to == world.at["Perps"]]
    purse = account_id(world.actor("keeper 0"))
    target = (fields["task"], fields["account"], ETH_USD, 5 * E8, purse, fields["price"])
    bare = intrinsic(encode_call("Perps", "liquidate", *target)) + venue
    return done.gas, done.gas - bare


def winner_by_votes(operators: int) -> int:
    """Return the gas of the same by ECDSA: the certificate, then the award under the kept root."""
    world = prepared(operators)
    fields, sealed, leaf = awarded(world, keccak(b"task"), max_size=5 * E8)
    root = sealed.seal[2]
    kept = world.call("Snapshots", "ensure_votes", *votes(world, root, operators)).gas
    bare = Sealed((EPOCH, world.view, root, 0, 0, 0), sealed.leaves)
    return kept + execute(world, bare, leaf, fields, sender="keeper 0").gas


def fallback() -> int:
    """Return the gas of rank 1's transaction, which slashes rank 0 on the way."""
    world = prepared()
    fields, sealed, leaf = awarded(world, keccak(b"task"), max_size=5 * E8)
    world.mine(3)
    return execute(world, sealed, leaf, fields, sender="keeper 1").gas


def execution_rows() -> Iterator[Row]:
    """Yield what liquidations cost."""
    yield Row("Perps.liquidate_public: no certificate, own check", public_liquidation())
    for operators in (4, 31):
        gas, overhead = winner(operators)
        yield Row(f"Awards.execute: winner, n = {operators}", gas)
        yield Row(f"winner's overhead, n = {operators}", overhead, 60_000)
    yield Row("Awards.execute: fallback, slashing the winner", fallback())
    for operators, quorum in ((4, 3), (7, 5), (16, 11), (31, 21)):
        name = f"the winner by {quorum}-of-{operators} ECDSA instead of a seal"
        yield Row(name, winner_by_votes(operators))


def account_rows() -> Iterator[Row]:
    """Yield what accounts cost their owners, and those who bring decisions."""
    world = prepared()
    token = world.at["DevToken"]
    for who in ("newcomer", "trader"):
        world.call("DevToken", "mint", world.actor(who), 2_000 * USD)
        world.call("DevToken", "approve", world.at["Vault"], 2_000 * USD, sender=who)
    for who, name in (("newcomer", "Vault.deposit: first"), ("trader", "Vault.deposit: again")):
        yield Row(name, world.call("Vault", "deposit", 0, token, 1_000 * USD, sender=who).gas)
    asked, release = withdrawal(world, nonce=1)
    yield Row("Vault.request_withdraw", asked.gas)
    yield Row("Vault.release: withdraw", release.gas)
    account = account_id(world.actor("trader"))
    move: dict[str, Any] = {
        "source": account,
        "to": account_id(world.actor("other")),
        "token": token,
        "amount": USD,
        "nonce": 1,
        "expiry": NEVER,
    }
    leaf = leaves.transfer_leaf(*world.place("Vault"), **move)
    yield Row("Vault.transfer", bring(world, "Vault", "transfer", leaf, move).gas)
    ask = ("Perps", "request_credit", 0, 4_000 * USD)
    yield Row("Perps.request_credit", world.call(*ask, sender="other").gas)
    credit: dict[str, Any] = {
        "account": account_id(world.actor("other")),
        "limit": 4_000 * USD,
        "nonce": 2,
        "expiry": NEVER,
    }
    leaf = leaves.credit_leaf(*world.place("Perps"), **credit)
    yield Row("Perps.apply_credit", bring(world, "Perps", "apply_credit", leaf, credit).gas)
    grow = ("Perps", "increase", 0, ETH_USD, E8, 0)
    yield Row("Perps.increase: two markets held", world.call(*grow, sender="other").gas)
    shrink = ("Perps", "reduce", 0, ETH_USD, E8, 0)
    yield Row("Perps.reduce", world.call(*shrink, sender="other").gas)


def withdrawal(world: World, nonce: int) -> tuple[Receipt, Receipt]:
    """Return what the trader's request for a dollar, and the release that serves it, were."""
    token, payee = world.at["DevToken"], world.actor("newcomer")
    asked = world.call("Vault", "request_withdraw", 0, token, USD, payee, sender="trader")
    fields: dict[str, Any] = {
        "account": account_id(world.actor("trader")),
        "token": token,
        "amount": USD,
        "to": payee,
        "nonce": nonce,
        "expiry": NEVER,
    }
    leaf = leaves.release_leaf(*world.place("Vault"), **fields)
    return asked, bring(world, "Vault", "release", leaf, fields)


def guard_rows() -> Iterator[Row]:
    """Yield what a bound breaker adds, with no limit set and with both, from the second time on."""
    world = prepared()
    token, vault = world.at["DevToken"], world.at["Vault"]
    breaker = world.deploy(
        "Breaker", world.at["Snapshots"], world.actor("governor"), 100, *BREAKER_STEPS
    )
    world.call("Vault", "bind", breaker, sender="deployer")
    world.call("Breaker", "set_guard", vault, True, sender="governor")
    fund(world, "newcomer", USD)
    scope = token.rjust(32, b"\0")
    nonce = 0
    for state in ("no limits", "limits set"):
        if state == "limits set":
            held = world.call("DevToken", "balanceOf", vault).value
            lane = ("set_lane", scope, False, 10**12, 10**9)
            outflow = ("set_outflow", scope, 3_600, 700_000, 10**11, held)
            for call in (lane, outflow):
                world.call("Breaker", *call, sender="governor")
        withdrawal(world, nonce + 1)
        world.mine()
        nonce += 2
        yield Row(f"Vault.release: bound, {state}", withdrawal(world, nonce)[1].gas)
        world.call("DevToken", "mint", world.actor("trader"), 2_000 * USD)
        world.call("DevToken", "approve", vault, 2_000 * USD, sender="trader")
        put = ("Vault", "deposit", 0, token, 1_000 * USD)
        yield Row(f"Vault.deposit: bound, {state}", world.call(*put, sender="trader").gas)


def bring(world: World, name: str, function: str, leaf: bytes, fields: dict[str, Any]) -> Receipt:
    """Bring a decision under a root of 16 leaves."""
    sealed = world.seal(leaf, *FILLER)
    return world.call(name, function, sealed.seal, sealed.proof(leaf), *fields.values())


def bond_rows() -> Iterator[Row]:
    """Yield what bonds cost."""
    world = prepared()
    admin = world.actor("new admin")
    joined = world.call("Bonds", "join", admin, bytes(32), sender="new keeper", value=2 * ETHER)
    yield Row("Bonds.join", joined.gas)
    fields, sealed, leaf = awarded(world, keccak(b"lock"))
    place = (world.chain, world.at["Awards"])
    locked = world.call(
        *("Bonds", "lock", sealed.seal, sealed.proof(leaf), *place, award_tuple(fields))
    )
    yield Row("Bonds.lock", locked.gas)
    config, view = keccak(b"config"), 7

    def vote(digest: bytes) -> tuple[Any, ...]:
        signed = vote_digest(EPOCH, config, 1, view, digest)
        return (1, digest, compact(world.key("keeper 2"), signed))

    world.actor("reporter")
    pair = (vote(keccak(b"a")), vote(keccak(b"b")))
    slashed = world.call(
        *("Bonds", "slash_conflict", EPOCH, config, view, *pair), sender="reporter"
    )
    yield Row("Bonds.slash_conflict", slashed.gas, 60_000)
    claimed = world.call("Bonds", "claim", world.actor("keeper 1"), sender="keeper 1")
    yield Row("Bonds.claim", claimed.gas)
    keeper = world.actor("keeper 3")
    left = world.call("Bonds", "leave", keeper, sender="admin 3")
    yield Row("Bonds.leave", left.gas)
    world.mine(1, 14 * 86_400)
    taken = world.call("Bonds", "withdraw", keeper, world.actor("admin 3"), sender="admin 3")
    yield Row("Bonds.withdraw", taken.gas)


def seal_rows() -> Iterator[Row]:
    """Yield what a seal costs by itself, execution only, beside k-of-n ECDSA."""
    world = build_world(exact=True)
    sealed = world.seal()
    epoch, view, root, rx, ry, s = sealed.seal
    group_key = int.from_bytes(world.group.public_key.format()[1:], "big")
    message = leaves.seal_message(world.place("Vault")[0], epoch, view, root)
    bare = world.call("Committee", "verify_bip340", group_key, message, rx, ry, s)
    yield Row("seal, exec: signature alone", bare.execution, 4_600)
    known = world.call("Committee", "verify_seal", epoch, view, root, rx, ry, s)
    yield Row("seal, exec: with the epoch's key and expiry", known.execution, 9_200)
    once = world.call("Snapshots", "ensure", sealed.seal)
    yield Row("seal, exec: verified and kept (Snapshots.ensure)", once.execution)
    for operators, quorum in ((4, 3), (7, 5), (16, 11), (31, 21)):
        world = build_world(exact=True, operators=operators)
        world.view = 7
        args = votes(world, keccak(b"root"), operators)
        spent = world.call("Committee", "verify_votes", *args).execution
        yield Row(f"{quorum}-of-{operators} ECDSA votes, exec", spent)


def measure() -> list[Row]:
    """Return the whole table."""
    accounts = [*account_rows(), *guard_rows()]
    return [*seal_rows(), *execution_rows(), *accounts, *bond_rows()]


def table(rows: list[Row]) -> str:
    """Return the table as Markdown."""
    lines = ["| what | gas | at most |", "|---|---:|---:|"]
    for row in rows:
        limit = "" if row.limit is None else f"{row.limit:,}"
        lines.append(f"| {row.name} | {row.gas:,} | {limit} |")
    return "\n".join(lines)


DOCS = Path(__file__).resolve().parents[2] / "docs" / "contracts.md"
BEGIN, END = "<!-- gas: begin -->\n", "\n<!-- gas: end -->"


def documented() -> dict[str, int]:
    """Return name → gas of the table that the documentation shows."""
    text = DOCS.read_text()
    lines = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].splitlines()[2:]
    cells = [line.strip("| ").split(" | ") for line in lines]
    return {row[0].strip(): int(row[1].replace(",", "").strip()) for row in cells}


def write_docs(rows: list[Row]) -> None:
    """Put the table into the documentation."""
    text = DOCS.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    DOCS.write_text(text[:start] + table(rows) + text[end:])
