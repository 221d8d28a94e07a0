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

from keeper.compete.state import AwardState
from keeper.snapshot.decisions import Context


def inherited(context: Context, before: AwardState) -> AwardState:
    """Return the state that this view begins with: another one only when the epoch has changed."""
    if before.epoch == context.epoch:
        return before
    # an award that is no longer outstanding was used, or its key has ended: its chain says which
    ends = {decision.leaf: decision.expiry for decision in context.outstanding}
    awards = []
    for award in before.awards:
        last = min(award.last, ends.get(award.leaf, 0))
        served = award.ill and last + 1 >= award.start + award.exclusive
        awards.append(replace(award, last=last, ill=served, voiding=min(award.voiding, 1)))
    return replace(before, collecting=0, late=(), revealing=(), no_shows=(), awards=tuple(awards))
