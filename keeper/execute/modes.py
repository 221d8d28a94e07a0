"""How far this keeper goes, decided in one function.

              takes intents   rehearses   signs and sends
    off             –             –              –
    shadow          ✓             –              –
    dry             ✓             ✓              –
    live            ✓             ✓              ✓

`equip` is the only place that reads a mode and the only place that makes a signer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from keeper.errors import ConfigError
from keeper.execute.intent import Lane, Mode
from keeper.execute.signer import Signer
from keeper.units import ChainId

Account = tuple[ChainId, Lane]
KeySource = Callable[[], bytes]
"""Returns a private key; called once, and only in live mode."""


@dataclass(frozen=True, slots=True)
class Equipment:
    """What a mode allows. Without signers nothing can be sent."""

    accepts: bool = False
    rehearses: bool = False
    signers: Mapping[Account, Signer] = field(default_factory=dict)

    @property
    def sends(self) -> bool:
        """Return whether transactions leave this keeper."""
        return bool(self.signers)


def equip(mode: Mode, keys: Mapping[Account, KeySource]) -> Equipment:
    """Return what the mode allows; signers exist in live mode only.

    Raises:
        ConfigError: live without keys, or two lanes of a chain share an account.
    """
    match mode:
        case Mode.OFF:
            return Equipment()
        case Mode.SHADOW:
            return Equipment(accepts=True)
        case Mode.DRY:
            return Equipment(accepts=True, rehearses=True)
        case Mode.LIVE:
            signers = {account: Signer(source()) for account, source in keys.items()}
            _check_owners(signers)
            return Equipment(accepts=True, rehearses=True, signers=signers)


def _check_owners(signers: Mapping[Account, Signer]) -> None:
    owners: dict[tuple[ChainId, bytes], Lane] = {}
    for (chain, lane), signer in signers.items():
        other = owners.setdefault((chain, signer.address), lane)
        if other is not lane:
            raise ConfigError(
                f"lanes {other.value} and {lane.value} of chain {chain} share an account",
                remedy="give every lane its own key: a nonce has one owner",
            )
    if not signers:
        raise ConfigError("live mode needs a key for each chain and lane")
