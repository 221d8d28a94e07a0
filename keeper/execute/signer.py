"""The one object that can spend: a private key and the type 2 transaction it signs (EIP-1559).

coincurve makes eth-account ten times faster; nothing here knows when to sign, only how.
"""

from dataclasses import dataclass

from eth_account import Account
from eth_account.signers.local import LocalAccount

from keeper.execute.fees import Offer
from keeper.hashing import keccak
from keeper.units import ChainId


@dataclass(frozen=True, slots=True)
class Envelope:
    """Everything a type 2 transaction says, but for the signature."""

    chain: ChainId
    nonce: int
    to: bytes
    data: bytes
    value: int
    gas: int
    offer: Offer


class Signer:
    """A key in memory; its repr shows the address only."""

    def __init__(self, key: bytes) -> None:
        self._account: LocalAccount = Account.from_key(key)
        self.address = bytes.fromhex(self._account.address[2:])

    def __repr__(self) -> str:
        return f"Signer({self._account.address})"

    def sign(self, envelope: Envelope) -> tuple[bytes, bytes]:
        """Return (transaction hash, raw transaction)."""
        signed = self._account.sign_transaction(
            {
                "type": 2,
                "chainId": envelope.chain,
                "nonce": envelope.nonce,
                "to": envelope.to,
                "data": envelope.data,
                "value": envelope.value,
                "gas": envelope.gas,
                "maxPriorityFeePerGas": envelope.offer.tip,
                "maxFeePerGas": envelope.offer.max_fee,
            }
        )
        raw = bytes(signed.raw_transaction)
        return keccak(raw), raw
