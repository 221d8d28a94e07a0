"""ERC-7683 orders: locked on the origin, filled on the destination, settled by an attestation."""

from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_typed_data

from keeper import leaves
from keeper.hashing import abi_hash, keccak, type_hash
from tests.support.contracts import (
    EPOCH,
    NETWORK,
    Receipt,
    World,
    account_id,
    build_world,
    hexed,
)

ORDER = (
    "Order(address inputToken,uint256 inputAmount,bytes32 outputToken,uint256 outputAmount,"
    "bytes32 recipient,bytes32 vault,uint64 destinationChain,bytes32 destinationSettler)"
)
ESCAPE = 7 * 86_400
HOSTILE = Path(__file__).parent / "hostile"
Chains = tuple[World, World]


def word(raw: bytes) -> bytes:
    return raw.rjust(32, b"\0")


@pytest.fixture
def chains(world: World) -> Chains:
    """An origin and a destination, a settler each; 1,000 for the user here, the filler there."""
    other = build_world()
    other.env.evm.patch.chain_id = world.chain + 1
    other.deploy("DevToken", "Padding", "PAD", 6, alias="Padding")
    for chain, who in ((world, "user"), (other, "filler")):
        chain.deploy("Intents", chain.at["Snapshots"], ESCAPE)
        chain.call("DevToken", "mint", chain.actor(who), 1_000)
        chain.call("DevToken", "approve", chain.at["Intents"], 1_000, sender=who)
        chain.actor("filler")
    return world, other


def order(chains: Chains, **changes: Any) -> tuple[int, bytes, bytes]:
    """Return an OnchainCrossChainOrder: 100 here for 90 to the recipient there."""
    origin, destination = chains
    fields = {
        "inputToken": origin.at["DevToken"],
        "inputAmount": 100,
        "outputToken": word(destination.at["DevToken"]),
        "outputAmount": 90,
        "recipient": word(destination.actor("recipient")),
        "vault": bytes(32),
        "destinationChain": destination.chain,
        "destinationSettler": word(destination.at["Intents"]),
        **changes,
    }
    inner = ORDER.partition("(")[2].rstrip(")")
    types = [field.split(" ")[0] for field in inner.split(",")]
    return (origin.now + 60, type_hash(ORDER), encode(types, list(fields.values())))


def opened(chains: Chains, **changes: Any) -> tuple[bytes, bytes]:
    """Open an order; return (order id, origin data)."""
    origin = chains[0]
    receipt = origin.call("Intents", "open", order(chains, **changes), sender="user")
    (event,) = origin.events(receipt, "Intents", "Open")
    resolved = event["resolvedOrder"]
    assert resolved[4] == event["orderId"]
    return event["orderId"], resolved[7][0][2]


def fill(chains: Chains, order_id: bytes, data: bytes, payee: bytes | None = None) -> Receipt:
    destination = chains[1]
    who = word(destination.actor("filler") if payee is None else payee)
    return destination.call("Intents", "fill", order_id, data, who, sender="filler")


def attest(chains: Chains, name: str, *words: bytes, **place: Any) -> tuple[Any, tuple[bytes, ...]]:
    """Return (seal, proof) by the origin's committee of an event on the destination."""
    origin, destination = chains
    fields = ("orderId", "dataHash", "payee")[: len(words)]
    struct = f"{name}({','.join(f'bytes32 {field}' for field in fields)})"
    event = abi_hash(("bytes32",) * (1 + len(words)), (type_hash(struct), *words))
    where = {"chain": destination.chain, "contract": destination.at["Intents"], **place}
    leaf = leaves.attestation_leaf(
        NETWORK, EPOCH, where["chain"], where["contract"], event_hash=event
    )
    sealed = origin.seal(leaf)
    return sealed.seal, sealed.proof(leaf)


def claim(chains: Chains, order_id: bytes, data: bytes, payee: bytes, **place: Any) -> None:
    proof = attest(chains, "Filled", order_id, keccak(data), word(payee), **place)
    chains[0].call("Intents", "claim", *proof, order_id, payee)


def held(chain: World, who: str) -> int:
    return int(chain.call("DevToken", "balanceOf", chain.actor(who)).value)


def test_an_order_is_filled_and_its_filler_paid(chains: Chains) -> None:
    origin, destination = chains
    order_id, data = opened(chains)
    assert held(origin, "user") == 900
    fill(chains, order_id, data)
    assert (held(destination, "recipient"), held(destination, "filler")) == (90, 910)
    claim(chains, order_id, data, origin.actor("filler"))
    assert held(origin, "filler") == 100
    with origin.reverts("intents: order is not open"):
        claim(chains, order_id, data, origin.actor("filler"))
    with destination.reverts("intents: filled already"):
        fill(chains, order_id, data)


def test_resolve_says_what_open_will_announce(chains: Chains) -> None:
    origin, destination = chains
    asked = order(chains)
    resolved = origin.call("Intents", "resolve", asked, sender="user").value
    receipt = origin.call("Intents", "open", asked, sender="user")
    assert origin.events(receipt, "Intents", "Open")[0]["resolvedOrder"] == resolved
    user, chain, _, deadline, _, spent, received, instructions = resolved
    assert (bytes.fromhex(user[2:]), chain, deadline) == (
        origin.actor("user"),
        origin.chain,
        asked[0],
    )
    recipient = word(destination.actor("recipient"))
    token = word(destination.at["DevToken"])
    assert spent == ((token, 90, recipient, destination.chain),)
    assert received == ((word(origin.at["DevToken"]), 100, bytes(32), origin.chain),)
    assert instructions[0][:2] == (destination.chain, word(destination.at["Intents"]))
    # the next order of the same words has another id
    again = origin.call("Intents", "resolve", asked, sender="user").value
    assert again[4] != resolved[4]


def test_a_fill_with_other_data_neither_blocks_nor_earns(chains: Chains) -> None:
    origin, destination = chains
    order_id, data = opened(chains)
    thief = word(origin.actor("thief"))
    cheap = encode(
        ("bytes32", "uint256", "bytes32", "bytes32", "uint32"),
        (word(destination.at["DevToken"]), 1, thief, bytes(32), destination.now + 60),
    )
    fill(chains, order_id, cheap, origin.actor("thief"))
    with origin.reverts("intents: not in the root"):
        claim(chains, order_id, cheap, origin.actor("thief"))
    fill(chains, order_id, data)
    claim(chains, order_id, data, origin.actor("filler"))


def test_a_claim_pays_only_whom_the_filler_named(chains: Chains) -> None:
    origin = chains[0]
    order_id, data = opened(chains)
    filler, thief = origin.actor("filler"), origin.actor("thief")
    proof = attest(chains, "Filled", order_id, keccak(data), word(filler))
    with origin.reverts("intents: not in the root"):
        origin.call("Intents", "claim", *proof, order_id, thief)
    for place in ({"chain": origin.chain}, {"contract": origin.at["Vault"]}):
        with origin.reverts("intents: not in the root"):
            claim(chains, order_id, data, filler, **place)
    origin.call("Intents", "claim", *proof, order_id, filler)


def test_late_fills_are_refused_and_the_user_refunded(chains: Chains) -> None:
    origin, destination = chains
    order_id, data = opened(chains)
    destination.mine(61)
    with destination.reverts("intents: too late to fill"):
        fill(chains, order_id, data)
    proof = attest(chains, "Unfilled", order_id, keccak(b"other data"))
    with origin.reverts("intents: not in the root"):
        origin.call("Intents", "refund", *proof, order_id)
    proof = attest(chains, "Unfilled", order_id, keccak(data))
    origin.call("Intents", "refund", *proof, order_id)
    assert held(origin, "user") == 1_000
    with origin.reverts("intents: order is not open"):
        origin.call("Intents", "refund", *proof, order_id)


def test_the_escape_is_days_after_the_deadline(chains: Chains) -> None:
    origin = chains[0]
    order_id, _ = opened(chains)
    origin.mine(1, 60 + ESCAPE - 1)
    with origin.reverts("intents: still waiting"):
        origin.call("Intents", "escape", order_id)
    origin.mine(1, 1)
    origin.call("Intents", "escape", order_id)
    assert held(origin, "user") == 1_000


def test_an_order_can_deliver_into_a_margin_account(chains: Chains) -> None:
    destination = chains[1]
    account = account_id(destination.actor("trader"))
    changes = {"recipient": account, "vault": word(destination.at["Vault"])}
    order_id, data = opened(chains, **changes)
    fill(chains, order_id, data)
    token = destination.at["DevToken"]
    assert destination.call("Vault", "balance_of", account, token).value == 90


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"inputAmount": 0}, "intents: nothing to lock"),
        ({"inputAmount": 1_001}, "token: not approved"),
    ],
)
def test_bad_orders_are_refused(chains: Chains, change: dict[str, Any], reason: str) -> None:
    with chains[0].reverts(reason):
        opened(chains, **change)


def test_orders_of_another_type_or_past_their_deadline_are_refused(chains: Chains) -> None:
    origin = chains[0]
    deadline, kind, data = order(chains)
    with origin.reverts("intents: another order type"):
        origin.call("Intents", "open", (deadline, keccak(b"?"), data), sender="user")
    with origin.reverts("intents: too late to fill"):
        origin.call("Intents", "open", (origin.now, kind, data), sender="user")


def signed(chains: Chains, signer: str = "user", **changes: Any) -> tuple[Any, bytes]:
    """Return a GaslessCrossChainOrder and its EIP-712 signature by a wallet's own encoder."""
    origin = chains[0]
    deadline, kind, data = order(chains)
    message = {
        "originSettler": hexed(origin.at["Intents"]),
        "user": hexed(origin.actor("user")),
        "nonce": 7,
        "originChainId": origin.chain,
        "openDeadline": origin.now + 10,
        "fillDeadline": deadline,
        "orderDataType": kind,
        "orderData": data,
        **changes,
    }
    fields = ["address", "address", "uint256", "uint256", "uint32", "uint32", "bytes32", "bytes"]
    typed = [{"name": name, "type": kind} for name, kind in zip(message, fields, strict=True)]
    domain = {
        "name": "Flowkeeper Intents",
        "version": "1",
        "chainId": origin.chain,
        "verifyingContract": hexed(origin.at["Intents"]),
    }
    text = encode_typed_data(domain, {"GaslessCrossChainOrder": typed}, message)
    made = Account.sign_message(text, World.key(signer))
    return tuple(message.values()), bytes(made.signature)


def test_anyone_opens_for_a_user_who_signed(chains: Chains) -> None:
    origin = chains[0]
    wanted, signature = signed(chains)
    resolved = origin.call("Intents", "resolveFor", wanted, b"").value
    receipt = origin.call("Intents", "openFor", wanted, signature, b"", sender="filler")
    assert origin.events(receipt, "Intents", "Open")[0]["resolvedOrder"] == resolved
    assert held(origin, "user") == 900
    with origin.reverts("intents: nonce used"):
        origin.call("Intents", "openFor", wanted, signature, b"", sender="filler")


@pytest.mark.parametrize(
    ("signer", "change", "reason"),
    [
        ("thief", {}, "intents: not the user's signature"),
        ("user", {"originChainId": 5}, "intents: another chain"),
        ("user", {"originSettler": "0x" + "11" * 20}, "intents: another settler"),
        ("user", {"openDeadline": 1}, "intents: too late to open"),
    ],
)
def test_orders_a_user_did_not_sign_here_are_refused(
    chains: Chains, signer: str, change: dict[str, Any], reason: str
) -> None:
    wanted, signature = signed(chains, signer, **change)
    with chains[0].reverts(reason):
        chains[0].call("Intents", "openFor", wanted, signature, b"", sender="filler")


def test_a_signed_order_cannot_be_changed(chains: Chains) -> None:
    wanted, signature = signed(chains)
    longer = (*wanted[:5], wanted[5] + 1, *wanted[6:])
    with chains[0].reverts("intents: not the user's signature"):
        chains[0].call("Intents", "openFor", longer, signature, b"", sender="filler")


@pytest.mark.parametrize("how", [0, 1, 2], ids=["reverts", "says no", "burns gas"])
def test_a_token_that_refuses_its_receiver_stops_no_settlement(chains: Chains, how: int) -> None:
    origin, destination = chains
    picky = origin.deploy_source("PickyToken", HOSTILE / "PickyToken.vy")
    origin.call("PickyToken", "mint", origin.actor("user"), 200)
    origin.call("PickyToken", "approve", origin.at["Intents"], 200, sender="user")
    filler = origin.actor("filler")
    ids = [opened(chains, inputToken=picky) for _ in range(2)]
    origin.call("PickyToken", "refuse", filler, how)
    for order_id, data in ids:
        fill(chains, order_id, data)
        claim(chains, order_id, data, filler)
        with origin.reverts("intents: order is not open"):
            claim(chains, order_id, data, filler)
    assert origin.call("Intents", "owed", filler, picky).value == 200
    with origin.reverts("intents: token refused"):
        origin.call("Intents", "collect", filler, picky)
    origin.call("PickyToken", "refuse", bytes(20), how)
    origin.call("Intents", "collect", filler, picky)
    assert origin.call("PickyToken", "balanceOf", filler).value == 200
    with origin.reverts("intents: nothing owed"):
        origin.call("Intents", "collect", filler, picky)
    assert held(destination, "recipient") == 180
