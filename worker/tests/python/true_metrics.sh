#!/usr/bin/env bash
# Compares every metric with its official Python package at the sizes of the published weights: creates random weights
# and pictures in a temporary folder and scores them with Python and evocache. Prints a table metric → relative error,
# and fails if an error is above 1e-3. Needs up to 12 GB of memory, 4 GB of disk, and 15 minutes on two cores. Arguments:
# names of metrics (default: all). PYTHON: an interpreter with requirements-metrics.txt; OLD: the folder of
# requirements-image-reward.txt.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
names=("$@")
[ $# -gt 0 ] || names=(ssim lpips_alex lpips_vgg clip_score clip_score_large pick_score hps_v2 image_reward fid cmmd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0
for name in "${names[@]}"; do
  path=${PYTHONPATH:-}
  [ "$name" = image_reward ] && path=${OLD:?must be the folder of requirements-image-reward.txt}
  PYTHONPATH=$path "$python" -W ignore metrics.py true "$folder" "$name" >/dev/null 2>"$folder/log" || { cat "$folder/log"; exit 1; }
  # Dependencies are optimized in the dev profile too.
  EVOCACHE_METRIC="$folder/$name" cargo test --quiet -p evocache-worker --test metrics -- \
    --ignored --exact another_metric_agrees_with_python --nocapture >"$folder/log" 2>&1 || failed=1
  grep -E '^[a-z0-9_]+ +[0-9.]+e-?[0-9]+$|panicked|is not' "$folder/log" | sed "s/^[a-z0-9_]* /$name /" || cat "$folder/log"
  rm -rf "${folder:?}/$name"
done
exit $failed
