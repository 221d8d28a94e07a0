"""One child process of one policy: started with limits, spoken to in frames, killed whole.

    Child.open ──▶ Ready | Fault          ask(request) ──▶ Answer, or PolicyFault with its cause

A child gets no site hooks, no environment but a fixed hash seed, and where the kernel allows it no
network. It leads a session of its own, so that killing it kills whatever it started.
"""

import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import trio

from policies import api

BOOT_S = 10.0
"""Longest start of a child: imports from a cold disk."""
MAX_FRAME = 8 << 20
"""Longest answer: 25,000 decisions of 300 bytes."""
MAX_DECISION = 16 << 10
"""Longest decision: 16 steps of a kilobyte. Decoding one holds the event loop for 7 ms at most."""
AT_ONCE = 16 << 10
"""Bytes of decisions decoded before others get their turn: a hostile answer is decoded slowly."""


class _Answer(msgspec.Struct, frozen=True, tag="answer"):
    """An answer whose decisions are still bytes."""

    view: int
    decisions: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=api.MAX_DECISIONS)]
    state: bytes


_Reply = api.Ready | _Answer | api.Fault
MAX_PRINT_TAIL = 4096


class PolicyFault(Exception):
    """A plug-in broke its contract: `cause` is its name in metrics, `detail` shows it."""

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause, self.detail = cause, detail


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """Which policy to run and within what.

    Args:
        name: as the operator calls it.
        target: `module:Class` or `path/to/file.py:Class`.
        config: for the policy's own config struct.
        budget_ms: time for one view, or 0 for the manifest's wish.
        mem_mb: address space of the child, or 0 for the manifest's wish.
        hash_seed: PYTHONHASHSEED; fixed, so that every keeper iterates alike.
        isolate: run without a network where the kernel allows it.
    """

    name: str
    target: str
    config: Mapping[str, Any] = field(default_factory=dict)
    budget_ms: int = 0
    mem_mb: int = 0
    hash_seed: int = 0
    isolate: bool = True


def search_path(target: str) -> str:
    """Return sys.path for a child without site hooks, with the plug-in's own place."""
    paths = [path for path in sys.path if path]
    names = ["policies", "keeper"]
    place = target.rpartition(":")[0]
    if not place.endswith(".py"):
        names.append(place.partition(".")[0])
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue
        roots = list(spec.submodule_search_locations or ())
        origin = roots[0] if roots else spec.origin
        if origin:
            paths.append(str(Path(origin).parent))
    return os.pathsep.join(dict.fromkeys(paths))


_UNSHARE: list[bool] = []


def _can_unshare() -> bool:
    """Return whether this machine lets an ordinary process drop its network, asked once."""
    if not _UNSHARE:
        tool = shutil.which("unshare")
        _UNSHARE.append(
            tool is not None
            and subprocess.run(  # noqa: S603  a fixed command, no input
                [tool, "-rn", "true"], capture_output=True, check=False
            ).returncode
            == 0
        )
    return _UNSHARE[0]


# msgspec asks for typing_extensions, which takes 40 ms to import and is not needed from 3.11 on.
_BOOT = (
    f"import sys;sys.path[:]=sys.argv[1].split({os.pathsep!r});"
    "sys.modules['typing_extensions']=None;import msgspec;del sys.modules['typing_extensions'];"
    "from policies.worker import main;"
    "main(sys.argv[2],sys.argv[3].encode(),int(sys.argv[4]),float(sys.argv[5]))"
)


def _widen(process: trio.Process) -> None:
    """Give both pipes a megabyte, so that a large view crosses in a few context switches."""
    for stream in (process.stdin, process.stdout):
        if isinstance(stream, trio.lowlevel.FdStream) and hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(PermissionError):  # over this user's share: keep 64 KiB
                fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)


class Child:
    """One running child: frames in, frames out, killed with everything it started."""

    def __init__(self, process: trio.Process, ready: api.Ready | None = None) -> None:
        self.process = process
        self.ready = ready
        self.prints = b""
        self._buffer = bytearray()
        self._decode = api.decoder(_Reply)
        self._decision = api.decoder(api.Decision)
        assert isinstance(process.stdin, trio.lowlevel.FdStream)
        assert isinstance(process.stdout, trio.lowlevel.FdStream)
        self._into, self._from = process.stdin.fileno(), process.stdout.fileno()

    @classmethod
    async def open(
        cls, spec: PolicySpec, mem_mb: int, alarm_s: float, *, quiet: bool = False
    ) -> "Child":
        """Start a child and wait until its policy is loaded.

        Args:
            spec: the policy.
            mem_mb: its address space.
            alarm_s: after which it ends itself, should this process be gone.
            quiet: throw its prints away; otherwise `drain` must run.

        Raises:
            PolicyFault: it did not load.
        """
        command = [
            sys.executable,
            "-S",
            "-s",
            "-P",
            "-B",
            "-c",
            _BOOT,
            search_path(spec.target),
            spec.target,
            msgspec.json.encode(dict(spec.config)).decode(),
            str(mem_mb << 20),
            str(alarm_s),
        ]
        if spec.isolate and _can_unshare():
            command = [str(shutil.which("unshare")), "-rn", *command]
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else subprocess.PIPE,
            env={"PYTHONHASHSEED": str(spec.hash_seed)},
            start_new_session=True,
        )
        child = cls(process)
        _widen(process)
        try:
            with trio.fail_after(BOOT_S):
                reply = await child._reply()
            if not isinstance(reply, api.Ready):
                raise PolicyFault(*_named(reply, "boot"))
            if reply.api != api.API:
                raise PolicyFault("api", f"speaks version {reply.api}, this node {api.API}")
        except trio.TooSlowError:
            await child.close()
            raise PolicyFault("boot", f"not ready after {BOOT_S:g} s") from None
        except BaseException:
            await child.close()
            raise
        child.ready = reply
        return child

    async def drain(self) -> None:
        """Read what the plug-in prints, so a full pipe never blocks it; keep the tail."""
        assert self.process.stderr is not None
        try:
            while data := await self.process.stderr.receive_some(65536):
                self.prints = (self.prints + data)[-MAX_PRINT_TAIL:]
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            return

    async def ask(self, body: bytes, view: int) -> api.Answer:
        """Send a request and return its answer.

        Raises:
            PolicyFault: it broke off, sent noise, or reported a fault.
        """
        try:
            await self._send(len(body).to_bytes(4, "big") + body)
        except BrokenPipeError:
            raise PolicyFault("exit", await self._ending()) from None
        reply = await self._reply()
        if not isinstance(reply, _Answer):
            raise PolicyFault(*_named(reply, "protocol"))
        if reply.view != view or self._buffer:
            raise PolicyFault("protocol", f"answered view {reply.view} when asked for {view}")
        if len(reply.state) > api.MAX_STATE_BYTES:
            raise PolicyFault("oversize", f"state of {len(reply.state)} bytes")
        return api.Answer(reply.view, await self._decisions(reply.decisions), reply.state)

    async def _decisions(self, raws: tuple[msgspec.Raw, ...]) -> tuple[api.Decision, ...]:
        """Return the decisions, a few at a time: the event loop is never away for long."""
        found: list[api.Decision] = []
        done = steps = 0
        for raw in raws:
            size = len(memoryview(raw))
            if size > MAX_DECISION:
                raise PolicyFault("oversize", f"a decision of {size} bytes")
            done += size
            if done > AT_ONCE:
                done = size
                await trio.lowlevel.checkpoint()
            try:
                decision: api.Decision = self._decision(raw)
            except (msgspec.DecodeError, ValueError) as error:
                raise PolicyFault("protocol", str(error)) from None
            steps += len(decision.steps) if isinstance(decision, api.Act) else 0
            if steps > api.MAX_ALL_STEPS:
                raise PolicyFault("oversize", f"more than {api.MAX_ALL_STEPS} steps")
            found.append(decision)
        return tuple(found)

    async def _reply(self) -> _Reply:
        await self._need(4)
        size = int.from_bytes(self._buffer[:4], "big")
        if size > MAX_FRAME:
            raise PolicyFault("protocol", f"a frame of {size} bytes")
        await self._need(4 + size)
        body = bytes(memoryview(self._buffer)[4 : 4 + size])
        self._buffer = self._buffer[4 + size :]
        try:
            reply: _Reply = self._decode(body)
        except (msgspec.DecodeError, ValueError) as error:
            raise PolicyFault("protocol", str(error)) from None
        return reply

    async def _need(self, size: int) -> None:
        while len(self._buffer) < size:
            data = await self._receive()
            if not data:
                raise PolicyFault("exit", await self._ending())
            self._buffer += data

    async def _send(self, data: bytes) -> None:
        """Write all; straight to the descriptor, as a stream's checkpoints double a small view."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._into, left) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._into)

    async def _receive(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._from)
            with contextlib.suppress(BlockingIOError):
                return os.read(self._from, 1 << 20)

    async def _ending(self) -> str:
        with trio.move_on_after(1):
            code = await self.process.wait()
            if code < 0:
                return f"killed by {signal.Signals(-code).name}"
            return f"exit status {code}"
        return "closed its pipe"

    async def close(self) -> None:
        """Kill the child and every process in its session, and reap it."""
        with trio.CancelScope(shield=True):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()
            for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
                if stream is not None:
                    await stream.aclose()


def _named(reply: _Reply, default: str) -> tuple[str, str]:
    if isinstance(reply, api.Fault):
        return reply.cause, reply.detail
    return default, f"unexpected {type(reply).__name__.lower().strip('_')} frame"
