"""What verbs share that read a contract or send an owner's transactions.

A key file holds 64 hex digits. It belongs to whoever owns the tokens, not to the keeper: a node's
own keys never sign for a trader.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio
from eth_utils.address import to_checksum_address

from keeper import config
from keeper.chain.http import HttpRpc
from keeper.contracts import decode_result, encode_call
from keeper.devnet.wallet import Send, Wallet
from keeper.errors import ConfigError
from keeper.units import ChainId


def read_secret(path: Path) -> bytes:
    """Return the private key of a file.

    Raises:
        ConfigError: it has no 64 hex digits.
    """
    try:
        raw = bytes.fromhex(path.read_text().strip().removeprefix("0x"))
    except (OSError, ValueError):
        raw = b""
    if len(raw) != 32:
        raise ConfigError("cannot read the key", where=str(path), remedy="64 hex digits")
    return raw


async def _send(
    settings: config.Config, chain: ChainId, secret: bytes, sends: Sequence[Send]
) -> list[str]:
    rpc = HttpRpc(settings.endpoints[chain][0])
    try:
        return [sent.transaction for sent in await Wallet(rpc, chain, secret).send(*sends)]
    finally:
        await rpc.aclose()


def send(
    settings: config.Config, chain: ChainId, secret: bytes, sends: Sequence[Send]
) -> list[str]:
    """Send transactions on one chain, wait until they are mined, return their hashes.

    Raises:
        LocalError: one was refused or reverted.
        RemoteFault: the endpoint does not answer.
    """
    return trio.run(_send, settings, chain, secret, sends)


async def _ask(settings: config.Config, chain: ChainId, to: bytes, data: bytes) -> bytes:
    rpc = HttpRpc(settings.endpoints[chain][0])
    try:
        call = {"to": to_checksum_address(to), "data": "0x" + data.hex()}
        return bytes.fromhex((await rpc.call("eth_call", [call, "latest"]))[2:])
    finally:
        await rpc.aclose()


def ask(
    settings: config.Config, chain: ChainId, to: bytes, name: str, function: str, *args: object
) -> tuple[Any, ...]:
    """Return what a view function of one of our contracts answers at the head.

    Raises:
        RemoteFault: the endpoint does not answer.
    """
    raw = trio.run(_ask, settings, chain, to, encode_call(name, function, *args))
    return decode_result(name, function, raw)


async def _head_time(settings: config.Config, chain: ChainId) -> int:
    rpc = HttpRpc(settings.endpoints[chain][0])
    try:
        block = await rpc.call("eth_getBlockByNumber", ["latest", False])
        return int(block["timestamp"], 16)
    finally:
        await rpc.aclose()


def head_time(settings: config.Config, chain: ChainId) -> int:
    """Return the timestamp of a chain's head.

    Raises:
        RemoteFault: the endpoint does not answer.
    """
    return trio.run(_head_time, settings, chain)
