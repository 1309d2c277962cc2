#!/usr/bin/env bash
# Everything about the Python package: lint, types, tests against the real programs, a search over TLS, its README.
#
#   deploy/python/test.sh [--short]
#
# --short leaves out the tests that are marked long; CI runs that. Needs a release build in the folder PROGRAMS [default:
# target/release], OpenSSL 3, and on PATH a python3 of a virtual environment, into which it installs the package and
# requirements.txt, and grpcurl. Port 7447 must be free.
set -euo pipefail
cd "$(dirname "$0")/../.."
package=deploy/python
PROGRAMS=$(cd "${PROGRAMS:-target/release}" && pwd) && export PROGRAMS
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONDONTWRITEBYTECODE=1
select=(-m "not long")
case "${1:-}" in
"") select=() ;;
--short) ;;
*) echo "error: '$1' is not --short" >&2 && exit 2 ;;
esac
step() { printf '\n-- %s (%ss)\n' "$1" "$SECONDS"; }

step "install"
python3 -m pip install --quiet --disable-pip-version-check "./$package[worker]" -r "$package/requirements.txt"

step "lint and types"
(cd "$package" && python3 -m ruff check . && python3 -m ruff format --check . && python3 -m mypy)
python3 -m ruff check --config "$package/pyproject.toml" deploy/examples/python
python3 -m ruff format --config "$package/pyproject.toml" --check deploy/examples/python

step "tests"
(cd "$package" && python3 -m pytest -p no:cacheprovider "${select[@]}")

step "a search over TLS, with certificates on both sides and a token each"
"$package/tests/tls.sh"

step "every command of the README"
deploy/examples/readme-test.sh "$package/README.md"
step "done"
