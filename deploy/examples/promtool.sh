#!/usr/bin/env bash
# promtool's verdict on what the coordinator tells Prometheus: the metrics of a real one with TLS and tokens, the alert
# rules, and their tests. Needs a release build; installs Debian's package prometheus where it may, and says so where not.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! command -v promtool >/dev/null; then
  if ! { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq &&
    apt-get install -y -qq --no-install-recommends prometheus; } >/dev/null 2>&1; then
    echo "there is no promtool here, and it cannot be installed (Debian package prometheus): skipped"
    exit 0
  fi
fi
evocache=${EVOCACHE:-target/release/evocache}
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT
key() { openssl req "$@" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes 2>/dev/null; }
key -x509 -days 30 -subj /CN=authority -keyout "$work/ca.key" -out "$work/ca.pem"
key -subj /CN=coordinator -addext subjectAltName=IP:127.0.0.1 -keyout "$work/server.key" -out "$work/server.csr"
openssl x509 -req -in "$work/server.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -days 30 -copy_extensions copy \
  -out "$work/server.pem" 2>/dev/null
"$evocache" token new --name ci --role admin --out "$work/ci.token" >"$work/tokens.toml" 2>/dev/null
mkfifo "$work/told"
"$evocache" serve --listen 127.0.0.1:0 --http 127.0.0.1:0 --data "$work/store" --tls-cert "$work/server.pem" \
  --tls-key "$work/server.key" --client-ca "$work/ca.pem" --tokens "$work/tokens.toml" --json >"$work/told" 2>"$work/log" &
exec 3<"$work/told"
read -r told <&3 || { cat "$work/log"; exit 1; }
read -r url http < <(python3 -c 'import json, sys; told = json.loads(sys.argv[1]); print(told["url"], told["http"])' "$told")
# A call that is answered, and one that is not let in: both have their metrics.
call() {
  "$evocache" --coordinator "$url" --ca "$work/ca.pem" --client-cert "$work/server.pem" --client-key "$work/server.key" "$@"
}
call --token-file "$work/ci.token" list >/dev/null
call list >/dev/null 2>&1 && { echo "a call without a token was let in"; exit 1; }
python3 -c 'import sys, urllib.request as r; sys.stdout.buffer.write(r.urlopen(sys.argv[1] + "/metrics").read())' "$http" >"$work/metrics"
echo "promtool check metrics: $(grep -c '^# TYPE' "$work/metrics") families"
promtool check metrics <"$work/metrics"
cd deploy/examples
promtool check rules alerts.yml
promtool test rules alerts_test.yml
# Each metric that a rule names must be one that the coordinator tells.
for name in $(grep -o 'evocache_[a-z_]*' alerts.yml | sort -u); do
  grep -q "^$name[ {]" "$work/metrics" || { echo "alerts.yml names $name, which the coordinator does not tell"; exit 1; }
done
echo "promtool is content"
