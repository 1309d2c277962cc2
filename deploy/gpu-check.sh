#!/usr/bin/env bash
# Everything that can only be seen on a GPU, in under 8 minutes on one: parity with diffusers, speed, a small search through a
# real coordinator. Without a GPU it says so and ends with exit code 3; 1 is something that went wrong.
#
#   deploy/gpu-check.sh [cuda:N]          the device [default: cuda:0]
#
# Needs two programs: EVOCACHE_WORKER, built by deploy/cuda/build.sh [default: target/cuda/release/evocache-worker], and
# EVOCACHE, built anyhow [default: target/release/evocache]. Prints one table a part; keeps nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${1:-cuda:0}
worker=${EVOCACHE_WORKER:-target/cuda/release/evocache-worker}
evocache=${EVOCACHE:-target/release/evocache}
folder=$(mktemp -d)
children=()
cleanup() {
  for child in "${children[@]}"; do kill "$child" 2>/dev/null && wait "$child" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap cleanup EXIT
failed=0
part() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }
limited() { timeout --signal=TERM "$@"; }

for program in "$worker" "$evocache"; do
  [ -x "$program" ] || { echo "'$program' is not there: deploy/cuda/build.sh and \`cargo build --release\` make them"; exit 1; }
done
if ! "$worker" check --device "$device" worker/tests/fixtures/dit >"$folder/probe" 2>&1; then
  if grep -q 'cannot be used' "$folder/probe"; then
    cat "$folder/probe"
    echo "no GPU to check"
    exit 3
  fi
fi
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total,temperature.gpu --format=csv

fixtures=(worker/tests/fixtures/{pixart1024,sigma,flux,schnell,dit,sd3,sd35})
for precision in f32 bf16; do
  part "parity in $precision: the tests' pipelines on the device against diffusers"
  limited 60 "$worker" check --device "$device" --precision "$precision" "${fixtures[@]}" || failed=1
done

for precision in bf16 f32; do
  part "speed: one block of each kind at true width, in $precision"
  limited 90 "$worker" blocks --device "$device" --precision "$precision" --repeats 20 || failed=1
done
for precision in bf16 f32; do
  part "speed: ten schedules of the bundled model, in $precision"
  limited 60 "$worker" bench --model worker/models/emoji --device "$device" --precision "$precision" --guidance 3 --batch 32 \
    --repeats 5 || failed=1
done

part "a search of 40 evaluations on the bundled model"
sed 's/^evaluations = .*/evaluations = 40/' deploy/examples/emoji.toml >"$folder/search.toml"
"$evocache" serve --listen 127.0.0.1:0 --data "$folder/store" --json >"$folder/ready" 2>"$folder/coordinator.log" &
children+=($!)
until [ -s "$folder/ready" ]; do sleep 0.1; done
url=$(python3 -c 'import json, sys; print(json.loads(sys.stdin.readline())["url"])' <"$folder/ready")
"$worker" run --coordinator "$url" --model worker/models/emoji --model-name emoji --devices "$device" \
  2>"$folder/worker.log" &
children+=($!)
"$evocache" --coordinator "$url" launch "$folder/search.toml" --id check >/dev/null
if limited 180 "$evocache" --coordinator "$url" watch check >/dev/null 2>&1; then
  "$evocache" --coordinator "$url" workers
  "$evocache" --coordinator "$url" front check
else
  tail -20 "$folder/worker.log"
  failed=1
fi

part "done"
[ "$failed" = 0 ] && echo "all of it as it should be" || echo "something is off; see above"
exit "$failed"
