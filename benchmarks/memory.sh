#!/usr/bin/env bash
# Does the policy remember? T-maze with a corridor of 20 steps, default settings, 1.5 M steps: the LSTM must turn the
# right way in at least 95 % of 10,000 episodes; the same run without the LSTM must stay at chance (45 to 55 %).
#
#   bash benchmarks/memory.sh [SETTING=VALUE ...]      run folders: runs/memory-<policy>-<time>
#
# Exit status 0 if both hold. Python: $PYTHON, else the virtual environment of launch/setup.sh.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
python=${PYTHON:-.venv/bin/python}
stamp=$(date +%Y%m%d-%H%M%S)
# One learner on one thread each, side by side: the same figures on every machine.
export OMP_NUM_THREADS=1

success() { # policy [overrides]: trains, evaluates, prints the success rate
  local run=runs/memory-$1-$stamp
  "$python" -m dist_trainer train env=tmaze env.params.corridor=20 policy="$1" total_env_steps=1.5e6 \
    run_dir="$run" torch_threads=1 env_threads=1 "${@:2}" >"$run.log" 2>&1 || { cat "$run.log" >&2; return 1; }
  "$python" -m dist_trainer evaluate checkpoint="$run" episodes=10000 json="$run/score.json" >/dev/null
  "$python" -c "import json, sys; print(json.load(open(sys.argv[1]))['means']['success'])" "$run/score.json"
}

mkdir -p runs
success lstm "$@" >"runs/memory-lstm-$stamp.success" & with_memory=$!
without=$(success mlp "$@")
wait "$with_memory"
with=$(<"runs/memory-lstm-$stamp.success")
"$python" - "$with" "$without" <<'PYTHON'
import sys

with_memory, without = map(float, sys.argv[1:])
print("T-maze, corridor 20, 1.5 M steps, right turns in 10,000 episodes:")
print(f"  LSTM     {with_memory:6.1%}   must be at least 95 %")
print(f"  no LSTM  {without:6.1%}   must be 45 to 55 % (chance)")
sys.exit(not (with_memory >= 0.95 and 0.45 <= without <= 0.55))
PYTHON
