"""The child process of one policy: framed msgpack in and out, nothing else.

    host ── 4-byte length + Request ──▶ child ── 4-byte length + Reply ──▶ host

Before any plug-in code runs, its prints are sent to stderr and limits are set on memory, files and
core dumps. An audit hook refuses sockets, processes and files that are not modules. The hook is a
trip-wire for mistakes and for honest reviews, NOT a security boundary: code that means harm can get
around it, so run strangers' policies as another user or in a container. What it sees is reported
even when the plug-in swallows the refusal.
"""

import gc
import importlib
import os
import resource
import signal
import sys
from types import ModuleType
from typing import Any

import msgspec

from policies import api

DENIED = (
    ("socket.", "network"),
    ("subprocess.", "process"),
    ("os.fork", "process"),
    ("os.exec", "process"),
    ("os.system", "process"),
    ("os.posix_spawn", "process"),
    ("os.spawn", "process"),
    ("os.kill", "process"),
    ("ctypes.", "native code"),
    ("os.listdir", "file"),
    ("os.scandir", "file"),
    ("os.remove", "file"),
    ("os.rename", "file"),
    ("os.mkdir", "file"),
    ("os.putenv", "process"),
)
MODULE_SUFFIXES = (".py", ".pyc", ".so", ".pyd")
MAX_DETAIL = 400


class TripWire:
    """Refuses what a pure function does not need, and remembers the first refusal."""

    def __init__(self) -> None:
        self.seen: tuple[str, str] | None = None
        self.loading = True

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Judge one audit event.

        Raises:
            PermissionError: the event is not for a policy.
        """
        if event == "open":
            self._open(*arguments[:3])
            return
        for prefix, cause in DENIED:
            if event.startswith(prefix):
                if self.loading and event in ("os.listdir", "os.scandir"):
                    return
                self._refuse(cause, event)

    def _open(self, path: Any, mode: Any, flags: Any) -> None:
        writes = bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if isinstance(path, str) and path.endswith(MODULE_SUFFIXES) and not writes:
            return
        self._refuse("file", f"open {path!r} mode {mode!r}")

    def _refuse(self, cause: str, what: str) -> None:
        if self.seen is None:
            self.seen = (cause, what[:MAX_DETAIL])
        raise PermissionError(f"a policy may not use this: {what[:MAX_DETAIL]}")


def load(target: str) -> type[Any]:
    """Return the class named `module:Class` or `path/to/file.py:Class`."""
    place, _, name = target.rpartition(":")
    if place.endswith(".py"):
        from importlib import util

        spec = util.spec_from_file_location("flowkeeper_policy", place)
        if spec is None or spec.loader is None:
            raise ImportError(f"{place} is not a Python file")
        module: ModuleType = util.module_from_spec(spec)
        sys.modules["flowkeeper_policy"] = module
        sys.path.insert(0, os.path.dirname(os.path.abspath(place)))
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(place)
    found: type[Any] = getattr(module, name)
    return found


def configure(kind: type[Any], raw: bytes) -> Any:
    """Return the policy made from its class and a JSON configuration, checked by its schema."""
    return kind(msgspec.json.decode(raw, type=kind.manifest.config))


def _limit(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


class Pipe:
    """Frames over two descriptors that the plug-in's prints cannot reach."""

    def __init__(self) -> None:
        self._read = os.fdopen(os.dup(0), "rb")
        self._write = os.fdopen(os.dup(1), "wb")
        quiet = os.open(os.devnull, os.O_RDONLY)
        os.dup2(quiet, 0)
        os.close(quiet)
        os.dup2(2, 1)
        self._encode = api.encoder().encode

    def receive(self) -> bytearray | None:
        """Return the next frame, or None when the host has gone."""
        head = self._read.read(4)
        if len(head) < 4:
            return None
        size = int.from_bytes(head, "big")
        body = bytearray(size)
        return body if self._read.readinto(body) == size else None

    def send(self, reply: api.Reply) -> None:
        """Write one frame whole."""
        body = self._encode(reply)
        self._write.write(len(body).to_bytes(4, "big") + body)
        self._write.flush()


def _describe(error: BaseException) -> api.Fault:
    cause = {
        MemoryError: "memory",
        PermissionError: "forbidden",
        RecursionError: "recursion",
        msgspec.ValidationError: "schema",
        SystemExit: "exit",
    }.get(type(error), "exception")
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = ""
    if trace is not None:
        where = f" ({os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})"
    return api.Fault(cause, f"{type(error).__name__}: {error}"[:MAX_DETAIL] + where)


def _refused(wire: TripWire) -> api.Fault | None:
    return None if wire.seen is None else api.Fault(*wire.seen)


def _start(pipe: Pipe, target: str, raw: bytes, wire: TripWire) -> Any:
    sys.addaudithook(wire)
    try:
        kind = load(target)
        policy = configure(kind, raw)
    except BaseException as error:  # noqa: BLE001  a plug-in's import may raise anything
        pipe.send(_refused(wire) or _describe(error))
        return None
    wire.loading = False
    fault = _refused(wire)
    if fault is not None:
        pipe.send(fault)
        return None
    manifest: api.Manifest = kind.manifest
    pipe.send(api.Ready(manifest.api, manifest.kind, manifest.budget_ms, manifest.mem_mb))
    return policy


def _answer(policy: Any, body: bytearray, decode: Any, wire: TripWire) -> api.Reply:
    try:
        request: api.Request = decode(body)
        decisions, state = policy.decide(request.view, request.state)
        reply: api.Reply = api.Answer(request.view.view, tuple(decisions), bytes(state))
    except BaseException as error:  # noqa: BLE001  a plug-in's call may raise anything
        reply = _describe(error)
    return _refused(wire) or reply


def main(target: str, raw: bytes, memory_bytes: int, alarm_s: float) -> None:
    """Serve views until the host closes the pipe.

    Args:
        target: `module:Class` or `file.py:Class`.
        raw: the configuration as JSON.
        memory_bytes: address space limit.
        alarm_s: a view that takes longer ends this process even when the host has died.
    """
    pipe = Pipe()
    _limit(memory_bytes)
    wire = TripWire()
    policy = _start(pipe, target, raw, wire)
    if policy is None:
        return
    decode = api.decoder(api.Request)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    while (body := pipe.receive()) is not None:
        signal.setitimer(signal.ITIMER_REAL, alarm_s)
        reply = _answer(policy, body, decode, wire)
        signal.setitimer(signal.ITIMER_REAL, 0)
        del body
        try:
            pipe.send(reply)
        except (TypeError, OverflowError, ValueError) as error:
            reply = api.Fault("schema", f"{type(error).__name__}: {error}"[:MAX_DETAIL])
            pipe.send(reply)
        if isinstance(reply, api.Fault):
            return


def describe(target: str) -> None:
    """Print the manifest and the configuration schema of a policy as JSON, under the limits."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit(1 << 30)
    sys.addaudithook(TripWire())
    kind = load(target)
    manifest: api.Manifest = kind.manifest
    out.write(
        msgspec.json.encode(
            {
                "api": manifest.api,
                "kind": manifest.kind,
                "budget_ms": manifest.budget_ms,
                "mem_mb": manifest.mem_mb,
                "wants": manifest.wants,
                "summary": (kind.__doc__ or "").strip().partition("\n")[0],
                "schema": msgspec.json.schema(manifest.config),
            }
        )
    )
    out.flush()
