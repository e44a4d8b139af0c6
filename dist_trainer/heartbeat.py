"""Who is alive: every learner tells once a second, outside all collectives, what its main thread is doing.

A collective that fails says only that somebody did not answer. Its survivors look here for who that was. The words
travel through a key-value store; a thread of its own writes and reads them, so that a store that is gone blocks nobody.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import Protocol

from dist_trainer.launcher import process_name, process_state

BEAT_S = 1.0
SILENT_S = 3.0  # without a beat for so long, a learner gives no sign of life
GIVE_UP_S = 6.0  # a store that has not answered by then is gone
ENDED = -1  # instead of a beat
STDERR = 2  # file descriptor
WAITS = "waited for the others"
PHASES = {  # what is done, by the first of these words in the call path that leads there
    "checkpoint.": "saving or loading a checkpoint",
    "drift.": "comparing the learners",
    "update.": "learning",
    "collect": "collecting",
    "overlap.": "collecting",
    "learner.": "starting",
}
UNSEEN_MODULES = ("dist_trainer.__main__", "dist_trainer.train", "dist_trainer.distributed", "dist_trainer.heartbeat")


class Store(Protocol):
    """What is needed of torch's stores."""

    def set(self, key: str, value: str, /) -> None: ...
    def check(self, keys: list[str], /) -> bool: ...
    def multi_get(self, keys: list[str], /) -> list[bytes]: ...


def _key(rank: int) -> str:
    return f"dist_trainer/heartbeat/{rank}"


@dataclass(frozen=True)
class Sighting:
    """The latest beat that was read of another learner."""

    beat: int
    process: str  # its name, see launcher.process_name
    text: str
    look: int  # the number of the look that found it changed
    at: float


class Heartbeat:
    """Beats from its start until `stop`, or until the process ends; the thread keeps no process alive.

    Args:
        store: for the thread alone; a store's client serves one call at a time.
        warn_after_s: tell on stderr, once, who is silent when no collective has begun for so long. For backends that
            end the process by themselves, without an exception.
        stack_after_s: a learner that has kept the others waiting for so long writes its stack to stderr.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        warn_after_s: float | None = None,
        stack_after_s: float | None = None,
    ):
        self.rank, self.size = rank, size
        self.collectives = 0  # begun so far
        self.waiting_in: str | None = None  # the collective that has begun and not ended
        self._collective_at = time.monotonic()
        self._warn_after_s, self._stack_after_s = warn_after_s, stack_after_s
        self._process = process_name(os.getpid())
        self._store = store
        self._others = {rank: _key(rank) for rank in range(size) if rank != self.rank}
        self._seen: dict[int, Sighting] = {}
        self._gone: dict[int, int] = {}  # by rank: the number of the look before its process was found to have ended
        self._looks_begun = self._looks_done = self._beat = 0
        self._wake, self._watching, self._stopped = threading.Event(), threading.Event(), threading.Event()
        self._last_word: str | None = None
        self._main_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def begin(self, collective: str) -> None:
        self.collectives += 1
        self.waiting_in = collective
        self._collective_at = time.monotonic()

    def end(self) -> None:
        self.waiting_in = None

    def stop(self, last_word: str | None) -> None:
        """Ends the thread. `last_word`: what the others shall read from now on, if they look."""
        self._last_word = last_word
        self._stopped.set()
        self._wake.set()
        self._thread.join(BEAT_S)
        faulthandler.cancel_dump_traceback_later()

    def others(self) -> str:
        """Who is silent and, if nobody is, what everyone does. Looks for a few seconds; never raises."""
        asked = time.monotonic()
        first_look = self._looks_begun + 1  # what it finds may have been written before
        self._watching.set()
        self._wake.set()
        while self._thread.is_alive() and time.monotonic() < asked + GIVE_UP_S:
            if self._looks_done >= first_look and all(
                self._alive(rank, first_look) is not None for rank in self._others
            ):
                break
            self._wake.set()
            time.sleep(0.05)
        if self._looks_done < first_look:
            return "the store on the first learner's machine does not answer"
        return self._told([rank for rank in self._others if not self._alive(rank, first_look)])

    def _told(self, silent: list[int]) -> str:
        if silent:
            return "no sign of life from " + "; ".join(self._last_seen(rank) for rank in silent)
        ended = [rank for rank in self._others if self._seen[rank].beat == ENDED]
        late = [rank for rank in self._others if not self._seen[rank].text.startswith(WAITS)]
        named = "; ".join(f"{self._who(rank)} {self._seen[rank].text}" for rank in ended or late or self._others)
        return named if ended else f"all are alive: {named}"

    def _alive(self, rank: int, first_look: int) -> bool | None:
        """None: too early to tell."""
        sighting = self._seen.get(rank)
        if not sighting:
            return None
        if sighting.look > first_look or sighting.beat == ENDED:
            return True
        if process_state(sighting.process) in ("gone", "stopped"):  # if it had a last word, the next look finds it
            return False if self._looks_done > self._gone.setdefault(rank, self._looks_begun) else None
        return None if time.monotonic() < sighting.at + SILENT_S else False

    def _who(self, rank: int) -> str:
        host, *_, pid, _start = self._seen[rank].process.split()
        return f"learner {rank} (process {pid} on {host})"

    def _last_seen(self, rank: int) -> str:
        if rank not in self._seen:
            return f"learner {rank}, which was never seen"
        state = process_state(self._seen[rank].process)
        now = f" is {state} now and" if state else ""
        return f"{self._who(rank)}, which{now} was last seen when it {self._seen[rank].text}"

    def _run(self) -> None:
        warned = stack_told = False
        while not self._stopped.is_set():
            idle_s = time.monotonic() - self._collective_at
            if self._stack_after_s is not None and not stack_told:
                # Should this thread not run any more, because another holds the interpreter, a timer writes all stacks.
                faulthandler.dump_traceback_later(max(self._stack_after_s, 2 * BEAT_S), file=STDERR)
                stack_told = idle_s > self._stack_after_s and not self.waiting_in
                if stack_told:
                    self._tell_stack(idle_s)
            try:
                self._post(self._beat, self._doing())
                if self._watching.is_set() or idle_s > 2 * BEAT_S:
                    self._look()
            except Exception:  # the store is gone, and does not come back
                return
            if self._warn_after_s is not None and idle_s > self._warn_after_s and not warned:
                warned = True
                line = f"dist_trainer: learner {self.rank} {self._doing()}, for {idle_s:.0f} s; "
                line += self._told([rank for rank in self._others if not self._alive(rank, self._looks_done - 2)])
                print(line, file=sys.stderr, flush=True)
            self._wake.wait(BEAT_S)
            self._wake.clear()
        if self._last_word is not None:
            with contextlib.suppress(Exception):
                self._post(ENDED, self._last_word)

    def _post(self, beat: int, text: str) -> None:
        self._store.set(_key(self.rank), f"{beat}\t{self._process}\t{text}")
        self._beat += 1

    def _tell_stack(self, idle_s: float) -> None:
        line = f"dist_trainer: learner {self.rank} {self._doing()}; the others may wait for it since {idle_s:.0f} s\n"
        os.write(STDERR, line.encode())
        faulthandler.dump_traceback(STDERR)

    def _look(self) -> None:
        self._looks_begun += 1
        keys = list(self._others.values())
        if not self._store.check(keys):  # multi_get would wait for those that are missing
            keys = [key for key in keys if self._store.check([key])]
        ranks = [rank for rank, key in self._others.items() if key in keys]
        for rank, value in zip(ranks, self._store.multi_get(keys) if keys else [], strict=True):
            beat, process, text = value.decode().split("\t")
            before = self._seen.get(rank)
            if before is None or before.beat != int(beat):
                self._seen[rank] = Sighting(int(beat), process, text, self._looks_begun, time.monotonic())
        self._looks_done = self._looks_begun

    def _doing(self) -> str:
        """The main thread's place in this package, from the outside in; read from its stack."""
        places: list[str] = []
        frame = sys._current_frames().get(self._main_thread)
        while frame:
            module = frame.f_globals.get("__name__", "")
            if module.startswith("dist_trainer.") and module not in UNSEEN_MODULES:
                places.append(f"{module.removeprefix('dist_trainer.')}.{frame.f_code.co_qualname}")
            frame = frame.f_back
        place = " > ".join(reversed(places))
        phase = next((phase for word, phase in PHASES.items() if word in place), "between two phases")
        what = f"{phase}, in {place}" if places else "starting or ending"
        if self.waiting_in:
            return f"{WAITS} while {what}, in collective {self.collectives} ({self.waiting_in})"
        return f"was {what}, after {self.collectives} collectives"
