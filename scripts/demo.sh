#!/usr/bin/env bash
# Installs the package into .venv (or the active environment) and runs the demo: bash scripts/demo.sh [--seed 1]
source "$(dirname "$0")/environment.sh"
python -m pip install --quiet -e '.[study]'
exec nnunet-limited demo "$@"
