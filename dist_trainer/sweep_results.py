"""What came of a sweep: the best configuration as a yaml, all trials, which settings matter, the Pareto front.

Written whenever the verb ends, so that a sweep that was stopped shows what it has found until then.
"""

from __future__ import annotations

import csv
import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console
from rich.table import Table

from dist_trainer.checkpoint_file import write_atomically
from dist_trainer.cli import parse
from dist_trainer.config_files import GROUPS, group_file
from dist_trainer.file_lock import locked
from dist_trainer.run_folder import commits_of_runs
from dist_trainer.sweep_cost import pareto_front
from dist_trainer.sweep_plan import OF_A_WORKER, SweepPlan, leaves
from dist_trainer.sweep_study import ATTEMPTS, ENV_STEPS, REASON, SECONDS, SETTINGS, StudyFolder, cost_of
from dist_trainer.sweep_suggest import as_seen
from dist_trainer.sweep_table import BEST, WORDS, ranked, settings_of, summary, table

BEST_FILE = Path("tuned") / "best.yaml"
TRIALS_FILE, PARETO_FILE, LOCK_FILE = "trials.csv", "pareto.png", "results.lock"
ENOUGH = 10  # trials, for importances


def write_results(plan: SweepPlan, study: StudyFolder, console: Console) -> None:
    """Into the study's folder, one program at a time, and the short of it to the console."""
    with locked(study.folder / LOCK_FILE):
        _write_results(plan, study, console)


def _write_results(plan: SweepPlan, study: StudyFolder, console: Console) -> None:
    trials = study.trials()
    write_csv(plan, trials, study.folder / TRIALS_FILE)
    best = ranked(trials)
    commits = commits_of_runs(study.folder.glob("trials/*/run*"))
    if len(commits) > 1:
        shown = ", ".join(commit[:10] for commit in commits)
        console.print(f"its trainings are of {len(commits)} versions of the code, which may differ: {shown}")
    title = f"{study.folder}: {summary(plan, trials)}"
    if not best:
        console.print(f"{title}; none has a score", soft_wrap=True, highlight=False)
        return
    console.print(table(plan, best[:BEST], title))
    importances = importance(plan, trials)
    if importances:
        console.print(_importance_table(importances))
    front = front_of(plan, trials)
    if plan.config.sampler == "cost":
        console.print(table(plan, front, f"Pareto front of score and {plan.config.cost}"))
    if importlib.util.find_spec("matplotlib"):
        from dist_trainer.sweep_picture import draw_pareto  # matplotlib is an extra

        draw_pareto(plan, trials, front, study.folder / PARETO_FILE)
    (study.folder / BEST_FILE).parent.mkdir(exist_ok=True)
    write_atomically(study.folder / BEST_FILE, best_yaml(plan, study, best[0]).encode())
    command = f"python -m dist_trainer train --config-dir {study.folder} tuned=best"
    console.print(
        f"{study.folder / BEST_FILE}: trial {best[0].number}. Train with it:", soft_wrap=True, highlight=False
    )
    console.print(f"  {command}", soft_wrap=True, highlight=False)


def best_yaml(plan: SweepPlan, study: StudyFolder, best: FrozenTrial) -> str:
    """A file of the group `tuned`: the files of the other groups, and every setting that was given or found."""
    begun_with = yaml.safe_load(group_file("tuned", str(plan.base["tuned"])).read_text()) or {}
    begun_with.pop("defaults", None)
    given = leaves(begun_with) | {setting.key: setting.value for setting in parse(plan.settings)}
    chosen = {**given, **best.user_attrs[SETTINGS]}
    groups = {group: str(chosen.get(group, plan.base[group])) for group in GROUPS if group not in ("machine", "tuned")}
    values = {name: value for name, value in chosen.items() if name not in (*GROUPS, *OF_A_WORKER, "seed")}
    score = f"{plan.metric} {best.value:.6g}, {best.user_attrs[SECONDS]:.0f} s, {best.user_attrs[ENV_STEPS]:.0f} steps"
    head = [
        "# @package _global_",
        f"# Trial {best.number} of {study.name}: {score}. All of its configuration: {_run(study, best)}/config.yaml",
        budget_line(study.trials()),
        f"#   python -m dist_trainer train --config-dir {study.folder} tuned=best",
    ]
    defaults = [{f"override /{group}": file} for group, file in groups.items()]
    content = yaml.safe_dump({"defaults": [*defaults, "_self_"], **nested(values)}, sort_keys=False)
    return "\n".join(head) + "\n" + content


def budget_line(trials: Sequence[FrozenTrial]) -> str:
    """What the search has cost; `benchmark` compares it (benchmark_grid.SEARCH)."""
    finished = [trial for trial in trials if trial.state.is_finished()]
    steps, seconds = (sum(trial.user_attrs.get(name, 0) for trial in finished) for name in (ENV_STEPS, SECONDS))
    return f"# Search: {len(finished)} trials, {steps:.0f} steps, {seconds:.0f} s"


def _run(study: StudyFolder, trial: FrozenTrial) -> Path:
    return (study.trial_folder(trial.number) / "run1").relative_to(study.folder)


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dictionaries from names with dots."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        node = found
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
    return found


def importance(plan: SweepPlan, trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Of parameters that all trials have: how far those of good trials differ from those of all (PED-ANOVA,
    arXiv 2304.10255). Nothing where that cannot be told yet."""
    view = optuna.create_study(direction="maximize")
    view.add_trials(as_seen([trial for trial in trials if trial.state.is_finished()], plan.config))
    if len(view.get_trials(deepcopy=False)) < ENOUGH:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return get_param_importances(view, evaluator=PedAnovaImportanceEvaluator())
        except (ValueError, RuntimeError):  # no parameter is common to all, or all scores are equal
            return {}


def _importance_table(importances: Mapping[str, float]) -> Table:
    shown = Table(title="importance", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown.add_column("setting")
    shown.add_column("share", justify="right")
    for name, share in importances.items():
        shown.add_row(name, f"{share:.2f}")
    return shown


def front_of(plan: SweepPlan, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Complete trials that none both cheaper and better has beaten."""
    complete = [trial for trial in ranked(trials) if cost_of(trial, plan.config) is not None]
    costs = [cost_of(trial, plan.config) or 0.0 for trial in complete]
    return [complete[index] for index in pareto_front(costs, [trial.value or 0.0 for trial in complete])]


def write_csv(plan: SweepPlan, trials: Sequence[FrozenTrial], file: Path) -> None:
    names = settings_of(plan)
    with file.open("w", newline="") as output:
        writer = csv.writer(output)
        writer.writerow(["trial", "state", "score", SECONDS, ENV_STEPS, ATTEMPTS, REASON, *names])
        for trial in trials:
            known, settings = trial.user_attrs, trial.user_attrs.get(SETTINGS, {})
            score = trial.value if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None
            facts = [known.get(name) for name in (SECONDS, ENV_STEPS, ATTEMPTS, REASON)]
            writer.writerow([trial.number, WORDS[trial.state], score, *facts, *(settings.get(name) for name in names)])
