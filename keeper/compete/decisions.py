"""The competition's decisions as leaves: awards, voids of healed tasks, penalties.

Award        Awards.execute on the target chain, Bonds.lock on the hub
Attestation  Awards.void: keccak(abi.encode(keccak("Healed(bytes32 task)"), task))
Penalty      Bonds.penalise on the hub
"""

from keeper.compete.state import Charge, OpenAward
from keeper.compete.task import Task
from keeper.hashing import abi_hash, type_hash
from keeper.leaves import attestation_leaf, award_leaf, penalty_leaf
from keeper.snapshot.decisions import Context, Decision
from keeper.units import ChainId

HEALED = type_hash("Healed(bytes32 task)")


def _contract(context: Context, chain: ChainId, name: str) -> bytes:
    address = context.network.chain(chain).contract(name)
    assert address is not None, f"chain {chain} has no {name}"
    return address


def award_decision(context: Context, award: OpenAward) -> Decision:
    """Return the leaf that lets the ranks execute."""
    target = award.task.target
    contract = _contract(context, target.chain, "Awards")
    leaf = award_leaf(
        context.network.id,
        context.epoch,
        target.chain,
        contract,
        task=award.task.id,
        account=target.account,
        venue=target.venue,
        market=target.market,
        max_size=award.task.size,
        price=award.price,
        ranks=award.ranks,
        start=award.start,
        exclusive=award.exclusive,
        step=award.step,
        open_at=award.open_at,
        last=award.last,
        lock=award.lock,
    )
    return Decision(
        kind="Award",
        chain=target.chain,
        contract=contract,
        key=award.task.id,
        leaf=leaf,
        fields=(
            award.task.id,
            target.account,
            target.venue,
            target.market,
            award.task.size,
            award.price,
            award.ranks,
            award.start,
            award.exclusive,
            award.step,
            award.open_at,
            award.last,
            award.lock,
        ),
        expiry=award.last,
    )


def healed_decision(context: Context, task: Task, until: int) -> Decision:
    """Return the attestation that ends a task without punishing anybody."""
    chain = task.target.chain
    contract = _contract(context, chain, "Awards")
    event = abi_hash(("bytes32", "bytes32"), (HEALED, task.id))
    return Decision(
        kind="Attestation",
        chain=chain,
        contract=contract,
        key=task.id,
        leaf=attestation_leaf(context.network.id, context.epoch, chain, contract, event_hash=event),
        fields=(task.id,),
        expiry=until,
    )


def penalty_decision(context: Context, charge: Charge, nonce: int, until: int) -> Decision:
    """Return the leaf that takes part of a bond, until a block of the hub."""
    hub = context.network.hub
    contract = _contract(context, hub, "Bonds")
    leaf = penalty_leaf(
        context.network.id,
        context.epoch,
        hub,
        contract,
        task=charge.task,
        keeper=charge.keeper,
        amount=charge.amount,
        beneficiary=charge.beneficiary,
        nonce=nonce,
        expiry=until,
    )
    return Decision(
        kind="Penalty",
        chain=hub,
        contract=contract,
        key=nonce.to_bytes(8, "big"),
        leaf=leaf,
        fields=(charge.task, charge.keeper, charge.amount, charge.beneficiary, nonce, until),
        expiry=until,
    )
