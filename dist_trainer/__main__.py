"""`python -m dist_trainer VERB`: one verb each for training, evaluating, ..."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from dist_trainer import plan_view
from dist_trainer.config_files import take_config_dirs
from dist_trainer.errors import ConfigError, choices
from dist_trainer.help import OVERVIEW, verb_help
from dist_trainer.includes import flags_text
from dist_trainer.plan import job_text, launched, learner_is_first, plan_doctor, plan_train
from dist_trainer.plan_evaluate import plan_evaluate
from dist_trainer.process import deny_writing_to_others, end_with_torchrun, forgive_closed_pipe, wait_without_spinning
from dist_trainer.sweep_plan import plan_sweep, study_text

FIRST_LEARNER_SPEAKS_S = 10.0


def run_train(arguments: Sequence[str]) -> int:
    end_with_torchrun()
    plan = plan_train(arguments, launched("WORLD_SIZE"), learner_is_first())
    from dist_trainer.train import run  # torch is imported only when nothing is wrong

    return run(plan)


def run_evaluate(arguments: Sequence[str]) -> int:
    if not learner_is_first():
        return 0  # under torchrun the first one plays; more would play the same episodes
    plan = plan_evaluate(arguments)
    from dist_trainer.evaluate import run

    return run(plan)


def run_watch(arguments: Sequence[str]) -> int:
    plan = plan_view.plan_watch(arguments)
    from dist_trainer import watch

    return watch.run_watch(*plan)


def run_play(arguments: Sequence[str]) -> int:
    plan = plan_view.plan_play(arguments)
    from dist_trainer import watch

    return watch.run_play(*plan)


def run_record(arguments: Sequence[str]) -> int:
    plan = plan_view.plan_record(arguments)
    from dist_trainer import record

    return record.run_record(*plan)


def run_compare(arguments: Sequence[str]) -> int:
    from dist_trainer import compare

    return compare.run_compare(*compare.plan_compare(arguments))


def run_sweep(arguments: Sequence[str]) -> int:
    plan = plan_sweep(arguments)
    from dist_trainer import sweep

    return sweep.run_sweep(plan, arguments)


def run_benchmark(arguments: Sequence[str]) -> int:
    from dist_trainer import benchmark

    return benchmark.run_benchmark(arguments)


def run_autotune(arguments: Sequence[str]) -> int:
    from dist_trainer import autotune

    return autotune.run(autotune.plan_autotune(arguments))


def run_doctor(arguments: Sequence[str]) -> int:
    end_with_torchrun()
    config = plan_doctor(arguments)
    from dist_trainer.doctor import run

    return run(config)


def run_envs(arguments: Sequence[str]) -> int:
    from dist_trainer.env_list import run

    return run(arguments)


def run_includes(arguments: Sequence[str]) -> int:
    if arguments:
        raise ConfigError("argument", " ".join(arguments), "includes takes none")
    print(flags_text())
    return 0


def run_new_env(arguments: Sequence[str]) -> int:
    from dist_trainer.new_env import run

    return run(arguments)


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": run_train,
    "evaluate": run_evaluate,
    "watch": run_watch,
    "play": run_play,
    "record": run_record,
    "compare": run_compare,
    "sweep": run_sweep,
    "benchmark": run_benchmark,
    "autotune": run_autotune,
    "doctor": run_doctor,
    "envs": run_envs,
    "includes": run_includes,
    "new-env": run_new_env,
}


def take_cfg(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether `--cfg job` or `--cfg=job` is among the arguments, and the others."""
    words = [
        word
        for argument in arguments
        for word in (argument.split("=", 1) if argument.startswith("--cfg=") else [argument])
    ]
    if "--cfg" not in words:
        return False, words
    at = words.index("--cfg")
    if words[at + 1 : at + 2] != ["job"]:
        raise ConfigError("--cfg", " ".join(words[at + 1 : at + 2]), "must be job")
    return True, words[:at] + words[at + 2 :]


def plan_text(verb: str, settings: Sequence[str]) -> str:
    """What the command would do. Raises ConfigError if it could not."""
    if verb == "sweep":
        return study_text(settings)
    if verb == "benchmark":
        from dist_trainer.benchmark import grid_text

        return grid_text(settings)
    return job_text(verb, settings)


def main() -> int:
    """Exit status 0: done; 1: failed; 2: a mistake in the command or the configuration, told in one line."""
    deny_writing_to_others()
    wait_without_spinning()
    forgive_closed_pipe()
    rank = os.environ.get("RANK", "0")
    verb, *arguments = sys.argv[1:] or ["--help"]
    try:
        arguments = take_config_dirs(arguments)
        if verb in ("--help", "-h", "help"):
            print(OVERVIEW)
        elif verb not in VERBS:
            raise ConfigError("verb", verb, choices(VERBS, verb))
        elif {"--help", "-h"} & set(arguments):
            print(verb_help(verb, arguments))
        else:
            shows, settings = take_cfg(arguments)
            if not shows:
                return VERBS[verb](settings)
            print(plan_text(verb, settings).rstrip())
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
