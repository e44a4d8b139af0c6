#!/usr/bin/env bash
# Everything that a machine with a GPU can tell, as Markdown: builds, tests, limit, throughput, optimizers, a profile.
#
#   benchmarks/run_gpu.sh [options]
#
#   --stages LIST       of build,tests,limit,throughput,optimizers,profile (default: all, in this order)
#   --output FILE       default: benchmarks/gpu/DEVICE-DATE.md; sections are added to a file that exists. What the
#                       commands complain of goes to the file of that name with .log instead of .md
#   --quick             one environment, size and precision, three optimizers
#   --dry-run           on the CPU with tiny sizes: shows that every stage works, and measures nothing
#   --envs LIST         default: breakout,cartpole,maze (or tmaze where there is no maze)
#   --hidden LIST       LSTM sizes; default: 128,512,1024
#   --precisions LIST   default: bfloat16,tf32,float32; optimizers and profile take the first of each list
#   --optimizers LIST   default: all of configs/optimizer
#   --samples N         of an iteration; default: 524288
#
# PYTHON names the Python to use (default: .venv's, else python3). It needs torch and what pyproject.toml lists; the C++
# module is built in place unless it is installed. Every row is written when it is known. A stage that fails is named
# in the file and at the end, the others run all the same, and the exit status is then 1. Keep the machine idle meanwhile.
set -euo pipefail

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)
started_in=$PWD
all_stages=build,tests,limit,throughput,optimizers,profile
known=,$all_stages,

die() {
  printf 'run_gpu: %s\n' "$1" >&2
  exit 2
}

stages=$all_stages output='' device=cuda dry='' quick=''
envs='' hidden='' precisions='' optimizers='' samples=''
while (($#)); do
  case $1 in
    --dry-run) dry=yes device=cpu ;;
    --quick) quick=yes ;;
    --stages | --output | --envs | --hidden | --precisions | --optimizers | --samples)
      (($# > 1)) || die "$1 needs a value"
      declare "${1#--}=$2"
      shift
      ;;
    -h | --help)
      sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    *) die "$1: no such option; --help lists them" ;;
  esac
  shift
done
for stage in ${stages//,/ }; do
  [[ $known == *",$stage,"* ]] || die "--stages=$stage: no such stage; valid: $all_stages"
done

cd -- "$root"
if [[ -z ${PYTHON:-} && -x .venv/bin/python ]]; then PYTHON=.venv/bin/python; fi
python=${PYTHON:-python3}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
python=$("$python" -c 'import sys; print(sys.executable)') || die "PYTHON=$python is no working Python"
PATH=$(dirname -- "$python"):$PATH # cmake and ninja may be beside it

# --- sizes

maze=$([[ -f configs/env/maze.yaml ]] && echo maze || echo tmaze)
horizon=64 minibatches=16 iterations=20 short=8 more=()
if [[ $dry ]]; then
  : "${envs:=cartpole}" "${hidden:=8}" "${precisions:=float32}" "${optimizers:=adamw,psgd_kron}" "${samples:=256}"
  horizon=8 minibatches=2 iterations=4 short=1 more=(torch_threads=1 env_threads=1)
  export OMP_NUM_THREADS=1
elif [[ $quick ]]; then
  : "${envs:=breakout}" "${hidden:=128}" "${precisions:=bfloat16}" "${optimizers:=adamw,muon,psgd_kron}"
fi
: "${envs:=breakout,cartpole,$maze}" "${hidden:=128,512,1024}" "${precisions:=bfloat16,tf32,float32}"
: "${samples:=524288}"
IFS=, read -ra envs <<<"$envs"
IFS=, read -ra hidden <<<"$hidden"
IFS=, read -ra precisions <<<"$precisions"
IFS=, read -ra optimizers <<<"$optimizers"
sizes=("total_envs=$((samples / horizon))" "horizon=$horizon" "ppo.minibatches=$minibatches" ${more[@]+"${more[@]}"})

# --- the file

if [[ -z $output ]]; then
  output=benchmarks/gpu/$("$python" -m benchmarks.gpu_machine --device "$device" --name)-$(date -u +%Y-%m-%d).md
elif [[ $output != /* ]]; then
  output=$started_in/$output
fi
mkdir -p -- "$(dirname -- "$output")"
log=${output%.md}.log
touch -- "$log"
failed=()

section() {
  printf '\n## %s\n' "$1" | tee -a "$output"
}

# run STAGE COMMAND...: its output goes into the file as it comes; if it fails, so does the end of what it complained of.
run() {
  local stage=$1 began=$SECONDS status=0 shown complained
  shift
  shown=$*
  printf '\n`%s`\n\n' "${shown//"$python"/python}" | tee -a "$output"
  complained=$(stat -c %s -- "$log")
  "$@" 2>>"$log" | tee -a "$output" || status=$?
  if ((status == 0)); then
    printf '\n%d s\n' "$((SECONDS - began))" | tee -a "$output"
    return 0
  fi
  failed+=("$stage")
  {
    printf '\n**FAILED: %s** (status %d after %d s)\n\n```\n' "$stage" "$status" "$((SECONDS - began))"
    tail -c "+$((complained + 1))" -- "$log" | tail -n 30
    printf '```\n'
  } | tee -a "$output" >&2
}

# --- the stages

# In place, without an installation: by CMake, with this Python's headers and pybind11. What is in place already may be
# of older sources, and is brought up to date.
build_module() {
  local folder found began=$SECONDS
  local import=("$python" -c 'import dist_trainer._cpp_envs as module; print(module.__file__)')
  if found=$("${import[@]}" 2>/dev/null) && [[ $found != "$root"/dist_trainer/* ]]; then
    printf '| module | seconds |\n|---|---|\n| is installed | 0 |\n'
    return 0
  fi
  folder=build/gpu-$("$python" -c 'import sys; print(sys.implementation.cache_tag)')
  cmake -S cpp_envs -B "$folder" -DCMAKE_BUILD_TYPE=Release -DPYBIND11_FINDPYTHON=ON \
    -DPython_EXECUTABLE="$python" -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" \
    ${generator[@]+"${generator[@]}"} >&2 || return
  cmake --build "$folder" --parallel >&2 || return
  cp -- "$folder"/_cpp_envs*.so dist_trainer/ || return
  "${import[@]}" >&2 || return
  printf '| module | seconds |\n|---|---|\n| built | %d |\n' "$((SECONDS - began))"
}

stage_build() {
  generator=()
  if command -v ninja >/dev/null; then generator=(-G Ninja); fi
  run build build_module
}

stage_tests() {
  local paths=(tests/gpu)
  if [[ $dry ]]; then paths+=(tests/test_advantage.py); fi # those of the GPU are skipped
  run tests "$python" -m benchmarks.gpu_tests "${paths[@]}"
}

stage_limit() {
  local env layout=()
  if [[ $dry ]]; then layout=(--layout 1x1); fi
  for env in "${envs[@]}"; do
    run limit "$python" -m benchmarks.limit --device "$device" --env "$env" --hidden "${hidden[@]}" \
      --precision "${precisions[@]}" --samples "$samples" --horizon "$horizon" --minibatches "$minibatches" \
      ${layout[@]+"${layout[@]}"}
  done
}

stage_throughput() {
  local env size learners=()
  if [[ $dry ]]; then learners=(--learners 1); fi
  for size in "${hidden[@]}"; do
    for env in "${envs[@]}"; do
      run throughput "$python" -m benchmarks.throughput "${sizes[@]}" --device "$device" --env "$env" \
        --hidden "$size" --precision "${precisions[@]}" --repeat 1 --iterations "$iterations" \
        ${learners[@]+"${learners[@]}"}
    done
  done
}

stage_optimizers() {
  local chosen=()
  if ((${#optimizers[@]})); then chosen=(--optimizers "${optimizers[@]}"); fi
  run optimizers "$python" -m benchmarks.gpu_optimizers "${sizes[@]}" "env=${envs[0]}" \
    "policy.hidden_size=${hidden[0]}" "precision=${precisions[0]}" --device "$device" --iterations "$short" \
    ${chosen[@]+"${chosen[@]}"}
}

stage_profile() {
  local size
  for size in "${hidden[@]}"; do
    run profile "$python" -m benchmarks.gpu_profile "${sizes[@]}" "env=${envs[0]}" "policy.hidden_size=$size" \
      "precision=${precisions[0]}" --device "$device" --iterations "$((short > 3 ? 3 : short))"
  done
}

if [[ ! -s $output ]]; then
  printf '# On a %s, %s\n\n' "$([[ $dry ]] && echo 'CPU, a dry run: no measurement' || echo GPU)" \
    "$(date -u '+%Y-%m-%d %H:%M UTC')" | tee -a "$output"
  "$python" -m benchmarks.gpu_machine --device "$device" | tee -a "$output"
fi
for stage in ${stages//,/ }; do
  section "$stage"
  "stage_$stage"
done

if ((${#failed[@]})); then
  printf '\nrun_gpu: failed: %s\n' "$(printf '%s\n' "${failed[@]}" | sort -u | tr '\n' ' ')" >&2
  exit 1
fi
printf '\nrun_gpu: all stages passed; %s\n' "$output" >&2
