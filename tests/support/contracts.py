"""A chain in memory with the committed artefacts on it, and seals made with a test dealer's key.

    world.call("Vault", "deposit", 0, token, 5, sender=alice) → Receipt(values, logs, gas)
    world.seal(leaves) → Sealed(seal tuple, proofs)            with world.reverts("vault: ..."): ...

A group signature is one BIP340 signature whatever the committee, so a single key stands for it.
Calls run the committed bytecode through titanoboa's py-evm. Gas is that of a whole transaction; it
is exact in an `exact` world, which ends every transaction for good and so cannot be rolled back.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import boa
import pytest
from coincurve import PrivateKey, PublicKey
from eth_abi.abi import decode, encode
from eth_account import Account

from keeper import leaves
from keeper.contracts import abi_type, artifact, deploy_data
from keeper.hashing import abi_hash, keccak, type_hash
from keeper.merkle import merkle_proof, merkle_root
from keeper.units import symbol

NETWORK = keccak(b"test network")
EPOCH = 1
ETH_USD = symbol("ETH-USD")
BTC_USD = symbol("BTC-USD")
USD = 10**6
"""One dollar in µUSD, and one unit of the test stable coin."""
E8 = 10**8
ETHER = 10**18
NEVER = 2**40
BREAKER_STEPS = (10**6, 3_600, 7_200)
"""Of a breaker under test: largest loosening of a limit in ppm, delay and life of its wish, s."""
ZERO = bytes(20)
_ERROR = bytes.fromhex("08c379a0")


class Reverted(Exception):
    """A call that reverted, with its reason."""


@dataclass(frozen=True)
class Receipt:
    """What a transaction answered: values, decoded logs, gas of the whole transaction."""

    values: tuple[Any, ...]
    logs: tuple[tuple[bytes, tuple[bytes, ...], bytes], ...]
    gas: int
    execution: int
    inner: tuple[tuple[bytes, int], ...] = ()
    """Calls this one made: (whom, gas they used)."""

    @property
    def value(self) -> Any:
        """The only answer."""
        (value,) = self.values
        return value


@dataclass(frozen=True)
class Sealed:
    """A sealed root with the proofs of its leaves."""

    seal: tuple[Any, ...]
    leaves: tuple[bytes, ...]

    def proof(self, leaf: bytes) -> tuple[bytes, ...]:
        """Return the proof of one leaf."""
        return merkle_proof(self.leaves, self.leaves.index(leaf))


def lift_even(x: bytes) -> int:
    """Return the even y of the point with this x."""
    return int.from_bytes(PublicKey(b"\x02" + x).format(compressed=False)[33:], "big")


def make_seal(key: PrivateKey, epoch: int, view: int, root: bytes) -> tuple[Any, ...]:
    """Return the Seal tuple of a root, as a committee with this group key makes it."""
    sig = key.sign_schnorr(leaves.seal_message(NETWORK, epoch, view, root))
    rx, s = sig[:32], sig[32:]
    return (epoch, view, root, int.from_bytes(rx, "big"), lift_even(rx), int.from_bytes(s, "big"))


def intrinsic(data: bytes) -> int:
    """Return what a transaction costs before its first instruction."""
    return 21_000 + sum(16 if byte else 4 for byte in data)


def compact(key: bytes, digest: bytes) -> tuple[bytes, bytes]:
    """Return the EIP-2098 (r, vs) of a digest."""
    sig = Account.unsafe_sign_hash(digest, key)
    vs = sig.s | ((sig.v - 27) << 255)
    return sig.r.to_bytes(32, "big"), vs.to_bytes(32, "big")


def typed_digest(struct_hash: bytes, network: bytes = NETWORK) -> bytes:
    """Return the EIP-712 digest under the protocol's domain."""
    domain = abi_hash(
        ("bytes32", "bytes32", "bytes32", "bytes32"),
        (
            type_hash("EIP712Domain(string name,string version,bytes32 salt)"),
            keccak(b"Flowkeeper"),
            keccak(b"1"),
            network,
        ),
    )
    return keccak(b"\x19\x01" + domain + struct_hash)


def vote_digest(epoch: int, config: bytes, kind: int, view: int, digest: bytes) -> bytes:
    """Return what a keeper signs as a vote."""
    kinds = ("bytes32", "uint32", "bytes32", "uint8", "uint64", "bytes32")
    name = type_hash("Vote(uint32 epoch,bytes32 config,uint8 kind,uint64 view,bytes32 digest)")
    return typed_digest(abi_hash(kinds, (name, epoch, config, kind, view, digest)))


def address_of(key: bytes) -> bytes:
    """Return the address of a secret key."""
    return bytes.fromhex(Account.from_key(key).address[2:])


def account_id(owner: bytes, index: int = 0) -> bytes:
    """Return an owner's account."""
    return abi_hash(("bytes32", "address", "uint256"), (NETWORK, owner, index))


@cache
def compiled(path: Path) -> tuple[bytes, tuple[Any, ...]]:
    """Return creation code and ABI of a test contract, compiled here."""
    import vyper

    out = vyper.compile_code(path.read_text(), output_formats=["bytecode", "abi"])
    return bytes.fromhex(out["bytecode"][2:]), tuple(out["abi"])


@dataclass
class World:
    """One chain. Contracts are named; every actor is a 20-byte address with coin."""

    env: boa.Env = field(default_factory=boa.Env)
    at: dict[str, bytes] = field(default_factory=dict)
    abis: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    group: PrivateKey = field(default_factory=lambda: PrivateKey(keccak(b"dealer")))
    view: int = 0
    exact: bool = False

    @contextmanager
    def anchor(self) -> Iterator[None]:
        """Undo everything at the end: the chain, and the names of what was deployed meanwhile."""
        at, abis = dict(self.at), dict(self.abis)
        try:
            with self.env.anchor():
                yield
        finally:
            self.at, self.abis = at, abis

    def actor(self, name: str) -> bytes:
        """Return the address of a named actor, with a thousand coins on first use."""
        address = address_of(self.key(name))
        if self.env.get_balance(hexed(address)) == 0:
            self.env.set_balance(hexed(address), 1_000 * ETHER)
        return address

    @staticmethod
    def key(name: str) -> bytes:
        """Return the secret key of a named actor."""
        return keccak(b"actor " + name.encode())

    @property
    def block(self) -> int:
        """Number of the block the next call is in."""
        return int(self.env.evm.patch.block_number)

    @property
    def now(self) -> int:
        """Timestamp of that block."""
        return int(self.env.evm.patch.timestamp)

    @property
    def chain(self) -> int:
        """Chain id."""
        return int(self.env.evm.patch.chain_id)

    def mine(self, blocks: int = 1, seconds: int | None = None) -> None:
        """Go on by some blocks; a block takes one second unless told otherwise."""
        self.env.evm.patch.block_number += blocks
        self.env.evm.patch.timestamp += blocks if seconds is None else seconds

    # -------------------------------------------------------------- contracts

    def deploy(self, name: str, *args: object, alias: str | None = None) -> bytes:
        """Deploy a committed artefact and return its address."""
        data = deploy_data(name, *args)
        return self._deploy(alias or name, data, artifact(name).abi)

    def deploy_source(self, alias: str, path: Path, *args: object) -> bytes:
        """Compile and deploy a contract that only tests have."""
        code, abi = compiled(path)
        types = next(
            ([abi_type(i) for i in e["inputs"]] for e in abi if e["type"] == "constructor"), []
        )
        return self._deploy(alias, code + encode(types, args), abi)

    def _deploy(self, alias: str, data: bytes, abi: tuple[Any, ...]) -> bytes:
        self._begin()
        address, code = self.env.deploy_code(
            sender=hexed(self.actor("deployer")), bytecode=data, gas=50_000_000
        )
        assert code, f"{alias} did not deploy"
        self.at[alias] = bytes(address.canonical_address)
        self.abis[alias] = abi
        return self.at[alias]

    def _begin(self, *warm: bytes) -> None:
        # a new transaction: values of slots so far are its originals, and nothing is warm
        if not self.exact:
            return
        state = self.env.evm.vm.state
        state.lock_changes()
        state.clear_transient_storage()
        for address in warm:
            state.mark_address_warm(address)

    def call(
        self,
        name: str,
        function: str,
        *args: object,
        sender: str | bytes = "anyone",
        value: int = 0,
        gas: int | None = None,
    ) -> Receipt:
        """Send a transaction, with that gas to execute; raises `Reverted` with the reason."""
        entry = next(
            e for e in self.abis[name] if e["type"] == "function" and e["name"] == function
        )
        types = [abi_type(i) for i in entry["inputs"]]
        data = keccak(f"{function}({','.join(types)})".encode())[:4] + encode(types, args)
        who = self.actor(sender) if isinstance(sender, str) else sender
        self._begin(self.at[name], who)
        result = self.env.execute_code(
            to_address=hexed(self.at[name]), sender=hexed(who), data=data, value=value, gas=gas
        )
        if result.is_error:
            raise Reverted(_reason(bytes(result.output)) or repr(result.error))
        used = intrinsic(data) + int(result.get_gas_used())
        used -= min(used // 5, int(result.get_gas_refund()))
        logs = tuple(
            (bytes(at), tuple(t.to_bytes(32, "big") for t in topics), bytes(blob))
            for at, topics, blob in result.get_log_entries()
        )
        values = tuple(decode([abi_type(o) for o in entry["outputs"]], bytes(result.output)))
        inner = tuple(
            (bytes(call.msg.code_address), int(call.get_gas_used())) for call in result.children
        )
        return Receipt(values, logs, used, int(result.get_gas_used()), inner)

    @contextmanager
    def reverts(self, reason: str) -> Iterator[None]:
        """Expect the block to revert with exactly this reason."""
        with pytest.raises(Reverted) as caught:
            yield
        assert str(caught.value) == reason

    def events(self, receipt: Receipt, name: str, event: str) -> list[dict[str, Any]]:
        """Return the decoded events of one kind that one contract emitted."""
        entry = next(e for e in self.abis[name] if e["type"] == "event" and e["name"] == event)
        types = ",".join(abi_type(i) for i in entry["inputs"])
        wanted = keccak(f"{event}({types})".encode())
        found = []
        for at, topics, blob in receipt.logs:
            if at != self.at[name] or topics[0] != wanted:
                continue
            row: dict[str, Any] = {}
            rest = [i for i in entry["inputs"] if not i["indexed"]]
            keyed = [i for i in entry["inputs"] if i["indexed"]]
            for i, word in zip(keyed, topics[1:], strict=True):
                (row[i["name"]],) = decode([abi_type(i)], word)
            for i, item in zip(rest, decode([abi_type(i) for i in rest], blob), strict=True):
                row[i["name"]] = item
            found.append(row)
        return found

    # -------------------------------------------------------------- seals

    def seal(self, *decided: bytes, epoch: int = EPOCH, key: PrivateKey | None = None) -> Sealed:
        """Return a seal of the next view over some leaves, with one of no meaning beside them."""
        self.view += 1
        rows = (*decided, keccak(b"another decision"))
        root = merkle_root(rows)
        return Sealed(make_seal(key or self.group, epoch, self.view, root), rows)

    def place(self, name: str, epoch: int = EPOCH) -> tuple[bytes, int, int, bytes]:
        """Return the common prefix of a leaf for one contract of this chain."""
        return (NETWORK, epoch, self.chain, self.at[name])

    def attest(self, name: str, type_string: str, word: bytes) -> bytes:
        """Return the attestation leaf of an event with one 32-byte field."""
        event = abi_hash(("bytes32", "bytes32"), (type_hash(type_string), word))
        return leaves.attestation_leaf(*self.place(name), event_hash=event)


def hexed(address: bytes) -> str:
    """Return the checksummed form boa wants."""
    from eth_utils.address import to_checksum_address

    return to_checksum_address(address)


def _reason(output: bytes) -> str:
    if output[:4] == _ERROR:
        (text,) = decode(["string"], output[4:])
        return str(text)
    return "empty revert" if not output else output.hex()


MEMBERS = 4
"""Operators of the test committee: the smallest that tolerates one fault."""
ESCAPE = 1_000
"""Blocks until a leg of a flow may escape."""


def members(count: int = MEMBERS) -> list[bytes]:
    """Return the operators' addresses in member order."""
    return [address_of(World.key(f"operator {i}")) for i in range(count)]


def perps_markets(world: World) -> list[tuple[object, ...]]:
    """Return two markets: parameters as in the devnet."""
    rules = (3600, 8, 100_000, 50_000, 500, 25_000, 10_000, 1_000 * E8)
    return [(ETH_USD, world.at["ETH feed"], *rules), (BTC_USD, world.at["BTC feed"], *rules)]


def deploy_perps(world: World) -> None:
    """Deploy the reference venue beside its awards and its escrow, with its markets' feeds."""
    world.deploy("DevFeed", "ETH / USD", 2_000 * E8, alias="ETH feed")
    world.deploy("DevFeed", "BTC / USD", 60_000 * E8, alias="BTC feed")
    world.deploy(
        "Perps",
        world.at["Snapshots"],
        world.at["Awards"],
        world.at["Escrow"],
        account_id(world.actor("house")),
        [account_id(world.actor(f"share {i}")) for i in range(4)],
        20,
        perps_markets(world),
    )


def build_world(exact: bool = False, operators: int = MEMBERS) -> World:
    """Deploy a whole hub chain: committee, snapshots, bonds, awards, perps, vault, token, feeds."""
    world = World(exact=exact)
    world.env.evm.patch.block_number = 1_000
    world.env.evm.patch.timestamp = 1_700_000_000
    world.deploy("Committee", NETWORK, 10, 100)
    group_key = int.from_bytes(world.group.public_key.format()[1:], "big")
    world.call(
        *("Committee", "genesis", EPOCH, group_key, keccak(b"config"), members(operators)),
        sender="deployer",
    )
    world.deploy("Snapshots", world.at["Committee"])
    day = 86_400
    insurance = world.actor("insurance")
    world.deploy(
        *("Bonds", world.at["Snapshots"], insurance, ETHER, 14 * day, day, 7 * day, 100_000)
    )
    world.deploy("Awards", world.at["Snapshots"], world.at["Bonds"])
    world.call("Bonds", "bind", world.at["Awards"], sender="deployer")
    world.deploy("Escrow", world.at["Snapshots"], ESCAPE)
    deploy_perps(world)
    world.deploy("DevToken", "Dollar", "USDC", 6)
    world.deploy(
        "Vault",
        world.at["Snapshots"],
        50,
        200,
        [(world.at["DevToken"], 100_000 * USD)],
        [world.at["Perps"]],
    )
    return world


def give_credit(world: World, who: str, limit: int, *, expiry: int = NEVER) -> Receipt:
    """Request and apply credit for an actor's first account."""
    asked = world.call("Perps", "request_credit", 0, limit, sender=who)
    nonce = world.events(asked, "Perps", "CreditRequested")[0]["nonce"]
    account = account_id(world.actor(who))
    leaf = leaves.credit_leaf(
        *world.place("Perps"), account=account, limit=limit, nonce=nonce, expiry=expiry
    )
    sealed = world.seal(leaf)
    return world.call(
        *("Perps", "apply_credit", sealed.seal, sealed.proof(leaf)),
        *(account, limit, nonce, expiry),
    )


def set_price(world: World, feed: str, dollars: int) -> None:
    """Publish a price in whole dollars."""
    world.call(f"{feed} feed", "set_answer", dollars * E8, sender="deployer")


def fund(world: World, who: str, amount: int) -> None:
    """Mint tokens to an actor and deposit them into the actor's first account."""
    token = world.at["DevToken"]
    world.call("DevToken", "mint", world.actor(who), amount)
    world.call("DevToken", "approve", world.at["Vault"], amount, sender=who)
    world.call("Vault", "deposit", 0, token, amount, sender=who)


def award_fields(world: World, **changes: Any) -> dict[str, Any]:
    """Return the fields of an award for trader's ETH position; ranks are keepers 0, 1, 2."""
    fields = {
        "task": keccak(b"task"),
        "account": account_id(world.actor("trader")),
        "venue": world.at["Perps"],
        "market": ETH_USD,
        "max_size": 10 * E8,
        "price": 50 * USD,
        "ranks": tuple(world.actor(f"keeper {i}") for i in range(3)),
        "start": world.block,
        "exclusive": 3,
        "step": 2,
        "open_at": world.block + 9,
        "last": world.block + 400,
        "lock": ETHER // 10,
    }
    return {**fields, **changes}


def award_tuple(fields: dict[str, Any]) -> tuple[Any, ...]:
    """Return the Award struct in field order."""
    return tuple(fields.values())


def seal_award(world: World, fields: dict[str, Any], **options: Any) -> tuple[Sealed, bytes]:
    """Return a sealed award and its leaf."""
    epoch = options.get("epoch", EPOCH)
    leaf = leaves.award_leaf(*world.place("Awards", epoch), **fields)
    return world.seal(leaf, **options), leaf


def execute(
    world: World,
    sealed: Sealed,
    leaf: bytes,
    fields: dict[str, Any],
    *,
    sender: str,
    size: int | None = None,
    proof: Sequence[bytes] | None = None,
) -> Receipt:
    """Execute an award for the sender's own purse."""
    return world.call(
        "Awards",
        "execute",
        sealed.seal,
        sealed.proof(leaf) if proof is None else proof,
        award_tuple(fields),
        fields["max_size"] if size is None else size,
        account_id(world.actor(sender)),
        sender=sender,
    )
