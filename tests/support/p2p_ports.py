"""Free TCP ports on loopback, below the range the system hands out to clients."""

import itertools
import os
import socket

_next = itertools.count(20_000 + os.getpid() % 500 * 20)


def free_ports(count: int) -> list[int]:
    """Return ports nobody listens on now."""
    found: list[int] = []
    while len(found) < count:
        port = 20_000 + (next(_next) - 20_000) % 10_000
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found
