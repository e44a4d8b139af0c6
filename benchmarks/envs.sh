#!/usr/bin/env bash
# Millions of agents' steps per second of every environment on one core: the bare C++ loop, and in the same run the pool
# driven from Python on one thread, with the ratio of the two. Keep the machine idle meanwhile.
#
#   bash benchmarks/envs.sh [NAME ...]      Python: $PYTHON, else the virtual environment of launch/setup.sh
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
export OMP_NUM_THREADS=1
exec "${PYTHON:-.venv/bin/python}" -m benchmarks.pool --envs "${@:-all}" --threads 1 --processes --repeat 5
