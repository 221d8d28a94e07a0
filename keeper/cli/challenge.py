"""`keeper challenge`: stop a big decision whose snapshot names a block that its chain never had.

    LEAF ─▶ archived view: header, decisions, seal ─▶ block of this chain ≠ the endpoint's ─▶ vault

Anyone may; the key only pays for gas. Without a key it says what the chain would be shown.
"""

from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from keeper import config
from keeper.chain.http import HttpRpc
from keeper.clear.challenge import challenge_call
from keeper.cli.account import open_archive
from keeper.cli.onchain import read_secret, send
from keeper.cli.output import JsonFlag, print_json, print_rows
from keeper.devnet.wallet import Send
from keeper.errors import ConfigError
from keeper.settle.seals import leaves_of, seal_tuple
from keeper.snapshot.decisions import CutBlock

app = typer.Typer()
GAS = 500_000


async def _block_hash(settings: config.Config, ref: CutBlock) -> bytes:
    """Return the hash of a block as the endpoint knows it, or nothing where it has none."""
    rpc = HttpRpc(settings.endpoints[ref.chain][0])
    try:
        block = await rpc.call("eth_getBlockByNumber", [hex(ref.number), False])
    finally:
        await rpc.aclose()
    return bytes.fromhex(block["hash"][2:]) if block else b""


@app.command()
def challenge(
    leaf: Annotated[str, typer.Argument(help="The decision that waits, 32 bytes in hex.")],
    home: Annotated[Path, typer.Option(help="The node's home.")] = Path(),
    key: Annotated[Path | None, typer.Option(help="File with the key that pays for gas.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Stop a big decision in its delay, by the history of the chain it is on.

    `keeper account trace` shows the leaves of an account's decisions. The chain checks everything:
    a challenge of a snapshot that is right is refused, and costs its gas.
    """
    try:
        raw = bytes.fromhex(leaf.removeprefix("0x"))
    except ValueError:
        raw = b""
    settings, spec, archive = open_archive(home)
    archived = archive.find_leaf(raw, 0) if len(raw) == 32 else None
    decided = archived.decisions if archived is not None else ()
    decision = next((one for one in decided if one.leaf == raw), None)
    if archived is None or decision is None:
        raise ConfigError(
            "no sealed view here has this decision", where=leaf, remedy="keeper account trace"
        )
    refs = [ref for ref in archived.header.cut if ref.chain == decision.chain]
    if decision.kind not in ("Release", "Transfer") or not refs:
        raise ConfigError(f"a {decision.kind} cannot be challenged", where=leaf)
    found = trio.run(_block_hash, settings, refs[0])
    value: dict[str, Any] = {
        "kind": decision.kind,
        "chain": decision.chain,
        "view": archived.header.view,
        "block": refs[0].number,
        "snapshot_says": refs[0].hash,
        "chain_says": found,
        "contradicted": found != refs[0].hash,
    }
    if key is not None:
        call = challenge_call(
            decision.chain,
            decision.contract,
            archived.header,
            leaves_of(spec.id, archived),
            seal_tuple(archived),
            raw,
        )
        one = Send(call.to, call.data, gas=GAS)
        value["transaction"] = send(settings, call.chain, read_secret(key), [one])[0]
    if as_json:
        print_json(value)
    else:
        rows = [(name, "0x" + v.hex() if isinstance(v, bytes) else v) for name, v in value.items()]
        print_rows("Challenge", rows)
