#!/usr/bin/env bash
# A search by the Python worker and client against a coordinator that wants TLS, certificates and tokens; grpcurl on its
# services; the schedule that was found, drawn by evocache-worker and by diffusers. Called by test.sh.
set -euo pipefail
cd "$(dirname "$0")/../../.."
programs=${PROGRAMS:-target/release}
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT
address=127.0.0.1:17447
export OMP_NUM_THREADS=1
python=deploy/examples/python

# An authority, and certificates of the coordinator and of its callers.
key() { openssl req "$@" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes 2>/dev/null; }
key -x509 -days 30 -subj /CN=authority -keyout "$work/ca.key" -out "$work/ca.pem"
for name in server caller; do
  key -subj "/CN=$name" -addext subjectAltName=IP:127.0.0.1 -keyout "$work/$name.key" -out "$work/$name.csr"
  openssl x509 -req -in "$work/$name.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -days 30 -copy_extensions copy \
    -out "$work/$name.pem" 2>/dev/null
done
for role in operator worker; do
  "$programs/evocache" token new --name "$role" --role "$role" --out "$work/$role.token" >>"$work/tokens.toml"
done
export EVOCACHE_COORDINATOR=https://$address EVOCACHE_CA=$work/ca.pem
export EVOCACHE_CLIENT_CERT=$work/caller.pem EVOCACHE_CLIENT_KEY=$work/caller.key EVOCACHE_TOKEN_FILE=$work/operator.token
TOKEN=$(cat "$work/operator.token") && export TOKEN
grpcurl() {
  command grpcurl -cacert "$work/ca.pem" -cert "$work/caller.pem" -key "$work/caller.key" \
    -expand-headers -H 'authorization: Bearer ${TOKEN}' "$@"
}

"$programs/evocache" serve --listen "$address" --data "$work/store" --tls-cert "$work/server.pem" \
  --tls-key "$work/server.key" --client-ca "$work/ca.pem" --tokens "$work/tokens.toml" 2>"$work/serve.log" &
for _ in $(seq 100); do grpcurl "$address" list >"$work/services" 2>/dev/null && break || sleep 0.1; done
echo "grpcurl list:"; cat "$work/services"
for service in SearchService WorkerService FleetService; do grep -qx "evocache.v1.$service" "$work/services"; done

evocache-torch-worker --token-file "$work/worker.token" --model worker/models/emoji --name emoji >"$work/worker.log" 2>&1 &
worker=$!
if ! search=$(timeout 540 python3 "$python/client.py" launch --model emoji --evaluations 12 \
  --count 2 --batch 1 --steps 20 12 -- worker/models/emoji/prompts.txt); then
  tail -n 30 "$work/worker.log" "$work/serve.log"
  exit 1
fi
echo "search $search is done; its front:"
python3 "$python/client.py" front "$search"
python3 "$python/client.py" best "$search" --where 'psnr>=25' --out "$work/best.json"

echo "grpcurl calls GetSearch:"
grpcurl -d "{\"search_id\": \"$search\"}" "$address" evocache.v1.SearchService/GetSearch >"$work/search.json"
python3 - "$work/search.json" <<'PY'
import json, sys
search = json.load(open(sys.argv[1]))["search"]
print(search["state"], search["progress"])
assert search["state"] == "SEARCH_STATE_COMPLETED" and search["progress"]["evaluations"] == "12", search
PY

echo "the schedule that Python chose, drawn by evocache-worker:"
apple="a red apple on a sky blue background"
"$programs/evocache-worker" generate --model worker/models/emoji --prompt "$apple" --seed 1234 --guidance 3.0 \
  --schedule "$work/best.json" --out "$work/apple.png"
echo "the same by diffusers:"
python3 "$python/draw.py" worker/models/emoji "$work/best.json" --prompt "$apple" --seed 1234 --guidance 3.0 \
  --out "$work/diffusers.png" --like "$work/apple.png"

id=$("$programs/evocache" workers --json | python3 -c 'import json,sys; d=json.load(sys.stdin); w=d["workers"] if isinstance(d, dict) else d; print(w[0].get("id") or w[0]["worker_id"])')
"$programs/evocache" drain "$id"
wait "$worker"
echo "the Python worker left when it was drained"
