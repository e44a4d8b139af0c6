"""`python -m dist_trainer.agent`: one node's torchrun, as the scripts of launch/ and slurm/ start it.

What torchrun does not do by itself: it asks which nodes are there, before it waits for them; its store listens on one
address, not on all of the machine's; signals reach torchrun no more, which would kill learners after 30 s, but ask all
learners, through a file, to stop with a checkpoint; and its learners end when whoever has started it is gone.

    python -m dist_trainer.agent --nodes=n1,n2 --node=n2 --port=29500 --learners=4 -- train SETTING=VALUE...

Environment: DIST_TRAINER_STOP_FILE (needed on several nodes; on a file system that all of them see), DIST_TRAINER_LOGS
(a folder: each learner's output is appended to a file there), DIST_TRAINER_JOB, DIST_TRAINER_RESTART.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from dist_trainer import roll_call
from dist_trainer.errors import ConfigError
from dist_trainer.run_status import JOB, RESTART
from dist_trainer.stop import FORCE_AFTER, STOP_FILE, ask_to_stop

SIOCGIFADDR = 0x8915  # linux/sockios.h
LEARNER = Path(__file__).resolve().parents[1] / "launch" / "learner.sh"
ABANDONED_S = 60.0  # for learners to save when whoever started this node has gone


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Options, and what a learner is to do."""
    parser = argparse.ArgumentParser(prog="python -m dist_trainer.agent", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", default="localhost", help="names of all nodes, comma-separated; the first hosts")
    parser.add_argument("--node", help="this one's name among them")
    parser.add_argument("--head", help="address of the first node, where its name has another one")
    parser.add_argument("--port", type=int, default=0, help="where the first node listens; with one node any")
    parser.add_argument("--learners", type=int, required=True, help="on this node")
    parser.add_argument("--interface", help="of the network that learners talk through, and where alone they listen")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds to wait for nodes at the start")
    parser.add_argument("--max-restarts", type=int, default=3, help="of all learners after one has failed")
    parser.add_argument("--follow-stdin", action="store_true", help="stop when the standard input ends")
    parser.add_argument("work", nargs="+", help="-- verb and settings")
    options = parser.parse_args(arguments)
    options.nodes = options.nodes.split(",")
    options.node = options.node or options.nodes[0]
    if options.node not in options.nodes:
        raise ConfigError("--node", options.node, f"must be one of --nodes: {', '.join(options.nodes)}")
    if len(options.nodes) > 1 and not (options.port and os.environ.get(STOP_FILE)):
        raise ConfigError("--nodes", ",".join(options.nodes), f"several nodes need --port and {STOP_FILE}")
    return options, options.work


def own_address(node: str, interface: str | None, alone: bool) -> str:
    """Where this node listens. Raises ConfigError if the others could not reach it there."""
    if interface:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                request = struct.pack("256s", interface.encode()[:15])
                return socket.inet_ntoa(fcntl.ioctl(probe, SIOCGIFADDR, request)[20:24])
        except OSError as error:
            found = ", ".join(name for _, name in socket.if_nameindex())
            raise ConfigError("--interface", interface, f"has no IPv4 address ({error}); here are: {found}") from None
    try:
        address = str(socket.getaddrinfo(node, None, socket.AF_INET)[0][4][0])
    except OSError as error:
        raise ConfigError("--node", node, f"has no IPv4 address: {error}") from None
    if not alone and address.startswith("127.0.1."):  # as Debian's /etc/hosts says of the machine's own name
        raise ConfigError("--node", node, f"is {address} to itself, where nobody reaches it; name the --interface")
    return address


class Signals:
    """Whatever would end torchrun asks all learners to stop instead. A third Ctrl-C ends them at once."""

    def __init__(self, stop_file: Path):
        self.stop_file = stop_file
        self.interrupts = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.interrupts += number == signal.SIGINT
        if self.interrupts >= FORCE_AFTER:
            end_now()
        self.stop(signal.Signals(number).name)

    def stop(self, why: str) -> None:
        try:
            ask_to_stop(self.stop_file)
            os.write(2, f"dist_trainer: {why}: the learners are asked to stop\n".encode())
        except OSError as error:
            os.write(2, f"dist_trainer: {why}, but {self.stop_file} cannot be made: {error}\n".encode())

    def follow_stdin(self) -> None:
        """Lines are requests to stop; at the end of the input nobody is left who could make one."""
        for line in sys.stdin:
            self.stop(line.strip())
        self.stop("whoever started this node has gone")
        time.sleep(ABANDONED_S)
        end_now()


def end_now() -> None:
    """Kills this process and its learners."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                os.kill(int(path.parent.name), signal.SIGKILL)
        except OSError:
            continue
    os._exit(128 + signal.SIGKILL)


def gather_nodes(options: argparse.Namespace, address: str, run: str) -> tuple[str, socket.socket | None]:
    """The endpoint of the rendezvous, and on the first node the socket that listens there. Raises NodesMissing."""
    if options.node != options.nodes[0]:
        head = options.head or options.nodes[0]
        roll_call.answer(head, options.port, options.node, run, options.patience)
        return f"{head}:{options.port}", None
    try:
        listener = roll_call.listen(address, options.port)
    except OSError as error:
        raise ConfigError("--port", options.port, f"cannot listen on {address}: {error.strerror}") from None
    roll_call.call(listener, options.node, options.nodes, run, options.patience)
    return f"{address}:{listener.getsockname()[1]}", listener


def main(arguments: Sequence[str]) -> int:
    """Exit status 0: all learners ended well; 1: some did not; 2: a mistake; 3: nodes are missing."""
    began = time.monotonic()
    try:
        options, work = parse(arguments)
        alone = len(options.nodes) == 1
        interface = options.interface or ("lo" if alone else None)
        address = own_address(options.node, interface, alone)
        run = f"{os.environ.get(JOB, 'run')}.{os.environ.get(RESTART, '0')}"
        with tempfile.TemporaryDirectory(prefix="dist_trainer-") as folder:
            stop_file = Path(os.environ.setdefault(STOP_FILE, f"{folder}/stop"))
            signals = Signals(stop_file)
            if options.follow_stdin:
                threading.Thread(target=signals.follow_stdin, daemon=True).start()
            endpoint, listener = gather_nodes(options, address, run)
            if interface:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
                os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")
            os.environ["DIST_TRAINER_PYTHON"] = sys.executable
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // options.learners)))
            from dist_trainer.torchrun import Part, start_learners  # imports torch: the roll call comes before

            part = Part(run, len(options.nodes), options.learners, endpoint, address, options.max_restarts)
            return start_learners(part, listener, [str(LEARNER), *work])
    except ConfigError as error:
        print(f"dist_trainer: {error}", file=sys.stderr, flush=True)
        return 2
    except roll_call.NodesMissing as error:
        print(f"dist_trainer: {error} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
        return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
