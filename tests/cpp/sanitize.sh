#!/usr/bin/env bash
# Builds and runs the programs here under the address and undefined-behaviour sanitizers, then the thread sanitizer.
# Usage: tests/cpp/sanitize.sh [steps per environment]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

for tool in cmake ninja; do
  command -v "$tool" >/dev/null || { echo "sanitize.sh: $tool not found (pip install '.[dev]' brings it)" >&2; exit 1; }
done

# Some kernels place mappings where the thread sanitizer keeps its own, unless addresses are not randomized.
without_aslr=()
if setarch "$(uname -m)" -R true 2>/dev/null; then without_aslr=(setarch "$(uname -m)" -R); fi

build() {
  local folder=build/sanitize-$1
  echo "== $2"
  cmake -S cpp_envs -B "$folder" -G Ninja -DDIST_TRAINER_EXERCISE=ON -DDIST_TRAINER_SANITIZE="$2" >/dev/null
  cmake --build "$folder"
}

run() {
  local folder=build/sanitize-$1
  shift
  "${without_aslr[@]}" "$folder/exercise_envs" "$@" && "${without_aslr[@]}" "$folder/exercise_local_group"
}

build address address,undefined
build thread thread
# Side by side: each takes about one core.
run thread "$@" >build/sanitize-thread.log 2>&1 &
thread=$!
status=0
run address "$@" || status=$?
build/sanitize-address/exercise_worlds 50000 || status=$?
if ! wait "$thread"; then status=1; fi
cat build/sanitize-thread.log
((status == 0)) || { echo "sanitizers: something was found" >&2; exit 1; }
echo "sanitizers: clean"
