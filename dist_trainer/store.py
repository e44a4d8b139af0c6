"""The key-value store through which the learners of an attempt meet: where it is, and on what it listens."""

from __future__ import annotations

import ipaddress
import os
import socket
from datetime import timedelta

from torch._C._distributed_c10d import TCPStore


def store_address() -> tuple[str, int]:
    """As the launcher's environment variables say."""
    return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])


def hold_store(only_here: bool) -> TCPStore:
    """The store, in this process. By itself torch would listen on all of the machine's interfaces.

    It still does where others know this machine by a name, which may be another address to itself.
    """
    listens = None
    if only_here or _is_address(store_address()[0]):
        family, *_, address = socket.getaddrinfo(*store_address(), type=socket.SOCK_STREAM)[0]
        listens = socket.create_server(address, family=family).detach()
    return TCPStore(*store_address(), is_master=True, wait_for_workers=False, master_listen_fd=listens)


def store_client(timeout_s: float) -> TCPStore:
    """Raises RuntimeError if the store is not there by then."""
    return TCPStore(*store_address(), timeout=timedelta(seconds=timeout_s), wait_for_workers=False)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
