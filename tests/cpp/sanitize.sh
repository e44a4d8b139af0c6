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

build_and_run() {
  local folder=build/sanitize-$1 sanitizers=$2
  shift 2
  echo "== $sanitizers"
  cmake -S cpp_envs -B "$folder" -G Ninja -DDIST_TRAINER_EXERCISE=ON -DDIST_TRAINER_SANITIZE="$sanitizers" >/dev/null
  cmake --build "$folder"
  "${without_aslr[@]}" "$folder/exercise_envs" "$@"
  "${without_aslr[@]}" "$folder/exercise_local_group"
}

build_and_run address address,undefined "$@"
build_and_run thread thread "$@"
echo "sanitizers: clean"
