#!/usr/bin/env bash
# `evocache-worker serve` with the bundled model, as its clients see it: curl and the official `openai` client for Python
# get the pictures that `generate` draws for the same seed and schedule; refusals arrive as their errors; a stop loses
# nothing. About a minute on two cores.
#
#   deploy/examples/serve-test.sh
#
# Needs evocache-worker in the folder PROGRAMS [default: target/release], curl, and a `python` with
# deploy/examples/serve-requirements.txt installed [PYTHON, default: python3].
set -euo pipefail
cd "$(dirname "$0")/../.."
programs=$(cd "${PROGRAMS:-target/release}" && pwd)
python=${PYTHON:-python3}
model=worker/models/emoji
schedule=$model/golden/cached_fora_3.json
work=$(mktemp -d)
server=
end() {
  code=$?
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; fi
  if [ "$code" != 0 ]; then cat "$work"/*.log || true; fi
  rm -rf "$work"
  exit "$code"
}
trap end EXIT

say() { printf '\n-- %s (%ss)\n' "$1" "$SECONDS"; }

# Starts a server with these arguments on a free port, waits until it is ready, and sets `server` and `url`.
serve() {
  : >"$work/serve.log"
  "$programs/evocache-worker" serve --model "$model" --listen 127.0.0.1:0 "$@" 2>"$work/serve.log" &
  server=$!
  for _ in $(seq 600); do
    url=$(sed -n 's/.*ready.*address=\([0-9.:]*\).*/http:\/\/\1/p' "$work/serve.log")
    if [ -n "$url" ]; then return; fi
    if ! kill -0 "$server"; then echo "the server has ended"; exit 1; fi
    sleep 0.1
  done
  echo "the server is not ready"
  exit 1
}

# Sends a request to $url; the answer's head goes to head.txt and its body to body.json.
ask() {
  curl --silent --show-error --dump-header "$work/head.txt" --output "$work/body.json" \
    --header 'content-type: application/json' "${@:2}" --data "$1" "$url/v1/images/generations"
}

# Compares the picture of the last answer with a file.
same() {
  "$python" -c 'import base64, json, sys; sys.stdout.buffer.write(base64.b64decode(json.load(open(sys.argv[1]))["data"][0]["b64_json"]))' \
    "$work/body.json" >"$work/served.png"
  cmp "$work/served.png" "$1"
}

has() { grep -qi "$1" "$2" || { echo "no '$1' in $2:"; head -c 2000 "$2"; exit 1; }; }

say "what generate draws, cached and uncached"
owl=(--model "$model" --prompt "an owl on a pink background" --seed 7 --guidance 3)
"$programs/evocache-worker" generate "${owl[@]}" --schedule "$schedule" --out "$work/cached.png"
"$programs/evocache-worker" generate "${owl[@]}" --out "$work/uncached.png"

serve --schedule "$schedule" --guidance 3
say "curl gets the same"
body='{"prompt": "an owl on a pink background", "seed": 7}'
ask "$body"
has '^HTTP/1.1 200' "$work/head.txt"
has '^x-evocache-why: given with --schedule' "$work/head.txt"
same "$work/cached.png"
ask '{"prompt": "an owl on a pink background", "seed": 7, "schedule": "none"}'
has '^x-evocache-schedule: none' "$work/head.txt"
same "$work/uncached.png"

say "refusals"
ask '{"prompt": "an owl", "sise": "64x64"}'
has '^HTTP/1.1 400' "$work/head.txt"
has "unknown field 'sise'" "$work/body.json"
ask '{"prompt": "an owl", "num_inference_steps": 900}' --header 'x-deadline: 0.01'
has '^HTTP/1.1 503' "$work/head.txt"
has '^retry-after: [0-9]' "$work/head.txt"

say "the openai client"
"$python" deploy/examples/openai_images.py --url "$url" --prompt "an owl on a pink background" --seed 7 --out "$work/openai.png"
cmp "$work/openai.png" "$work/cached.png"

say "20 requests of 4 users at once, and a stop in the middle"
answers=()
for i in $(seq 20); do
  curl --silent --show-error --output "$work/answer.$i" --header 'content-type: application/json' \
    --data "{\"prompt\": \"an owl\", \"seed\": $i, \"user\": \"$((i % 4))\"}" "$url/v1/images/generations" &
  answers+=($!)
done
# Let in when all of them wait or are answered.
for _ in $(seq 300); do
  there=$(curl --silent "$url/metrics" | awk '/^evocache_serve_(queue|running)_pictures / { n += $2 } /^evocache_serve_requests_total.*code="ok"/ { n += $2 } END { print n - 4 }')
  if [ "$there" -ge 20 ]; then break; fi
  sleep 0.1
done
kill "$server"
wait "${answers[@]}"
wait "$server"
server=
for i in $(seq 20); do has '"b64_json"' "$work/answer.$i"; done
if grep -q owl "$work/serve.log"; then echo "a prompt is in the log"; exit 1; fi
say "done"
