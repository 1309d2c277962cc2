#!/usr/bin/env bash
# Compares every family with diffusers at its true widths: creates pipelines with random weights (a few layers of each
# kind; text encoders and decoder likewise) in a temporary folder, runs them with diffusers and evocache, and compares
# every part. Prints a table family × part → relative error, and fails if an error is above 1e-4. Needs 8 GB of memory,
# 4 GB of disk, and 15 minutes on two cores. Arguments: names of families (default: all). PYTHON: an interpreter with
# torch, diffusers and transformers.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
families=("$@")
[ $# -gt 0 ] || families=(pixart1024 sigma dit flux sd35)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0
for family in "${families[@]}"; do
  "$python" pipelines.py true "$folder" "$family" >/dev/null 2>"$folder/log" || { cat "$folder/log"; exit 1; }
  # Dependencies are optimized in the dev profile too.
  EVOCACHE_PARITY="$folder/$family" cargo test --quiet -p evocache-worker --test pipelines -- \
    --ignored --exact another_pipeline_agrees_with_diffusers --nocapture >"$folder/log" 2>&1 || failed=1
  grep -E '  [ 0-9.]+e-?[0-9]+$|error$|panicked|above' "$folder/log" || cat "$folder/log"
  rm -rf "${folder:?}/$family"
done
exit $failed
