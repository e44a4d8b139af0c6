#!/usr/bin/env bash
# Says what would break or slow down a training on this machine, and what to do: compiler, Python and torch, GPUs, the
# links between all pairs of learners, /dev/shm, limits, cores and their clock, the disk of the run folder.
#
#   launch/doctor.sh [--learners=N] [run_dir=DIR] [device=cpu]
#
# --learners: as many as the training would have here (default: one per GPU; without GPUs 2). Exit status 1 if a
# training would break. On several machines the same verb runs under each one's torchrun, as a training does:
#   srun --ntasks-per-node=1 ... torchrun ... -m dist_trainer doctor run_dir=DIR
set -euo pipefail

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)
python=${DIST_TRAINER_PYTHON:-$root/.venv/bin/python}
broken=0

# told KIND WHAT FACT [ADVICE]
told() {
  printf '%-6s%-22s%s\n' "$1" "$2" "$3"
  if [[ -n ${4:-} ]]; then
    printf '%28s-> %s\n' '' "$4"
  fi
  if [[ $1 == WRONG ]]; then
    broken=1
  fi
}

learners='' settings=()
for argument in "$@"; do
  case $argument in
    --help | -h) sed -n '2,/^set -/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
    --learners=*) learners=${argument#*=} ;;
    -*) echo "doctor: $argument: no such option; see --help" >&2; exit 2 ;;
    *) settings+=("$argument") ;;
  esac
done
if [[ -n $learners && ! $learners =~ ^[1-9][0-9]*$ ]]; then
  echo "doctor: --learners=$learners: must be a whole number of at least 1" >&2
  exit 2
fi

compiler=${CXX:-g++}
# shellcheck disable=SC2086  # CXX may hold options
if ! command -v -- ${compiler%% *} >/dev/null; then
  told SLOW "C++ compiler" "there is no ${compiler%% *}" "to build environments: apt-get install g++"
elif ! printf '#include <latch>\n#include <span>\n' | $compiler -std=c++20 -x c++ -fsyntax-only - 2>/dev/null; then
  told SLOW "C++ compiler" "$($compiler --version | head -n 1) knows no C++20" "to build environments: GCC 11 or newer"
else
  told ok "C++ compiler" "$($compiler --version | head -n 1)"
fi
if [[ ! -x $python ]]; then
  told WRONG "Python" "there is no $python" "launch/setup.sh makes it"
elif ! (cd / && "$python" -c 'import dist_trainer._cpp_envs, torch') 2>/dev/null; then
  told WRONG "Python" "$python cannot import dist_trainer with its C++ module, and torch" "launch/setup.sh builds them"
else
  told ok "Python" "$("$python" --version) in $python"
fi
if ((broken)); then
  exit 1
fi

cd -- "$root"
if [[ -z $learners ]]; then
  learners=$("$python" -c 'import torch; print(torch.cuda.device_count() or 2)')
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
if ((learners == 1)); then
  exec "$python" -m dist_trainer doctor ${settings[@]+"${settings[@]}"}
fi
exec "$python" -m dist_trainer.agent --learners="$learners" --max-restarts=0 -- doctor ${settings[@]+"${settings[@]}"}
