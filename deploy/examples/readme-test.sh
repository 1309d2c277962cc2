#!/usr/bin/env bash
# Runs every ```sh block of the given documents: what they tell people to type works. The blocks of a document run in
# order, in one shell and in a scratch folder of its own, which has the top-level folders of the repository. Blocks marked
# ```console or ```text are shown only: they need a GPU or hours, or CI runs them as steps of their own.
#
#   deploy/examples/readme-test.sh [DOCUMENT.md ...]
#
# Default: README.md and the doors: deploy/README.md, coordinator/README.md, worker/README.md, and proto/README.md if
# grpcurl is on the PATH. Needs both programs in the folder PROGRAMS [default: target/release], cargo, python3, curl and
# OpenSSL 3. The ports 7447 and 9464 must be free.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
programs=$(cd "${PROGRAMS:-target/release}" && pwd)
export PATH="$programs:$PATH"
documents=("$@")
if [ $# -eq 0 ]; then
  documents=(README.md deploy/README.md coordinator/README.md worker/README.md)
  if command -v grpcurl >/dev/null; then
    documents+=(proto/README.md)
  else
    echo "no grpcurl on the PATH: skips proto/README.md"
  fi
fi

# The documents run cargo in the repository's root; the scratch folder is not one.
cargo() { command cargo "$1" --manifest-path "$root/Cargo.toml" "${@:2}"; }

# Runs one document's commands in the current folder, then ends what they left in the background. Shows the logs if they
# fail.
finish() {
  local code=$?
  trap - EXIT
  set +x
  # shellcheck disable=SC2046
  kill $(jobs -p) 2>/dev/null || true
  wait
  if [ "$code" != 0 ]; then tail -n 20 ./*.log || true; fi
  exit "$code"
}
run() (
  trap finish EXIT
  set -x
  # shellcheck disable=SC1090
  source "$1"
)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for document in "${documents[@]}"; do
  commands=$scratch/commands
  awk '/^```sh$/ { on = 1; next } /^```$/ { on = 0 } on' "$root/$document" >"$commands"
  test -s "$commands" || { echo "$document has no sh block"; exit 1; }
  work=$scratch/${document//\//-}
  mkdir "$work"
  ln -s "$root"/{coordinator,deploy,proto,worker} "$work/"
  printf '\n== %s (%s s)\n' "$document" "$SECONDS"
  cd "$work"
  run "$commands"
done
printf '\n== done (%s s)\n' "$SECONDS"
