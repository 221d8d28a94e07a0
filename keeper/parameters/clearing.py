"""How one margin account is kept over many chains."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClearingParameters:
    """How one margin account is kept over many chains (docs/clearing.md).

    Args:
        settlement_assets: assets that count at par for transfers, the first is used first.
        credit_blocks, release_blocks, transfer_blocks: life of a decision, in blocks of its chain
            after the cut.
        netting_ticks: realised results are netted over this many ticks before they move.
        transfer_minimum: µUSD; a smaller result waits until it has grown.
    """

    settlement_assets: tuple[bytes, ...]
    credit_blocks: int
    release_blocks: int
    transfer_blocks: int
    netting_ticks: int
    transfer_minimum: int
