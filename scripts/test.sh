#!/usr/bin/env bash
# Installs the package into .venv (or the active environment) and runs all checks: bash scripts/test.sh [pytest arguments]
source "$(dirname "$0")/environment.sh"
python -m pip install --quiet -e '.[dev]'
ruff check .
ruff format --check .
mypy
exec python -m pytest -q -n 2 --dist worksteal "$@"
