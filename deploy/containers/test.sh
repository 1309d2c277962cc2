#!/usr/bin/env bash
# The images, built by buildah without a daemon, on a base that debootstrap makes, and run as a search on the bundled model:
# as a user without rights, on a read-only root, with no capability.
#
#   deploy/containers/test.sh [--if-available]
#
# --if-available  where buildah cannot be installed, say so and succeed; otherwise that is a failure
#
# No registry is asked. The programs are those of the folder PROGRAMS [default: target/release]: their stage, which compiles
# for ten minutes, is left out. Needs root on Debian and its package sources.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
available=must
for argument in "$@"; do
  case $argument in
    --if-available) available=may ;;
    *) echo "unknown argument '$argument'"; exit 2 ;;
  esac
done
without() {
  echo "no image builder here: $1"
  if [ "$available" = may ]; then exit 0; fi
  echo "--if-available makes this test pass where buildah cannot be had"
  exit 1
}
[ "$(id -u)" = 0 ] || without "only root can make the base and run users without rights"
programs=$(cd "${PROGRAMS:-target/release}" && pwd)
for program in evocache evocache-worker; do
  [ -x "$programs/$program" ] || { echo "'$programs/$program' is not there: cargo build --release --workspace"; exit 1; }
done
d=$(mktemp -d /var/tmp/evocache-containers.XXXXXX)
children=()
mounts=()
finish() {
  local code=$?
  trap - EXIT
  [ "$code" = 0 ] || tail -n 20 "$d"/*.log 2>/dev/null || true
  for child in "${children[@]}"; do kill "$child" 2>/dev/null && wait "$child" 2>/dev/null || true; done
  for mount in "${mounts[@]}"; do umount -l "$mount" 2>/dev/null || true; done
  rm -rf "$d"
  [ "$code" != 0 ] || echo "passed in $SECONDS s"
  exit "$code"
}
trap finish EXIT
step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

if ! command -v buildah >/dev/null || ! command -v debootstrap >/dev/null; then
  command -v apt-get >/dev/null || without "this is not Debian"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah debootstrap; } \
    >"$d/apt.log" 2>&1 || without "its packages cannot be installed"
fi
buildah() { command buildah --storage-driver vfs --root "$d/storage" --runroot "$d/run" "$@"; }

step "a base by debootstrap"
mirror=$(sed -n 's/^URIs: //p' /etc/apt/sources.list.d/debian.sources | head -n 1)
debootstrap --variant=minbase bookworm "$d/base" "$mirror" >"$d/debootstrap.log" 2>&1
container=$(buildah from scratch)
buildah add --quiet "$container" "$d/base" / >/dev/null
buildah commit --quiet "$container" localhost/base >/dev/null
buildah rm "$container" >/dev/null
rm -rf "$d/base"

step "both images"
mkdir -p "$d/programs/out/models"
cp "$programs/evocache" "$programs/evocache-worker" "$d/programs/out/"
cp -r worker/models/emoji "$d/programs/out/models/"
rm -r "$d"/programs/out/models/emoji/{train,golden}
for target in coordinator worker; do
  buildah build --quiet --isolation chroot --network host --file deploy/containers/Containerfile \
    --ignorefile deploy/containers/Containerfile.dockerignore --build-arg BASE=localhost/base --build-arg RUST=localhost/base \
    --build-context "build=$d/programs" --target "$target" --tag "evocache-$target:test" . >"$d/build-$target.log" 2>&1
done
buildah images

# Runs an image's entry point with these arguments, as the image says: its user and its variables. The root is read-only but
# for /tmp and, if one is given, the folder of the store; there are no capabilities, and no new privileges.
inside() {
  local image=$1 store=$2
  shift 2
  local container root
  container=$(buildah from "localhost/evocache-$image:test")
  root=$(buildah mount "$container")
  buildah inspect --type image "localhost/evocache-$image:test" >"$d/$container.json"
  mapfile -t config < <(python3 - "$d/$container.json" <<'PY'
import json, sys
config = json.load(open(sys.argv[1]))["OCIv1"]["config"]
assert config["User"] == "65532:65532", config
print(config["Entrypoint"][0])
print(*config["Env"], sep="\n")
PY
  )
  exec unshare --mount --propagation private bash -c '
    set -euo pipefail
    root=$1 store=$2
    shift 2
    mount --bind "$root" "$root"
    mount -t tmpfs tmpfs "$root/tmp"
    for folder in dev proc; do mount --rbind "/$folder" "$root/$folder"; done
    if [ -n "$store" ]; then mount --bind "$store" "$root/var/lib/evocache"; fi
    mount -o remount,bind,ro "$root"
    if touch "$root/usr/local/written" 2>/dev/null; then echo "the root can be written"; exit 1; fi
    exec chroot "$root" setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
      env -i "$@"
  ' inside "$root" "$store" "${config[@]:1}" "${config[0]}" "$@"
}

step "a coordinator and a worker of these images"
for image in coordinator worker; do
  if (inside "$image" "" --version) >"$d/$image.version"; then cat "$d/$image.version"; else exit 1; fi
done
mkdir "$d/store"
chown 65532:65532 "$d/store"
(inside coordinator "$d/store" serve --listen 127.0.0.1:17457 --http 127.0.0.1:17458 --log-format json) 2>"$d/coordinator.log" &
coordinator=$!
children+=("$coordinator")
export EVOCACHE_COORDINATOR=http://127.0.0.1:17457 PATH=$programs:$PATH
for _ in $(seq 100); do evocache list >/dev/null 2>&1 && break || sleep 0.2; done
(inside worker "" run --coordinator "$EVOCACHE_COORDINATOR" --model /usr/local/share/evocache/models/emoji \
  --model-name emoji --threads 1) 2>"$d/worker.log" &
worker=$!
children+=("$worker")
grep -E '^(Uid|CapBnd|CapEff|NoNewPrivs)' "/proc/$coordinator/status"
sed -e 's/^evaluations = .*/evaluations = 10/' -e 's/^prompts = .*/prompts = 4/' -e 's/^repeats = .*/repeats = 1/' \
  -e "s#^prompts_file = .*#prompts_file = \"$root/worker/models/emoji/prompts.txt\"#" deploy/examples/emoji.toml >"$d/search.toml"
timeout 120 evocache launch "$d/search.toml" --id images --watch >/dev/null 2>"$d/watch.log"
evocache list
kill "$worker"
wait "$worker"
kill "$coordinator"
wait "$coordinator"
children=()
echo "both stopped in order; the store:"
ls -ln "$d/store"
