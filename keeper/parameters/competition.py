"""How keepers compete for tasks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CompetitionParameters:
    """How keepers win tasks and what they put at stake (docs/competition.md).

    Args:
        reserve_ppm: least price of a task, as a share of the bonus it pays.
        start_blocks: blocks from the chain's head to the first block of an award's window.
        exclusive_blocks, step_blocks: rank 0's window; each later rank's head start.
        ranks: keepers named in one award, at most.
        lock_minimum, lock_price_ppm, lock_value_ppm: bond locked by an award: the largest of a
            minimum, a share of its price, a share of the value to close.
        lapse_blocks: blocks after `openAt` in which an award may still be executed; then it is
            voided, so that a fresh task can be made.
        bond_per_unit: smallest units of the bond's coin that are worth 1 µUSD.
        no_reveal_penalty: µUSD, for a commitment that is not opened.
        jail_after: no-shows of one keeper in an epoch after which it no longer competes.
        open_awards: exclusive awards one keeper may hold at once.
        recent_awards, share_ppm, rival_ppm: a keeper that won more than the share of the last
            awards yields to a rival whose bid is within this distance of its own.
        standing_health_ppm: accounts below may be bid for before they are liquidatable.
        insurance_ppm, committee_ppm, consistency_ppm, protocol_ppm: split of a task's price.
        reward_ticks: ticks between two payments of rewards.
        gas_allowance: µUSD of gas that one execution may cost; half of what is saved is kept.
    """

    reserve_ppm: int
    start_blocks: int
    exclusive_blocks: int
    step_blocks: int
    ranks: int
    lock_minimum: int
    lock_price_ppm: int
    lock_value_ppm: int
    lapse_blocks: int
    bond_per_unit: int
    no_reveal_penalty: int
    jail_after: int
    open_awards: int
    recent_awards: int
    share_ppm: int
    rival_ppm: int
    standing_health_ppm: int
    insurance_ppm: int
    committee_ppm: int
    consistency_ppm: int
    protocol_ppm: int
    reward_ticks: int
    gas_allowance: int
