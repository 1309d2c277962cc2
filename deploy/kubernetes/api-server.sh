#!/usr/bin/env bash
# A real Kubernetes API server with its etcd, and nothing else: no kubelet, no controllers. Debian has it as source only, so
# it is built once, in five minutes of two cores: version 1.20, older than what the chart is for.
#
#   deploy/kubernetes/api-server.sh FOLDER      writes FOLDER/kubeconfig when it is ready, and runs until it is killed
#
# Needs root on Debian, its package sources, and a gigabyte.
set -euo pipefail
folder=$(realpath -m "${1:?usage: api-server.sh FOLDER}")
mkdir -p "$folder/build/lists/partial" "$folder/state"
server=$folder/build/kube-apiserver
if [ ! -x "$server" ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends etcd-server golang-1.19-go dpkg-dev rsync >/dev/null
  # The machine's own sources, as sources of source packages.
  sed 's/^Types: deb$/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >"$folder/build/debian.sources"
  options=(-o "Dir::Etc::SourceList=$folder/build/debian.sources" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$folder/build/lists" -o APT::Sandbox::User=root)
  cd "$folder/build"
  # What an interrupted run has left is used again.
  if ! ls -d kubernetes-*/ >/dev/null 2>&1; then
    apt-get "${options[@]}" update -qq
    apt-get "${options[@]}" source -qq kubernetes >source.log 2>&1 || { tail -n 5 source.log; exit 1; }
  fi
  cd kubernetes-*/
  # The layout that Go modules of that age want: vendored, below GOPATH.
  mkdir -p "$folder/build/go/src/k8s.io"
  ln -sfn "$PWD" "$folder/build/go/src/k8s.io/kubernetes"
  cd "$folder/build/go/src/k8s.io/kubernetes"
  GOPATH=$folder/build/go GO111MODULE=off GOFLAGS=-p=2 /usr/lib/go-1.19/bin/go build \
    -ldflags "-X k8s.io/component-base/version.gitVersion=v1.20.2 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=20" \
    -o "$server" ./cmd/kube-apiserver
fi
cd "$folder/state"
[ -e sa.key ] || openssl genrsa -out sa.key 2048 2>/dev/null
token=$(openssl rand -hex 24)
(umask 077 && echo "$token,admin,1,\"system:masters\"" >tokens.csv)
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
client=$(free) peer=$(free) port=$(free)
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
trap 'exit 0' TERM INT
etcd --data-dir "$folder/state/etcd" --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
  --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
  --initial-cluster "default=http://127.0.0.1:$peer" >etcd.log 2>&1 &
"$server" --etcd-servers "http://127.0.0.1:$client" --bind-address 127.0.0.1 --secure-port "$port" --cert-dir "$folder/state/certs" \
  --service-cluster-ip-range 10.96.0.0/16 --service-account-issuer https://kubernetes.default.svc \
  --service-account-key-file sa.key --service-account-signing-key-file sa.key --token-auth-file tokens.csv \
  --authorization-mode RBAC >api-server.log 2>&1 &
until python3 - "$port" "$token" <<'PY' 2>/dev/null; do
import ssl, sys, urllib.request as r
ask = r.Request(f"https://127.0.0.1:{sys.argv[1]}/readyz", headers={"Authorization": f"Bearer {sys.argv[2]}"})
assert r.urlopen(ask, context=ssl._create_unverified_context()).read() == b"ok"
PY
  [ "$(jobs -rp | wc -l)" = 2 ] || { tail -n 20 api-server.log etcd.log; exit 1; }
  sleep 0.5
done
cat >"$folder/kubeconfig.new" <<END
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:$port", insecure-skip-tls-verify: true}}]
users: [{name: admin, user: {token: $token}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
END
mv "$folder/kubeconfig.new" "$folder/kubeconfig"
wait -n
