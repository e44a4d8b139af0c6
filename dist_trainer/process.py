"""What a process of this package is to others: it ends with its launcher, and nobody else writes into its files."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import sys
from typing import TYPE_CHECKING

from dist_trainer.launcher import launched_by_torchrun, torchrun_has_ended

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PR_SET_PDEATHSIG = 1  # prctl(2)
OTHERS_WRITE = 0o002
_libc = ctypes.CDLL(None, use_errno=True)


def end_with_parent() -> None:
    """SIGKILL as soon as the parent has ended, however it did; kept across exec. For a fork's child, too."""
    if _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def end_with_torchrun() -> None:
    """A learner whose torchrun was killed would otherwise train on, and stand in the way of whoever goes on.

    Learners that a shell or srun started are left alone: a shell's end is not theirs, and Slurm ends what it started.
    """
    if launched_by_torchrun():
        end_with_parent()
        if torchrun_has_ended():  # before anything was to come of that
            os.kill(os.getpid(), signal.SIGKILL)


def deny_writing_to_others() -> None:
    """Whatever the umask allows, files and folders that this process makes can not be written by everybody."""
    before = os.umask(0o077)
    os.umask(before | OTHERS_WRITE)


def wait_without_spinning() -> None:
    """OpenMP's threads spin only for a moment while they wait for each other, then sleep, unless the user says
    otherwise: spinning ones keep those that they wait for from a core that something else uses too. To be called
    before torch is imported.

    libgomp spins 300,000 rounds by default: 3k steps/s beside a busy process, where 1,000 rounds give 60k, at 96 % of
    its speed alone. Without any, 80k and 50 % (benchmarks/LOG.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


class _ForgivingFile(io.FileIO):
    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def forgive_closed_pipe() -> None:
    """What is printed after the reader has stopped reading, as `| head` does, goes nowhere and ends nothing."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # there may be none
        out = sys.stdout
        out.flush()
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_ForgivingFile(out.fileno(), "w", closefd=False)),
            encoding=out.encoding,
            errors=out.errors,
            line_buffering=out.line_buffering,
            write_through=out.write_through,
        )
