#!/usr/bin/env bash
# Default settings of five optimizers on CartPole and the T-maze, five seeds each, with samples to solve.
#
#   bash benchmarks/optimizers_quick.sh [--seeds N] [--folder FOLDER] [OPTIMIZER ...]
#
# Python: $PYTHON, else the virtual environment of launch/setup.sh.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
exec "${PYTHON:-.venv/bin/python}" -m benchmarks.optimizers_quick "$@"
