"""What the verbs of `keeper policy` share: arguments, plain errors, progress."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.progress import Progress

from keeper.cli.output import console
from keeper.errors import ConfigError, LocalError
from policies.host import PolicyFault
from policies.record import RecordError

T = TypeVar("T")
Step = Callable[[str, int], None]
PolicyName = Annotated[
    str, typer.Argument(help="An installed name, module:Class, or path/to/file.py:Class.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="JSON file with the policy's configuration.")
]


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what a plug-in, a record or a name did wrong into one line with a remedy."""
    try:
        yield
    except PolicyFault as fault:
        raise LocalError(
            f"the policy failed: {fault}", remedy="`keeper policy check` shows where"
        ) from fault
    except RecordError as error:
        raise LocalError(str(error), remedy="name a whole record") from error
    except (LookupError, ValueError, FileExistsError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error


def read_config(path: Path | None) -> dict[str, Any]:
    """Return a policy's configuration from a JSON file, or an empty one."""
    if path is None:
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path}: a configuration is a JSON object")
    return found


def with_progress(total: int | None, as_json: bool, work: Callable[[Step], T]) -> T:
    """Run `work`, showing its progress on stderr unless a machine reads; None: no end is known."""
    if as_json:
        return work(lambda _label, _done: None)
    bars: dict[str, Any] = {}
    with Progress(console=console(err=True), transient=True) as shown:

        def step(label: str, done: int) -> None:
            if label not in bars:
                bars[label] = shown.add_task(label, total=total)
            shown.update(bars[label], completed=done)

        return work(step)
