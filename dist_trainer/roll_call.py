"""Before learners start on several nodes: has every node come? The first one asks, and names those that are missing.

torchrun's rendezvous waits for a number of nodes and, when they do not come, says that it has waited. Here each node
tells its name, in plain text; whoever says anything else is not listened to.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence

LONGEST_LINE = 1024  # bytes
GRACE_S = 5.0  # beyond the deadline, for the answer of a first node that started later
COMPLETE = "complete"
MISSING = "missing "


class NodesMissing(RuntimeError):
    """Some nodes have not come in time; the text names them."""


def listen(address: str, port: int) -> socket.socket:
    """On this address and no other. Port 0: any that is free. Raises OSError."""
    family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((address, port), family=family, backlog=1024)


def call(listener: socket.socket, own: str, nodes: Sequence[str], run: str, patience_s: float) -> None:
    """On the first node: returns when all have told their names. Raises NodesMissing."""
    until = time.monotonic() + patience_s
    came: dict[str, socket.socket] = {}
    with contextlib.ExitStack() as connections:
        while missing := [node for node in nodes if node != own and node not in came]:
            left = until - time.monotonic()
            if left <= 0:
                break
            listener.settimeout(left)
            with contextlib.suppress(OSError):
                connection = connections.enter_context(listener.accept()[0])
                connection.settimeout(min(left, 2.0))  # a stranger who says nothing
                spoken_run, _, node = _read_line(connection).partition(" ")
                if spoken_run == run and node in nodes:
                    came[node] = connection
        for connection in came.values():
            with contextlib.suppress(OSError):
                connection.sendall(f"{MISSING + ' '.join(missing) if missing else COMPLETE}\n".encode())
    listener.settimeout(None)
    if missing:
        raise NodesMissing(_told(missing, patience_s))


def answer(address: str, port: int, own: str, run: str, patience_s: float) -> None:
    """On another node: returns when all have come. Raises NodesMissing."""
    until = time.monotonic() + patience_s + GRACE_S
    problem = "no answer"
    while (left := until - time.monotonic()) > 0:
        try:
            with socket.create_connection((address, port), timeout=min(left, 5.0)) as connection:
                connection.sendall(f"{run} {own}\n".encode())
                connection.settimeout(max(0.1, until - time.monotonic()))
                verdict = _read_line(connection)
        except OSError as error:
            problem = str(error)
            verdict = ""
        if verdict == COMPLETE:
            return
        if verdict.startswith(MISSING):
            raise NodesMissing(_told(verdict.removeprefix(MISSING).split(), patience_s))
        time.sleep(0.2)
    raise NodesMissing(f"node {own} cannot reach the first node at {address} port {port}: {problem}")


def _told(missing: Sequence[str], patience_s: float) -> str:
    return f"no sign of node {', '.join(missing)} after {patience_s:g} s"


def _read_line(connection: socket.socket) -> str:
    """Without its end; raises OSError if the other side has gone or says too much."""
    received = b""
    while not received.endswith(b"\n"):
        more = connection.recv(LONGEST_LINE)
        if not more or len(received) + len(more) > LONGEST_LINE:
            raise OSError("the connection ended")
        received += more
    return received.decode(errors="replace").rstrip("\n")
