#!/usr/bin/env bash
# Trains on this machine: one learner per GPU, or without GPUs one per CPU core (16 at most; as many as divide the
# environments). Nothing listens on the network. Ctrl-C stops after the iteration, with a checkpoint.
#
#   launch/local.sh [--learners=N] [--max-restarts=N] SETTING=VALUE...
#   launch/local.sh env=breakout run_dir=runs/mine resume=auto
set -euo pipefail

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)
python=$root/.venv/bin/python
[[ -x $python ]] || { echo "local: run launch/setup.sh first" >&2; exit 2; }

learners='' max_restarts=0 settings=()
for argument in "$@"; do
  case $argument in
    --help | -h) sed -n '2,/^set -/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
    --learners=*) learners=${argument#*=} ;;
    --max-restarts=*) max_restarts=${argument#*=} ;;
    -*) echo "local: $argument: no such option; see --help" >&2; exit 2 ;;
    *) settings+=("$argument") ;;
  esac
done

# check LEARNERS: the trainer's own checks of the settings
check() {
  WORLD_SIZE=$1 LOCAL_WORLD_SIZE=$1 "$python" -m dist_trainer train --cfg job ${settings[@]+"${settings[@]}"} >/dev/null
}

cd -- "$root"
if [[ -z $learners ]]; then
  check 1 # a mistake shows here, and only how environments divide is asked below
  learners=$("$python" -c 'import torch; print(torch.cuda.device_count())')
  if ((learners == 0)); then
    learners=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
    learners=$((learners > 16 ? 16 : learners))
    while ((learners > 1)) && ! check "$learners" 2>/dev/null; do
      learners=$((learners - 1))
    done
  fi
fi
check "$learners"
echo "local: $learners learner(s)"
exec "$python" -m dist_trainer.agent --learners="$learners" --max-restarts="$max_restarts" -- train ${settings[@]+"${settings[@]}"}
