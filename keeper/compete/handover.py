"""What the competition of one epoch takes over from the one before.

rounds    end with the committee that heard them: nobody is fined for what the next cannot hear
tasks     stay, and are bid for again
awards    live as long as the key that sealed them; a winner whose window it does not outlive
          is not blamed
voids     are attested again
no-shows  are counted anew
charges   stay; a penalty whose seal has ended is due again
"""

from dataclasses import replace

from keeper.compete.state import AwardState, OpenAward
from keeper.snapshot.decisions import Context
from keeper.venue.records import leaf_used


def inherited(context: Context, before: AwardState) -> AwardState:
    """Return the state that this view begins with: another one only when the epoch has changed."""
    if before.epoch == context.epoch:
        return before
    ends = {decision.leaf: decision.expiry for decision in context.outstanding}
    awards = []
    for award in before.awards:
        if _is_used(context, award):
            awards.append(award)
            continue
        last = min(award.last, ends.get(award.leaf, 0))  # not outstanding: its key has ended
        served = award.ill and last + 1 >= award.start + award.exclusive
        awards.append(replace(award, last=last, ill=served, voiding=min(award.voiding, 1)))
    return replace(before, collecting=0, late=(), revealing=(), no_shows=(), awards=tuple(awards))


def _is_used(context: Context, award: OpenAward) -> bool:
    """Return whether the chain of an award shows that it was executed."""
    chain = award.task.target.chain
    records, at = context.tables.get(chain), context.network.chain(chain).contract("Awards")
    return records is not None and at is not None and leaf_used(records, at, award.leaf)
