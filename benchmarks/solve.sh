#!/usr/bin/env bash
# Trains the catalogue with one setting of all hyper-parameters, and says what it solves.
#
#   bash benchmarks/solve.sh [--seeds N] [--folder FOLDER] [--rising] [--pictures FOLDER] [ENV ...]      (benchmarks/solve.py explains)
#
# Python: $PYTHON, else the virtual environment of launch/setup.sh.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
exec "${PYTHON:-.venv/bin/python}" -m benchmarks.solve "$@"
