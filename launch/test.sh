#!/usr/bin/env bash
# Brings .venv up to date, then runs the tests; the exit status is pytest's own.
#
#   launch/test.sh [pytest arguments]      such as: launch/test.sh -x tests/test_config.py
#
# Paths among the arguments are relative to the root of the repository. Without one, all of tests/ runs.
set -euo pipefail

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)

names_tests() {
  local argument
  for argument in "$@"; do
    case $argument in
      -*) ;; # an option, such as --ignore=tests/slow
      *.py | *.py::* | tests | tests/* | */tests | */tests/*) return 0 ;;
    esac
  done
  return 1
}

"$root/launch/setup.sh"

cd -- "$root"
export PATH="$root/.venv/bin:$PATH" # tests start torchrun, and others, by name
# Tests start several processes; torch would otherwise start as many threads as there are cores in each.
export OMP_NUM_THREADS=1
if names_tests "$@"; then
  exec "$root/.venv/bin/python" -m pytest "$@"
fi
exec "$root/.venv/bin/python" -m pytest tests "$@"
