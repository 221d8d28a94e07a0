"""CCIP 2.0 messages: sending, the committee verifier's proof, execution, and the curse.

    origin        Router.ccipSend ─▶ OnRamp: CCIPMessageSent(…, encoded MessageV1, …)
    keepers       sign keccak(tag, message id); r‖s of each, in the order of the signers' addresses
    destination   OffRamp.execute(message, verifiers, proofs) ─▶ receiver: Any2EVMMessage
    RMN           isCursed(selector): the lane stands still

A failed message may be executed again with other proofs. Tokens that a message moves are the
business of `ccip_lane.py`. Contracts: npm @chainlink/contracts-ccip 2.0.0, unmodified.
"""

from collections.abc import Mapping, Sequence

from keeper.chain.port import Call, Log
from keeper.ecdsa import ORDER
from keeper.hashing import keccak, type_hash
from keeper.route.bridges.message import EVM2ANY
from keeper.route.bridges.port import Read, Send, Stage
from keeper.units import ChainId
from keeper.venue.abi import answers, calldata

MESSAGE_SENT = type_hash(
    "CCIPMessageSent(uint64,address,bytes32,address,uint256,bytes,"
    "(address,uint32,uint32,uint256,bytes)[],bytes[])"
)
STATE_CHANGED = type_hash("ExecutionStateChanged(uint64,uint64,bytes32,uint8,bytes)")
EXECUTED = 2
"""Internal.MessageExecutionState.SUCCESS."""
_SEND = f"ccipSend(uint64,{EVM2ANY})"
_FEE = f"getFee(uint64,{EVM2ANY})"
_SENT = ("address", "uint256", "bytes")
"""What is read of the event: lists of bytes behind it could be made to unpack to gigabytes."""

Message = tuple[bytes, bytes, Sequence[tuple[bytes, int]], bytes, bytes]
"""EVM2AnyMessage: receiver, data, (token, amount)s, fee token, extraArgs."""


def fee_read(chain: ChainId, router: bytes, selector: int, message: Message) -> Read:
    """Return the read of what a message costs in its fee token."""
    return Read(chain, Call(router, calldata(_FEE, selector, message)))


def send(chain: ChainId, router: bytes, selector: int, message: Message, fee: int) -> Send:
    """Return the transaction that sends a message whose fee is paid in the native coin."""
    return Send(chain, router, calldata(_SEND, selector, message), fee)


def message_of(on_ramp: bytes, selector: int, log: Log) -> bytes:
    """Return the encoded message that a log of an on-ramp sent to a chain, or nothing.

    The id is recomputed: a log whose message is not the one it names is none.
    """
    if log.address != on_ramp or len(log.topics) != 4 or log.topics[0] != MESSAGE_SENT:
        return b""
    if int.from_bytes(log.topics[1], "big") != selector:
        return b""
    try:
        raw: bytes = answers(_SENT, log.data)[2]
    except ValueError:
        return b""
    return raw if keccak(raw) == log.topics[3] else b""


def signed_digest(tag: bytes, message: bytes) -> bytes:
    """Return what a committee verifier's signer signs of a message id."""
    return keccak(tag + message)


def committee_proof(tag: bytes, signatures: Mapping[bytes, bytes]) -> bytes:
    """Return what the verifier takes: signer → its 65-byte signature, as r‖s by rising address.

    The verifier assumes v = 27, so a signature with 28 is turned into its other form.
    """
    parts = []
    for signer in sorted(signatures):
        signature = signatures[signer]
        s = int.from_bytes(signature[32:64], "big")
        parts.append(signature[:32] + (s if signature[64] == 27 else ORDER - s).to_bytes(32, "big"))
    body = b"".join(parts)
    return tag + len(body).to_bytes(2, "big") + body


def execute(
    chain: ChainId,
    off_ramp: bytes,
    message: bytes,
    verifiers: Sequence[bytes],
    proofs: Sequence[bytes],
) -> Send:
    """Return the transaction that delivers a message. Anyone may send it."""
    name = "execute(bytes,address[],bytes[],uint32)"
    return Send(chain, off_ramp, calldata(name, message, list(verifiers), list(proofs), 0))


def state_read(chain: ChainId, off_ramp: bytes, message: bytes) -> Read:
    """Return the read of how far a message id is."""
    return Read(chain, Call(off_ramp, calldata("getExecutionState(bytes32)", message)))


def stage_of(answer: bytes) -> Stage:
    """Return ARRIVED once the message was executed; what failed may be executed again."""
    try:
        done = answers(("uint8",), answer)[0] == EXECUTED
    except ValueError:
        return Stage.SENT
    return Stage.ARRIVED if done else Stage.SENT


def cursed_read(chain: ChainId, rmn: bytes, selector: int) -> Read:
    """Return the read of whether the lane with a chain is cursed."""
    subject = selector.to_bytes(16, "big")
    return Read(chain, Call(rmn, calldata("isCursed(bytes16)", subject)))


def is_cursed(answer: bytes) -> bool:
    """Return whether a lane is cursed; one that does not say so plainly is."""
    try:
        return bool(answers(("bool",), answer)[0])
    except ValueError:
        return True
