"""`keeper snapshot`: look at certified views, prove an account, check a proof, bring decisions."""

from pathlib import Path
from typing import Annotated

import typer

from keeper import config
from keeper.cli import bring
from keeper.cli.output import JsonFlag, console, print_json, print_rows
from keeper.cli.status import fetch
from keeper.errors import ConfigError
from keeper.leaves import seal_message
from keeper.margin.proof import SealedFact, fault, loads
from keeper.snapshot.archive import Archive
from keeper.snapshot.show import summary
from keeper.store import Store
from p2p.frost.aggregate import Signature, verify_signature
from p2p.frost.suite import TR

app = typer.Typer(no_args_is_help=True, help="Certified margin snapshots.")
app.command("bring")(bring.bring)

Home = Annotated[Path, typer.Option(help="The node's home.")]


@app.command()
def show(
    view: Annotated[
        int | None, typer.Argument(help="Which view; the newest sealed if not.")
    ] = None,
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Show one certified view: blocks it is cut at, totals, roots, decisions."""
    settings = config.load(home.resolve())
    store = Store(settings.store_file, read_only=True)
    try:
        archive = Archive(store)
        archived = archive.newest_sealed() if view is None else archive.get(view)
    finally:
        store.close()
    if archived is None:
        raise ConfigError(
            "there is no such view here", where=str(settings.store_file), remedy="try another view"
        )
    value = summary(archived)
    if as_json:
        print_json(value)
        return
    plain = {
        name: "0x" + item.hex() if isinstance(item, bytes) else item for name, item in value.items()
    }
    cut = {chain: ref["number"] for chain, ref in value["cut"].items()}
    kinds = [one["kind"] for one in value["decisions"]]
    counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))) or "none"
    print_rows("Snapshot", (plain | {"cut": cut, "decisions": counted}).items())


@app.command()
def prove(
    account: Annotated[str, typer.Argument(help="Account id, 0x and 64 hex digits.")],
    home: Home = Path(),
    out: Annotated[Path | None, typer.Option(help="Where to write the proof files.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Prove what the newest sealed snapshot says of an account; needs the running node.

    Writes ACCOUNT.state.proof.json, and ACCOUNT.watch.proof.json for an account near its limit.
    """
    settings = config.load(home.resolve())
    texts = fetch(settings.http_host, settings.http_port, f"/proof?id={account}")
    if not texts:
        raise ConfigError(
            f"the newest sealed snapshot does not know account {account}",
            where=f"http://{settings.http_host}:{settings.http_port}",
            remedy="check the id, and whether the node is a member: `keeper status`",
        )
    folder = out or Path()
    written = []
    for text in texts:
        fact = loads(text)
        path = folder / f"{account.removeprefix('0x')[:12]}.{fact.tree}.proof.json"
        path.write_text(text)
        written.append(str(path))
    if as_json:
        print_json({"written": written})
    else:
        print_rows("Proofs", [(Path(name).name, name) for name in written])


def check_seal(fact: SealedFact) -> bool:
    """Return whether the seal of a fact is a BIP340 signature by its group key."""
    message = seal_message(fact.network, fact.epoch, fact.view, fact.root)
    try:
        signature = fact.rx.to_bytes(32, "big") + fact.s.to_bytes(32, "big")
        key = TR.group.decode(b"\x02" + fact.group_key.to_bytes(32, "big"))
        return verify_signature(TR, key, message, Signature.decode(TR, signature))
    except (ValueError, OverflowError):
        return False


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A proof file.")],
    group_key: Annotated[
        str, typer.Option(help="The committee's x-only key that you trust, 0x and 64 hex digits.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Check a proof offline against a group key read from a chain you trust; status 1 if wrong."""
    try:
        fact = loads(file.read_text())
        trusted = int(group_key, 16)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the proof: {error}", where=str(file)) from error
    wrong = fault(fact, check_seal)
    if wrong is None and fact.group_key != trusted:
        wrong = "it is sealed by another key than the one you trust"
    names = [] if wrong is not None else [name for _, name in fact.fact.fields()]
    values = dict(zip(names, fact.fact.values, strict=False))
    if as_json:
        print_json({"valid": wrong is None, "fault": wrong, "view": fact.view, "fact": values})
    elif wrong is None:
        shown = {
            name: "0x" + item.hex() if isinstance(item, bytes) else item
            for name, item in values.items()
        }
        print_rows(f"proven in view {fact.view}", shown.items())
    else:
        console(err=True).print(f"[red]not proven[/]: {wrong}")
    if wrong is not None:
        raise typer.Exit(1)
