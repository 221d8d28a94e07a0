"""`keeper evidence`: two signed votes of one member that exclude each other.

    list     what this node kept
    verify   check a pair, this node's or one from a file, against the committee that signed it
    submit   bring a pair to the Bonds contract: the culprit loses its bond, the reporter is paid

Evidence needs no trust in the node that kept it: the contract recovers the signer from both votes.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from keeper import config, keys, network
from keeper.chain.http import HttpRpc
from keeper.cli.output import JsonFlag, print_json, print_rows, print_table
from keeper.contracts import encode_call
from keeper.devnet.wallet import Send, Wallet
from keeper.errors import ConfigError
from keeper.store import Store
from p2p.agreement.evidence import Evidence, slash_arguments, verify_evidence
from p2p.agreement.journal import Journal
from p2p.agreement.log import StoreLog
from p2p.agreement.signing import Ecdsa, recover, vote_hash
from p2p.types import Committee, Kind, Vote

app = typer.Typer(no_args_is_help=True, help="Proof that a member said two things.")

Home = Annotated[Path, typer.Option(help="The node's home.")]
Number = Annotated[int, typer.Argument(help="Number of the pair, as `list` shows it.")]
_GAS = 400_000


def _open(home: Path) -> tuple[tuple[Evidence, ...], dict[bytes, Committee]]:
    path = config.load(home.resolve()).store_file
    if not path.exists():
        raise ConfigError("this home has no database yet", where=str(path), remedy="keeper run")
    store = Store(path)
    try:
        known = Journal(store).committees()
        return StoreLog(store).evidence(), {one.config: one for one in known}
    finally:
        store.close()


def _pick(kept: tuple[Evidence, ...], number: int) -> Evidence:
    if not 1 <= number <= len(kept):
        raise ConfigError(
            f"there is no pair {number}, {len(kept)} are kept", remedy="keeper evidence list"
        )
    return kept[number - 1]


def to_json(pair: Evidence) -> dict[str, Any]:
    """Return evidence as JSON values; `from_json` reads it back."""
    votes = [
        {
            "kind": vote.kind.name.lower(),
            "digest": "0x" + vote.digest.hex(),
            "signature": "0x" + vote.signature.hex(),
        }
        for vote in (pair.first, pair.second)
    ]
    return {
        "epoch": pair.first.epoch,
        "config": "0x" + pair.config.hex(),
        "view": pair.view,
        "member": pair.culprit,
        "votes": votes,
    }


def from_json(value: Any, where: str) -> Evidence:
    """Return the evidence of a file.

    Raises:
        ConfigError: the file says something else.
    """

    def raw(text: str, size: int) -> bytes:
        found = bytes.fromhex(text.removeprefix("0x"))
        if len(found) != size:
            raise ValueError(f"{len(found)} bytes where {size} are needed")
        return found

    try:
        epoch, view, member = (int(value[name]) for name in ("epoch", "view", "member"))
        first, second = (
            Vote(
                epoch, Kind[vote["kind"].upper()], view, raw(vote["digest"], 32), member,
                raw(vote["signature"], 64),
            )
            for vote in value["votes"]
        )  # fmt: skip
        return Evidence(raw(value["config"], 32), first, second)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"this is no evidence: {error}", where=where, remedy="keeper evidence list --json"
        ) from error


def _holds(pair: Evidence, committees: dict[bytes, Committee]) -> Committee | None:
    committee = committees.get(pair.config)
    if committee is None or not verify_evidence(committee, Ecdsa(), pair):
        return None
    return committee


@app.command("list")
def list_pairs(home: Home = Path(), as_json: JsonFlag = False) -> None:
    """Show every pair this node kept, oldest first."""
    kept, _ = _open(home)
    if as_json:
        print_json([to_json(pair) for pair in kept])
        return
    print_table(
        ("pair", "epoch", "view", "member", "said", "and"),
        (
            (
                number,
                pair.first.epoch,
                pair.view,
                pair.culprit,
                f"{pair.first.kind.name.lower()} {pair.first.digest.hex()[:8]}",
                f"{pair.second.kind.name.lower()} {pair.second.digest.hex()[:8]}",
            )
            for number, pair in enumerate(kept, 1)
        ),
        title="Evidence" if kept else "No member was caught saying two things.",
    )


@app.command()
def verify(
    number: Annotated[int, typer.Argument(help="Number of the pair; 0 with --file.")] = 0,
    file: Annotated[Path | None, typer.Option(help="JSON of one pair instead.")] = None,
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Check that both votes are the member's and exclude each other; status 1 if not."""
    kept, committees = _open(home)
    if file is not None:
        try:
            pair = from_json(json.loads(file.read_text()), str(file))
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read evidence: {error}", where=str(file)) from error
    else:
        pair = _pick(kept, number)
    committee = _holds(pair, committees)
    rows = {
        "holds": committee is not None,
        "epoch": pair.first.epoch,
        "view": pair.view,
        "member": pair.culprit,
        "address": "0x" + committee.members[pair.culprit].address.hex() if committee else "",
        "first": f"{pair.first.kind.name.lower()} 0x{pair.first.digest.hex()}",
        "second": f"{pair.second.kind.name.lower()} 0x{pair.second.digest.hex()}",
    }
    if as_json:
        print_json(rows)
    else:
        print_rows("Evidence", rows.items())
    if committee is None:
        raise typer.Exit(1)


def slash_call(pair: Evidence) -> bytes:
    """Return the call data of the Bonds contract's `slash_conflict`."""
    return encode_call("Bonds", "slash_conflict", *slash_arguments(pair))


@app.command()
def submit(number: Number, home: Home = Path(), as_json: JsonFlag = False) -> None:
    """Bring a pair to the hub chain; checked here first, so that no gas is wasted."""
    kept, committees = _open(home)
    pair = _pick(kept, number)
    committee = _holds(pair, committees)
    if committee is None:
        raise ConfigError(
            f"pair {number} does not hold against a committee this node knows",
            remedy="keeper evidence verify",
        )
    vote = pair.first
    culprit = recover(vote_hash(committee, vote.kind, vote.view, vote.digest), vote.signature)
    settings = config.load(home.resolve())
    spec = network.load(settings.network_file)
    contract = spec.chain(spec.hub).contract("Bonds")
    if contract is None:
        raise ConfigError("the hub has no Bonds contract", where=str(settings.network_file))
    opened = keys.load(settings.keys, settings.password())

    async def send() -> str:
        rpc = HttpRpc(settings.endpoints[spec.hub][0])
        try:
            wallet = Wallet(rpc, spec.hub, opened.operator)
            sent = await wallet.send(Send(contract, slash_call(pair), 0, gas=_GAS))
        finally:
            await rpc.aclose()
        return sent[0].transaction

    rows = {"slashed": "0x" + (culprit or b"").hex(), "transaction": trio.run(send)}
    if as_json:
        print_json(rows)
    else:
        print_rows("Evidence", rows.items())
