"""A big decision is stopped by whoever shows that its snapshot names a block that never was."""

from dataclasses import replace
from typing import Any

import pytest

from keeper import leaves
from keeper.clear.challenge import challenge_call
from keeper.hashing import keccak
from keeper.merkle import merkle_proof, merkle_root
from keeper.snapshot.decisions import CutBlock
from keeper.snapshot.header import Header, Totals
from keeper.units import ChainId
from tests.support.contracts import (
    EPOCH,
    NETWORK,
    USD,
    Reverted,
    World,
    account_id,
    fund,
    hexed,
    make_seal,
)

BIG = 100_000 * USD
TRUE, FALSE = keccak(b"true"), keccak(b"false")
ZERO = bytes(32)


class Queued:
    """A big transfer out of alice's account, sealed beside a header and waiting in the vault."""

    def __init__(self, world: World, *, block: int, block_hash: bytes, chain: int = 0) -> None:
        self.world = world
        fund(world, "alice", 2 * BIG)
        place = ChainId(chain or world.chain)
        cut = (
            CutBlock(ChainId(0), 7, keccak(b"elsewhere"), ZERO, 1),
            CutBlock(place, block, block_hash, keccak(b"accounts"), 1_700_000_000),
        )
        world.view += 1
        self.header = Header(
            1, EPOCH, world.view, 9, ZERO, ZERO, cut, ZERO, ZERO, ZERO, ZERO, Totals(-5, 1, 2, 3)
        )
        move: dict[str, Any] = {
            "source": account_id(world.actor("alice")),
            "to": account_id(world.actor("thief")),
            "token": world.at["DevToken"],
            "amount": BIG + 1,
            "nonce": 1,
            "expiry": world.block + 10,
        }
        self.leaf = leaves.transfer_leaf(*world.place("Vault"), **move)
        self.leaves = [self._top(self.header), self.leaf, keccak(b"another")]
        self.seal = make_seal(world.group, EPOCH, world.view, merkle_root(self.leaves))
        proof = merkle_proof(self.leaves, 1)
        world.call("Vault", "transfer", self.seal, proof, *move.values())
        assert self.balance() == BIG - 1

    @staticmethod
    def _top(header: Header) -> bytes:
        return leaves.header_leaf(NETWORK, header.epoch, header.view, header.hash())

    def balance(self) -> int:
        account = account_id(self.world.actor("alice"))
        return int(self.world.call("Vault", "balance_of", account, self.world.at["DevToken"]).value)

    def challenge(self, **changes: Any) -> None:
        """Send the challenge as anybody would, with some part of it changed."""
        shown = {
            "chain": ChainId(self.world.chain),
            "vault": self.world.at["Vault"],
            "header": self.header,
            "leaves": self.leaves,
            "seal": self.seal,
            "leaf": self.leaf,
            **changes,
        }
        call = challenge_call(**shown)
        result = self.world.env.execute_code(
            to_address=hexed(call.to), sender=hexed(self.world.actor("anyone")), data=call.data
        )
        if result.is_error:
            raise Reverted(bytes(result.output)[68:].rstrip(b"\0").decode(errors="replace"))


@pytest.fixture
def past(world: World) -> World:
    """A chain that remembers 256 blocks, all of one hash."""
    world.env.evm.patch.prev_hashes = [TRUE] * 256
    return world


def test_a_false_block_puts_the_balance_back(past: World) -> None:
    queued = Queued(past, block=past.block - 3, block_hash=FALSE)
    queued.challenge()
    assert queued.balance() == 2 * BIG
    past.mine(50)
    with past.reverts("vault: nothing queued"):
        past.call("Vault", "finish", queued.leaf)
    with pytest.raises(Reverted, match="nothing queued"):
        queued.challenge()


def test_a_true_block_cannot_be_challenged(past: World) -> None:
    queued = Queued(past, block=past.block - 3, block_hash=TRUE)
    with pytest.raises(Reverted, match="the header is right"):
        queued.challenge()
    past.mine(50)
    past.call("Vault", "finish", queued.leaf)


def test_a_block_that_is_still_to_come_is_false(past: World) -> None:
    queued = Queued(past, block=past.block + 1_000, block_hash=TRUE)
    queued.challenge()
    assert queued.balance() == 2 * BIG


def test_what_is_too_old_to_be_known_proves_nothing(past: World) -> None:
    queued = Queued(past, block=past.block - 900, block_hash=FALSE)
    code = b"\x7f" + bytes(32) + bytes.fromhex("5f5260205ff3")
    past.env.set_code("0x0000F90827F1c53a10cb7A002335175320002935", code)
    with pytest.raises(Reverted, match="history too short"):
        queued.challenge()


def test_a_snapshot_without_this_chain_says_nothing_about_it(past: World) -> None:
    queued = Queued(past, block=past.block - 3, block_hash=FALSE, chain=past.chain + 1)
    with pytest.raises(ValueError, match="is not in"):
        queued.challenge()
    with pytest.raises(Reverted, match="of another chain"):
        queued.challenge(chain=ChainId(past.chain + 1))


def test_only_what_was_sealed_together_counts(past: World) -> None:
    queued = Queued(past, block=past.block - 3, block_hash=TRUE)
    (elsewhere, here) = queued.header.cut
    lie = replace(queued.header, cut=(elsewhere, replace(here, hash=FALSE)))
    with pytest.raises(Reverted, match="header not in the root"):
        queued.challenge(header=lie)
    rows = [Queued._top(lie), queued.leaf]
    own = make_seal(past.group, EPOCH, past.view, merkle_root(rows))
    unsealed = (*own[:5], own[5] - 1)
    with pytest.raises(Reverted, match="seal: not valid"):
        queued.challenge(header=lie, leaves=rows, seal=unsealed)
    other = [queued.leaves[0], keccak(b"another")]
    sealed = make_seal(past.group, EPOCH, past.view, merkle_root(other))
    with pytest.raises(Reverted, match="not in the root"):
        queued.challenge(seal=sealed)
    assert queued.balance() == BIG - 1
