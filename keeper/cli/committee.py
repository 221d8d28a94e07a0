"""`keeper committee`: operators make a committee's key together, each on its own machine.

    join     each operator    ──▶ card.json: operator address, peer id and address, signed by both
    create   anyone           ──▶ committee.json from all cards; its config hash is what counts
    accept   each operator    ──▶ compares the config hash, runs the ceremony, keeps its share
    status   each operator    what this home holds, and whether it is sound
    recover  an operator      gets a lost share back from the ceremony's public record
    reshare  each operator    same key, new shares: after a theft, or for a member that lost its own

No dealer, no secret on the wire in the clear, no key file ever overwritten. The ceremony names who
is waited for and who broke it; it is then started again, without them or with them back.
"""

import os
from pathlib import Path
from typing import Annotated

import trio
import typer
from eth_utils.address import to_checksum_address

from keeper import committee, config, keys, network
from keeper.cli.output import JsonFlag, console, print_json, print_rows
from keeper.committee import Card, Plan
from keeper.errors import ConfigError, LocalError
from p2p.frost import keyfile
from p2p.frost.ceremony import Ceremony, CeremonyTiming, Completed, Failed
from p2p.frost.ceremony_service import run_ceremony
from p2p.frost.keys import GroupKey, KeyShare
from p2p.frost.secret import Secret
from p2p.frost.transcript import Recovery, Terms
from p2p.host import Libp2pNetwork
from p2p.identity import peer_id_text

app = typer.Typer(no_args_is_help=True, help="Make and look after the committee's shared key.")

Home = Annotated[Path, typer.Option(help="The node's home.")]
Out = Annotated[Path, typer.Option(help="File to write; it must not exist.")]


ConfigHash = Annotated[
    str, typer.Option("--config", help="The config hash that all operators compared.")
]
Wait = Annotated[float, typer.Option(help="Seconds to wait for the other operators.")]
Linger = Annotated[float, typer.Option(help="Seconds to go on answering those that are not done.")]
QuickKeys = Annotated[
    bool, typer.Option(help="Cheap key files, for devnets whose keys guard nothing.")
]


def _opened(home: Path) -> tuple[config.Config, keys.Keys]:
    settings = config.load(home.resolve())
    return settings, keys.load(settings.keys, settings.password())


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(
            "the file is there already", where=str(path), remedy="choose another name"
        ) from error


@app.command()
def join(
    home: Home,
    address: Annotated[
        str, typer.Option(help="Where others reach this keeper, like /ip4/203.0.113.7/tcp/4001.")
    ],
    out: Out = Path("card.json"),
) -> None:
    """Write this operator's card, for whoever creates the committee file."""
    settings, opened = _opened(home)
    card = Card.make(network.load(settings.network_file).id, opened, address)
    _write(out, card.to_json())
    typer.echo(f"{out}: {to_checksum_address(card.address)} {peer_id_text(card.peer_id)}")


@app.command()
def create(
    cards: Annotated[list[Path], typer.Argument(help="Cards of all members, in member order.")],
    home: Home,
    epoch: Annotated[int, typer.Option(help="Epoch of the committee, at least 1.")] = 1,
    out: Out = Path("committee.json"),
    as_json: JsonFlag = False,
) -> None:
    """Write the committee file of some cards; every operator then runs `accept` on it."""
    settings = config.load(home.resolve())
    spec = network.load(settings.network_file)
    held = tuple(Card.load(path) for path in cards)
    plan = Plan(spec.id, epoch, spec.digest(), held)
    _write(out, plan.to_json())
    _show(plan, as_json)


@app.command()
def accept(
    plan_file: Annotated[Path, typer.Argument(help="The committee file.")],
    home: Home,
    config_hash: ConfigHash = "",
    wait: Wait = 600.0,
    linger: Linger = 15.0,
    quick_keys: QuickKeys = False,
    as_json: JsonFlag = False,
) -> None:
    """Sign the config hash and take part in the key generation; keep the sealed share."""
    settings, opened, plan = _agreed(home, plan_file, config_hash)
    files = committee.Files(settings.keys, plan.epoch)
    files.check_free()
    outcome = _run(plan, opened, settings.listen, CeremonyTiming(join_s=wait, linger_s=linger))
    work = keyfile.QUICK if quick_keys else keyfile.SAFE
    files.save(outcome.share, outcome.recovery, settings.password().encode(), work)
    _print_made("The committee has a key", plan, files, outcome.share, as_json)


@app.command()
def reshare(
    plan_file: Annotated[Path, typer.Argument(help="The committee file of this epoch.")],
    home: Home,
    dealers: Annotated[
        str, typer.Option(help="Members that deal their share anew, like 0,1,3: a quorum or more.")
    ],
    group_file: Annotated[
        Path | None,
        typer.Option("--group", help="group-E.bin of another member, if this one lost its share."),
    ] = None,
    config_hash: ConfigHash = "",
    wait: Wait = 600.0,
    linger: Linger = 15.0,
    quick_keys: QuickKeys = False,
    as_json: JsonFlag = False,
) -> None:
    """Deal the key of this epoch anew; stop the node first, and start all nodes afterwards.

    The key stays as it is on every chain. Old files are kept under another name: delete them once
    all members are done, or the reshare protects nothing.
    """
    settings, opened, plan = _agreed(home, plan_file, config_hash)
    files = committee.Files(settings.keys, plan.epoch)
    password = settings.password().encode()
    share = keyfile.load_key_share(files.share, password) if files.share.exists() else None
    old = share.group if share is not None else _group_of(group_file)
    terms = plan.terms(old, _members(dealers))
    if share is None and plan.seat_of(opened) in terms.dealers:
        raise ConfigError("this home has no share to deal", where="--dealers")
    timing = CeremonyTiming(join_s=wait, linger_s=linger)
    outcome = _run(plan, opened, settings.listen, timing, terms, share)
    work = keyfile.QUICK if quick_keys else keyfile.SAFE
    for path in files.replace(outcome.share, outcome.recovery, password, work):
        console(err=True).print(f"retired: {path}")
    _print_made("The key was dealt anew", plan, files, outcome.share, as_json)


def _group_of(path: Path | None) -> GroupKey:
    if path is None:
        raise ConfigError("no share of this epoch here", remedy="give --group of another member")
    try:
        return GroupKey.decode(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"not a group key: {error}", where=str(path)) from error


def _members(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{text!r} are no members", where="--dealers") from error


def _agreed(home: Path, plan_file: Path, config_hash: str) -> tuple[config.Config, keys.Keys, Plan]:
    """Open the home and the committee file, and have the operator confirm its hash."""
    settings, opened = _opened(home)
    plan = Plan.load(plan_file)
    spec = network.load(settings.network_file)
    if (plan.network, plan.parameters) != (spec.id, spec.digest()):
        raise ConfigError(
            "the committee file is of another network, or of other parameters",
            where=str(plan_file),
            remedy=f"compare it with {settings.network_file}",
        )
    _agree(plan, config_hash, plan_file)
    return settings, opened, plan


def _run(
    plan: Plan,
    opened: keys.Keys,
    listen: str,
    timing: CeremonyTiming,
    terms: Terms | None = None,
    share: KeyShare | None = None,
) -> Completed:
    """Run a ceremony to its end. Raises LocalError that names the culprits."""
    ceremony = Ceremony(
        terms or plan.terms(),
        Secret(opened.identity),
        random_bytes=os.urandom,
        timing=timing,
        share=share,
    )
    outcome = trio.run(_take_part, ceremony, plan, plan.seat_of(opened), opened.identity, listen)
    if isinstance(outcome, Failed):
        raise LocalError(
            "; ".join(f"{plan.name_of(member)} {fault}" for member, fault in outcome.faults),
            where=f"ceremony of epoch {plan.epoch}",
            remedy="no key was made: start again once they are back, or without them",
        )
    return outcome


def _print_made(
    title: str, plan: Plan, files: committee.Files, share: KeyShare, as_json: bool
) -> None:
    value = {
        "epoch": plan.epoch,
        "member": share.identifier - 1,
        "group_key": "0x" + share.group.x_only.hex(),
        "signers": f"{share.group.min_signers} of {share.group.max_signers}",
        "config": "0x" + plan.config.hex(),
        "share": str(files.share),
        "record": str(files.record),
    }
    if as_json:
        print_json(value)
    else:
        print_rows(title, value.items())


def _agree(plan: Plan, config_hash: str, where: Path) -> None:
    """Have the operator confirm the hash, by option or by hand."""
    if config_hash:
        if committee.digest_of(config_hash, "--config") != plan.config:
            raise ConfigError(
                f"the committee file has config 0x{plan.config.hex()}",
                where=str(where),
                remedy="compare the files of all operators; somebody holds another one",
            )
        return
    _show(plan, False)
    typer.confirm("Do all operators see this config hash?", abort=True)


async def _take_part(
    ceremony: Ceremony, plan: Plan, seat: int, seed: bytes, listen: str
) -> Completed | Failed:
    others = tuple(card.dial_address for i, card in enumerate(plan.cards) if i != seat)
    host = Libp2pNetwork(seed, listen, others)
    host.allow(frozenset(ceremony.terms.hosts), frozenset())
    err = console(err=True)

    def on_wait(peers: object) -> None:
        names = ", ".join(plan.name_of(member) for member in ceremony.missing)
        err.print(f"{ceremony.step.name.lower()}: waiting for {names or 'nobody'}")

    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        outcome = await run_ceremony(ceremony, host, on_wait)
        nursery.cancel_scope.cancel()
    return outcome


@app.command()
def status(home: Home, as_json: JsonFlag = False) -> None:
    """Show the shares this home holds, and check each against its public record."""
    settings, opened = _opened(home)
    rows = []
    for files in committee.Files.all(settings.keys):
        share = keyfile.load_key_share(files.share, settings.password().encode())
        rows.append(_row(files, share, opened))
    if as_json:
        print_json(rows)
        return
    if not rows:
        typer.echo("no share yet: keeper committee accept")
    for row in rows:
        print_rows(f"Epoch {row['epoch']}", row.items())


def _row(files: committee.Files, share: KeyShare, opened: keys.Keys) -> dict[str, object]:
    group: GroupKey = share.group
    sound = "absent: this share cannot be recovered"
    if files.record.exists():
        recovered = Recovery.decode(files.record.read_bytes()).open(Secret(opened.identity))
        sound = "sound" if recovered.signing_share == share.signing_share else "of another key"
    return {
        "epoch": files.epoch,
        "identifier": share.identifier,
        "signers": f"{group.min_signers} of {group.max_signers}",
        "group_key": "0x" + group.x_only.hex(),
        "share": str(files.share),
        "record": sound,
    }


@app.command()
def recover(
    record: Annotated[Path, typer.Argument(help="recovery-E.bin of any member of the ceremony.")],
    home: Home,
) -> None:
    """Get this member's lost share back from the public record of the ceremony."""
    settings, opened = _opened(home)
    held = Recovery.decode(record.read_bytes())
    files = committee.Files(settings.keys, held.terms.epoch)
    share = held.open(Secret(opened.identity))
    keyfile.save_key_share(files.share, share, settings.password().encode(), os.urandom)
    typer.echo(f"{files.share}: share {share.identifier} of 0x{share.group.x_only.hex()}")


def _show(plan: Plan, as_json: bool) -> None:
    members = {
        str(i): f"{to_checksum_address(card.address)} {card.dial_address}"
        for i, card in enumerate(plan.cards)
    }
    value = {"config": "0x" + plan.config.hex(), "epoch": plan.epoch, **members}
    if as_json:
        print_json(value)
    else:
        print_rows("Committee", value.items())
