#!/usr/bin/env bash
# Runs every ```sh block of the README, in order, in one shell: what the README tells people to type works.
# Blocks marked ```console are shown only; CI runs those two commands by themselves. Needs a release build.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT
ln -s "$PWD/worker" "$PWD/deploy" "$work/"
export PATH="$PWD/target/release:$PATH"
awk '/^```sh$/ { on = 1; next } /^```$/ { on = 0 } on' README.md >"$work/commands"
test -s "$work/commands"
cd "$work"
set -x
# shellcheck disable=SC1091
source ./commands
