#!/usr/bin/env bash
# Optuna and evocache side by side: what a trial of 1,680 bits costs the service. Needs Python 3 and a release build;
# installs Optuna, pinned, under target/. Takes about three minutes; arguments go to compare.py.
set -euo pipefail
cd "$(dirname "$0")/../../.."
python3 -m venv target/optuna
target/optuna/bin/pip install --quiet --disable-pip-version-check -r deploy/examples/optuna/requirements.txt
target/optuna/bin/python -W ignore deploy/examples/optuna/compare.py "$@"
