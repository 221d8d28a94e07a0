"""The closed table of reasons: why something was dropped, refused or stopped.

Every drop on the way of a message, an observation or a plan is counted under one code. A code has a
short text for a table and a long one that tells an operator what it means and what to do.
"""

from enum import StrEnum


class Reason(StrEnum):
    """A code; `TEXTS` holds its short and long text."""

    # a peer's message
    MALFORMED = "malformed"
    OVERSIZE = "oversize"
    BAD_SIGNATURE = "bad_signature"
    NOT_A_MEMBER = "not_a_member"
    WRONG_CONFIG = "wrong_config"
    OTHER_EPOCH = "other_epoch"
    WRONG_LEADER = "wrong_leader"
    BELOW_QUORUM = "below_quorum"
    STALE = "stale"
    DUPLICATE = "duplicate"
    TOO_FAR_AHEAD = "too_far_ahead"
    UNKNOWN_PARENT = "unknown_parent"
    RATE_LIMITED = "rate_limited"
    QUEUE_FULL = "queue_full"
    EQUIVOCATION = "equivocation"
    # a threshold signature
    BAD_SHARE = "bad_share"
    SPENT_NONCE = "spent_nonce"
    OTHER_ROOT = "other_root"
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    REFUSED = "refused"
    NOT_ADMITTED = "not_admitted"
    UNREACHABLE = "unreachable"
    RECONNECTING = "reconnecting"
    # a proposal's content
    WRONG_CUT = "wrong_cut"
    WRONG_PRICES = "wrong_prices"
    WRONG_HEADER = "wrong_header"
    WRONG_DECISIONS = "wrong_decisions"
    WRONG_OBSERVATIONS = "wrong_observations"
    MISSING_BLOCK = "missing_block"
    MISSING_PARENT = "missing_parent"
    MISSING_BODY = "missing_body"
    # a chain and its endpoints
    ENDPOINT_DOWN = "endpoint_down"
    ENDPOINT_LIED = "endpoint_lied"
    RPC_ERROR = "rpc_error"
    NO_QUORUM = "no_quorum"
    REVERTED = "reverted"
    BAD_PROOF = "bad_proof"
    TX_REFUSED = "tx_refused"
    # a light client's source
    LOW_PARTICIPATION = "low_participation"
    WRONG_COMMITTEE = "wrong_committee"
    STALLED = "stalled"
    UNTRUSTED_ROOT = "untrusted_root"
    TRUST_EXPIRED = "trust_expired"
    # a transaction of ours
    MODE_OFF = "mode_off"
    PAST_DEADLINE = "past_deadline"
    OVER_CAP = "over_cap"
    NONCE_TAKEN = "nonce_taken"
    NOT_RESERVED = "not_reserved"


TEXTS: dict[Reason, tuple[str, str]] = {
    Reason.MALFORMED: ("malformed", "The bytes do not decode to the schema of their message."),
    Reason.OVERSIZE: ("oversize", "The message is larger than its kind may be."),
    Reason.BAD_SIGNATURE: ("bad signature", "The signature is not the claimed signer's."),
    Reason.NOT_A_MEMBER: ("not a member", "The signer is not in the committee of this epoch."),
    Reason.WRONG_CONFIG: (
        "wrong config",
        "The message belongs to another network or parameter set; compare `keeper status`.",
    ),
    Reason.OTHER_EPOCH: (
        "other epoch",
        "The sender is in another epoch than this keeper, as some are while committees change.",
    ),
    Reason.WRONG_LEADER: ("wrong leader", "A proposal came from a member that does not lead it."),
    Reason.BELOW_QUORUM: ("below quorum", "A certificate carries fewer signatures than a quorum."),
    Reason.STALE: ("stale", "The message is about a view or tick that is already decided."),
    Reason.DUPLICATE: ("duplicate", "The same message was already taken."),
    Reason.TOO_FAR_AHEAD: ("too far ahead", "The message is about a view beyond the window."),
    Reason.UNKNOWN_PARENT: ("unknown parent", "The proposal builds on a block not seen here."),
    Reason.RATE_LIMITED: ("rate limited", "The peer sends faster than its token bucket allows."),
    Reason.QUEUE_FULL: ("queue full", "A bounded queue was full; the oldest entry was dropped."),
    Reason.EQUIVOCATION: (
        "equivocation",
        "A member signed two statements that exclude each other; the pair is kept as evidence.",
    ),
    Reason.REFUSED: (
        "refused",
        "The peer broke the rules before and is muted or refused for a time; see `keeper peers`.",
    ),
    Reason.NOT_ADMITTED: (
        "not admitted",
        "The peer has no bond and every follower place is taken, or its place was revoked.",
    ),
    Reason.RECONNECTING: (
        "reconnecting",
        "The peer connects again and again; two keepers with one identity do this to each other.",
    ),
    Reason.UNREACHABLE: (
        "unreachable",
        "The peer is not connected, or went away before it answered; no fault is counted.",
    ),
    Reason.BAD_SHARE: (
        "bad share",
        "A member's signature share does not fit its nonces and verifying share.",
    ),
    Reason.SPENT_NONCE: (
        "spent nonce",
        "A request names a nonce that was spent, or that a restart destroyed.",
    ),
    Reason.OTHER_ROOT: (
        "other root",
        "A coordinator asked to seal another root than that of our final block.",
    ),
    Reason.TOO_MANY_ATTEMPTS: (
        "too many attempts",
        "A coordinator opened more signing attempts for a view than faulty members can spoil.",
    ),
    Reason.WRONG_CUT: ("wrong cut", "The proposed block references do not follow from the votes."),
    Reason.WRONG_PRICES: ("wrong prices", "The proposed prices are not the agreed medians."),
    Reason.WRONG_HEADER: ("wrong header", "A header field differs from what we computed."),
    Reason.WRONG_DECISIONS: ("wrong decisions", "The decisions do not follow from the rules."),
    Reason.WRONG_OBSERVATIONS: (
        "wrong observations",
        "The attached observations are too few, repeated, or of another tick.",
    ),
    Reason.MISSING_BLOCK: ("missing block", "This node's chain view lacks an agreed block yet."),
    Reason.MISSING_PARENT: ("missing parent", "The state of the parent is not known here yet."),
    Reason.MISSING_BODY: ("missing body", "A body named by its hash has not arrived yet."),
    Reason.ENDPOINT_DOWN: ("endpoint down", "The RPC endpoint does not answer, or too slowly."),
    Reason.ENDPOINT_LIED: (
        "endpoint lied",
        "An endpoint's answer was outvoted or disproven; take it out of the configuration.",
    ),
    Reason.RPC_ERROR: ("rpc error", "The RPC endpoint answered with an error."),
    Reason.NO_QUORUM: (
        "no quorum",
        "Too few RPC endpoints agree on one answer; nothing is done until they do.",
    ),
    Reason.REVERTED: ("reverted", "The transaction or call fails on the chain's state."),
    Reason.BAD_PROOF: ("bad proof", "A state proof does not lead to the block's state root."),
    Reason.TX_REFUSED: ("refused", "No endpoint accepts the signed transaction."),
    Reason.LOW_PARTICIPATION: (
        "low participation",
        "Fewer than two thirds of the sync committee signed; nothing is final until more do.",
    ),
    Reason.WRONG_COMMITTEE: (
        "wrong committee",
        "The source hands out another sync committee than the one that was proven before.",
    ),
    Reason.STALLED: (
        "stalled",
        "The chain's consensus proved no newer final header for longer than the limit.",
    ),
    Reason.UNTRUSTED_ROOT: (
        "untrusted root",
        "The bootstrap is of another block than the trusted one; compare the root with others.",
    ),
    Reason.TRUST_EXPIRED: (
        "trust expired",
        "The newest proven header is older than the trusting period; set a recent trusted root.",
    ),
    Reason.MODE_OFF: ("not live", "The execution mode does not send transactions."),
    Reason.PAST_DEADLINE: ("past deadline", "The block in which it had to be mined has passed."),
    Reason.OVER_CAP: ("over cap", "The fee needed now is more than the task allows."),
    Reason.NONCE_TAKEN: (
        "nonce taken",
        "Another transaction of the same account used the nonce; two programs share one key.",
    ),
    Reason.NOT_RESERVED: ("not reserved", "The capital it needs is not free."),
}


def short(reason: Reason) -> str:
    """Return the text for a table cell."""
    return TEXTS[reason][0]


def long(reason: Reason) -> str:
    """Return the sentence for an operator."""
    return TEXTS[reason][1]
