"""`python -m dist_trainer VERB`: one verb each for training, evaluating, ..."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from dist_trainer import cli
from dist_trainer.errors import ConfigError, choices
from dist_trainer.help import OVERVIEW, verb_help

FIRST_LEARNER_SPEAKS_S = 10.0


def run_train(arguments: Sequence[str]) -> int:
    plan = cli.plan_train(arguments, cli.launched_world_size())
    from dist_trainer.train import run  # torch is imported only when nothing is wrong

    return run(plan)


def run_evaluate(arguments: Sequence[str]) -> int:
    plan = cli.plan_evaluate(arguments)
    from dist_trainer.evaluate import run

    return run(*plan)


VERBS: dict[str, Callable[[Sequence[str]], int]] = {"train": run_train, "evaluate": run_evaluate}


def main() -> int:
    """Exit status 0: done; 1: failed; 2: a mistake in the command or the configuration, told in one line."""
    rank = os.environ.get("RANK", "0")
    verb, *arguments = sys.argv[1:] or ["--help"]
    try:
        if verb in ("--help", "-h", "help"):
            print(OVERVIEW)
        elif verb not in VERBS:
            raise ConfigError("verb", verb, choices(VERBS, verb))
        elif {"--help", "-h"} & set(arguments):
            print(verb_help(verb))
        elif verb == "train" and arguments[:2] == ["--cfg", "job"]:
            print(cli.job_text(arguments[2:]), end="")
        else:
            return VERBS[verb](arguments)
        return 0
    except ConfigError as error:
        if rank != "0":
            # The first learner has the same to say, and torchrun ends this one as soon as it has. To end before it
            # would silence it; whoever still lives after the wait is the only one with this mistake.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(FIRST_LEARNER_SPEAKS_S)
        print(f"dist_trainer: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print(f"dist_trainer: learner {rank} was interrupted", file=sys.stderr, flush=True)
        return 130
    except Exception:
        traceback.print_exc()
        print(f"dist_trainer: learner {rank} failed; the traceback is above", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
