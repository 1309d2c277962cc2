#!/usr/bin/env bash
# Makes the folder that the coordinator's job and the workers' jobs share: an authority for TLS, a token for people, one for
# workers, and `env`, which a shell sources to reach the coordinator. Changes nothing that is there already.
#
#   EVOCACHE_SHARED=$HOME/evocache deploy/slurm/prepare.sh
#
# The folder must be on a file system that all nodes mount, and yours alone: it holds keys and tokens.
# Needs `evocache` on the PATH, and OpenSSL 3.
set -euo pipefail
shared=${EVOCACHE_SHARED:?set it to a folder that all nodes mount}
umask 077
mkdir -p "$shared"
shared=$(cd "$shared" && pwd)
case $shared in *[[:space:]\'\"]*) echo "error: '$shared' has a space or a quote in its name" >&2; exit 2 ;; esac
if [ -n "$(find "$shared" -maxdepth 0 -perm /077)" ]; then
  echo "error: others can enter '$shared', which will hold keys and tokens: chmod 700 '$shared'" >&2
  exit 1
fi
if [ ! -e "$shared/ca.pem" ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=evocache-authority \
    -keyout "$shared/ca.key" -out "$shared/ca.pem" 2>"$shared/openssl.log" || { cat "$shared/openssl.log" >&2; exit 1; }
  rm "$shared/openssl.log"
fi
for role in operator worker; do
  if [ ! -e "$shared/$role.token" ]; then
    evocache token new --name "$role" --role "$role" --out "$shared/$role.token" >>"$shared/tokens.toml"
  fi
done
cat >"$shared/env" <<END
# Source this: then \`evocache\` reaches the coordinator of this folder, wherever its job runs now.
export EVOCACHE_SHARED=$shared EVOCACHE_CA=$shared/ca.pem EVOCACHE_TOKEN_FILE=$shared/operator.token
if [ -s $shared/coordinator.url ]; then
  EVOCACHE_COORDINATOR=\$(cat $shared/coordinator.url) && export EVOCACHE_COORDINATOR
else
  echo "the coordinator has not started yet: squeue --me says why, then source this again" >&2
fi
END
echo "$shared is ready"
