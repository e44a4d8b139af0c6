#!/usr/bin/env bash
# Installs, trains CartPole with more than one learner, and checks the result: the mean return of 100 fresh
# episodes has to reach 475, where CartPole counts as solved.
#
#   launch/quickstart.sh [overrides of the training configuration, such as seed=3]
#
# Environment variables:
#   LEARNERS  processes that train together (default: one per GPU; without a GPU 2, or 1 on a single CPU)
#   STEPS     environment steps in all (default 1000000)
#   RUN_DIR   folder for checkpoints and metrics (default runs/quickstart-<time>); must be new or empty
set -euo pipefail

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)
venv=$root/.venv

default_learners() {
  local gpus cpus
  gpus=$("$venv/bin/python" -c 'import torch; print(torch.cuda.device_count())')
  # nproc prints OMP_NUM_THREADS where that is set, which says nothing about the machine.
  cpus=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
  if ((gpus > 0)); then
    echo "$gpus"
  elif ((cpus < 2)); then
    echo 1
  else
    echo 2
  fi
}

is_taken() {
  [[ -e $1 || -L $1 ]] && ! { [[ -d $1 ]] && [[ -z $(ls -A -- "$1") ]]; }
}

main() {
  local run_dir learners steps began status=0
  run_dir=$(realpath -m -- "${RUN_DIR:-$root/runs/quickstart-$(date +%Y%m%d-%H%M%S)}")
  steps=${STEPS:-1000000}
  if is_taken "$run_dir"; then
    echo "quickstart: $run_dir exists already; set RUN_DIR to a new folder" >&2
    return 1
  fi

  "$root/launch/setup.sh"
  cd -- "$root"
  learners=${LEARNERS:-$(default_learners)}
  # torchrun's own default, said aloud: it warns otherwise.
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

  echo "quickstart: training CartPole for $steps steps with $learners learner(s) in $run_dir"
  began=$SECONDS
  "$venv/bin/torchrun" --standalone --nproc-per-node="$learners" -m dist_trainer train \
    env=cartpole "run_dir=$run_dir" "total_env_steps=$steps" "$@"
  echo "quickstart: training took $((SECONDS - began)) s"

  # A score that is too low still leaves a run worth looking at, so the last lines come in any case.
  "$venv/bin/python" -m dist_trainer evaluate "checkpoint=$run_dir" episodes=100 require_mean_return=475 || status=$?
  if ((status == 0)); then
    echo "quickstart: solved; the run is in $run_dir"
  else
    echo "quickstart: the evaluation failed (status $status); the run is in $run_dir" >&2
  fi
  if [[ $run_dir == "$root/runs/"* ]]; then
    printf 'quickstart: to see its curves: %q --logdir %q\n' "$venv/bin/tensorboard" "$root/runs"
  else
    printf 'quickstart: to see its curves: %q --logdir %q\n' "$venv/bin/tensorboard" "$run_dir"
  fi
  return "$status"
}

main "$@"
