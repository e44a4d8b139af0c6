"""torchrun in this process, with a store that listens where it is told to."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from torch._C._distributed_c10d import TCPStore
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError

JOIN_S = 60  # for nodes to come back after learners have failed


@dataclass(frozen=True)
class Part:
    """Of one node in a run on several."""

    run: str  # the same on all nodes, another one after a requeue
    nodes: int
    learners: int  # on this node
    endpoint: str  # host:port of the rendezvous
    address: str  # where this node listens
    max_restarts: int


def start_learners(part: Part, listener: socket.socket | None, command: Sequence[str]) -> int:
    """Exit status: 0 if all learners ended well, else 1. `listener`: on the node that has the endpoint."""
    # On several nodes ranks would else read addresses of the attempt before; on one it would listen everywhere.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    store = _serve(listener) if listener else None
    options = [
        *(f"--nnodes={part.nodes}", f"--nproc-per-node={part.learners}", f"--max-restarts={part.max_restarts}"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint={part.endpoint}", f"--rdzv-id={part.run}"),
        *(f"--rdzv-conf=is_host=false,join_timeout={JOIN_S}", f"--local-addr={part.address}"),
        *("--signals-to-handle=SIGQUIT", "--no-python"),
    ]
    try:
        torchrun.main([*options, *command])
    except ChildFailedError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    except RendezvousError as error:
        what = f"{type(error).__name__} {error}".strip()
        print(f"dist_trainer: the nodes have not found together again: {what}", file=sys.stderr, flush=True)
        return 1
    finally:
        del store  # it has served until here
    return 0


def _serve(listener: socket.socket) -> TCPStore:
    """A store behind this socket, which it takes over. torchrun's own would listen on all addresses of the machine."""
    host, port = listener.getsockname()[:2]
    return TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
