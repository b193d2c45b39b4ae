#!/usr/bin/env bash
# Installs the package into .venv (or the active environment) and runs all checks: bash scripts/test.sh [pytest arguments]
# What is tried with few trainers is tried with all by: bash scripts/test.sh -m 'full or not full'
source "$(dirname "$0")/environment.sh"
# Each module is compiled when it is imported first; pip would take minutes to compile all that there are.
unset PYTHONDONTWRITEBYTECODE
python -m pip install --quiet --no-compile -e '.[dev]'
ruff check .
ruff format --check .
mypy
deptry .
exec python -m pytest -q -n 3 --dist worksteal --durations=40 "$@"
