"""A policy that takes its time, so that jobs last long enough to be disturbed and keep no CPU busy; or that dies."""

from __future__ import annotations

import os
import signal
import time

from torch import Tensor

from dist_trainer.policies.recurrent import RecurrentPolicy

ACT_S = "TEST_ACT_S"  # environment variable: seconds that each step of acting takes longer
DIES_AT = "TEST_DIES_AT"  # environment variable: after so many steps of acting the second learner's process is gone


class SlowPolicy(RecurrentPolicy):
    calls = 0

    def act(self, observations: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.calls += 1
        if os.environ.get("RANK") == "1" and self.calls == int(os.environ.get(DIES_AT, "0")):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(os.environ.get(ACT_S, "0")))
        return super().act(observations, state)
