#!/usr/bin/env bash
# A whole search by the Python worker and client against the real coordinator, and grpcurl on its services.
# Needs a release build, and on PATH a python3 with requirements.txt installed and grpcurl.
set -euo pipefail
cd "$(dirname "$0")/../../.."
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT
address=127.0.0.1:17447
export OMP_NUM_THREADS=1
python=deploy/examples/python

target/release/evocache serve --listen "$address" --data "$work/store" 2>"$work/serve.log" &
for _ in $(seq 100); do grpcurl -plaintext "$address" list >"$work/services" 2>/dev/null && break || sleep 0.1; done
echo "grpcurl list:"; cat "$work/services"
for service in SearchService WorkerService FleetService; do grep -qx "evocache.v1.$service" "$work/services"; done

python3 "$python/worker.py" --coordinator "$address" --model worker/models/emoji --name emoji >"$work/worker.log" 2>&1 &
worker=$!
if ! search=$(timeout 540 python3 "$python/client.py" --coordinator "$address" launch --model emoji --evaluations 12 \
  --count 2 --batch 1 --steps 20 12 -- worker/models/emoji/prompts.txt); then
  tail -n 30 "$work/worker.log" "$work/serve.log"
  exit 1
fi
echo "search $search is done; its front:"
python3 "$python/client.py" --coordinator "$address" front "$search"
python3 "$python/client.py" --coordinator "$address" best "$search" --min-psnr 25 >"$work/best.json"

echo "grpcurl calls GetSearch:"
grpcurl -plaintext -d "{\"search_id\": \"$search\"}" "$address" evocache.v1.SearchService/GetSearch >"$work/search.json"
python3 - "$work/search.json" <<'PY'
import json, sys
search = json.load(open(sys.argv[1]))["search"]
print(search["state"], search["progress"])
assert search["state"] == "SEARCH_STATE_COMPLETED" and search["progress"]["evaluations"] == "12", search
PY

echo "the schedule that Python chose, drawn by evocache-worker:"
target/release/evocache-worker generate --model worker/models/emoji --prompt "a red apple on a sky blue background" \
  --seed 1234 --guidance 3.0 --schedule "$work/best.json" --steps "$(grep -o '"num_inference_steps": [0-9]*' "$work/best.json" | grep -o '[0-9]*')" --out "$work/apple.png"
ls -l "$work/apple.png"

id=$(target/release/evocache --coordinator "http://$address" workers --json | python3 -c 'import json,sys; d=json.load(sys.stdin); w=d["workers"] if isinstance(d, dict) else d; print(w[0].get("id") or w[0]["worker_id"])')
target/release/evocache --coordinator "http://$address" drain "$id"
wait "$worker"
echo "the Python worker left when it was drained"
