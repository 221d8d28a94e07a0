"""The challenge: a big decision whose own snapshot names a block that its chain never had.

    leaf ─┐                                  header.cut ─▶ block of this chain, number and hash
          ├─ under one sealed root ─ header ─┘                       ≠ the chain's own history
                                                          └─▶ Vault.challenge puts the balance back

Anyone may bring it while the decision waits in its vault; it needs no keeper and no seal but the
one that is challenged.
"""

from collections.abc import Sequence

from keeper.contracts import encode_call
from keeper.merkle import merkle_proof
from keeper.snapshot.header import Header, cut_bytes, header_values
from keeper.units import ChainId
from keeper.venue.calls import SealTuple
from keeper.venue.port import Call


def challenge_call(
    chain: ChainId,
    vault: bytes,
    header: Header,
    leaves: Sequence[bytes],
    seal: SealTuple,
    leaf: bytes,
) -> Call:
    """Return the call that challenges a queued decision.

    Args:
        chain: chain of the vault.
        vault: where the decision waits.
        header: the snapshot it was sealed with.
        leaves: the leaves under the root in order, the header's first.
        seal: of the root.
        leaf: the decision.

    Raises:
        ValueError: the decision is not under this root, or the snapshot has no block of the chain.
    """
    chains = [ref.chain for ref in header.cut]
    data = encode_call(
        "Vault",
        "challenge",
        seal,
        list(merkle_proof(leaves, leaves.index(leaf))),
        leaf,
        list(merkle_proof(leaves, 0)),
        header_values(header),
        cut_bytes(header.cut),
        chains.index(chain),
    )
    return Call(chain, vault, data)
