#!/usr/bin/env bash
# The batch scripts on a real Slurm: Debian's, three nodes of two simulated GPUs each on this machine. A whole search on the
# bundled model by four array tasks, while a task reaches its limit of time, one is preempted, one is cancelled, and the node
# of the coordinator is lost. The search must end with every evaluation counted once.
#
#   deploy/slurm/test.sh [--full] [--if-available]
#
# --full          four rounds of disturbances instead of one, and a longer search
# --if-available  where Slurm cannot be installed, say so and succeed; otherwise that is a failure
#
# Needs root (nodes run jobs as their owners), and both programs in the folder PROGRAMS [default: target/release].
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
rounds=1 evaluations=120 available=must
for argument in "$@"; do
  case $argument in
    --full) rounds=4 evaluations=600 ;;
    --if-available) available=may ;;
    *) echo "unknown argument '$argument'"; exit 2 ;;
  esac
done
without() {
  echo "no Slurm here: $1"
  if [ "$available" = may ]; then exit 0; fi
  echo "--if-available makes this test pass where Slurm cannot be had"
  exit 1
}
[ "$(id -u)" = 0 ] || without "only root can run slurmd for others"
packages=(slurmctld slurmd slurm-client munge)
if ! dpkg -s "${packages[@]}" >/dev/null 2>&1; then
  command -v apt-get >/dev/null || without "this is not Debian"
  work=$(mktemp -d)
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"; } \
    >"$work/apt" 2>&1 || { tail -n 5 "$work/apt"; without "its packages cannot be installed"; }
  rm -rf "$work"
fi
programs=$(cd "${PROGRAMS:-target/release}" && pwd)
for program in evocache evocache-worker; do
  [ -x "$programs/$program" ] || { echo "'$programs/$program' is not there: cargo build --release --workspace"; exit 1; }
done
export PATH=$programs:$PATH

d=$(mktemp -d /tmp/evocache-slurm.XXXXXX)
chmod 755 "$d"
step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }
# The processes of a node: slurmd with its steps, and what jobs run there.
of_node() {
  python3 - "$d" "$1" <<'PY'
import pathlib, sys
folder, node = sys.argv[1:]
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        variables = set((process / "environ").read_bytes().split(b"\0"))
    except OSError:
        continue  # It has ended, or is a part of the kernel.
    own = {f"EVOCACHE_TEST_NODE={folder}/{node}".encode()}
    job = {f"EVOCACHE_SHARED={folder}/shared".encode(), f"SLURMD_NODENAME={node}".encode()}
    if own <= variables or job <= variables:
        print(process.name)
PY
}
finish() {
  local code=$?
  trap - EXIT
  if [ "$code" != 0 ]; then
    squeue 2>/dev/null || true
    tail -n 15 "$d"/shared/*.log "$d"/*.log 2>/dev/null || true
  fi
  scancel --full --signal=KILL --user=root 2>/dev/null || true
  for node in n1 n2 n3; do of_node "$node" | xargs -r kill -KILL 2>/dev/null || true; done
  for pid in slurmctld munged; do [ ! -s "$d/$pid.pid" ] || kill -KILL "$(cat "$d/$pid.pid")" 2>/dev/null || true; done
  rm -rf "$d"
  [ "$code" != 0 ] || echo "passed in $SECONDS s"
  exit "$code"
}
trap finish EXIT

step "a Slurm of three nodes"
mkdir -p "$d"/{munge,state,gres,jobs} "$d"/spool/n{1,2,3}
chmod 711 "$d/munge"
dd if=/dev/urandom of="$d/munge/key" bs=1024 count=1 2>/dev/null
chmod 400 "$d/munge/key"
munged --force --key-file="$d/munge/key" --socket="$d/munge/sock" --pid-file="$d/munged.pid" \
  --log-file="$d/munge/log" --seed-file="$d/munge/seed"
host=$(hostname -s)
cat >"$d/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmctldPidFile=$d/slurmctld.pid
SlurmctldLogFile=$d/slurmctld.log
SlurmdPidFile=$d/slurmd-%n.pid
SlurmdLogFile=$d/slurmd-%n.log
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$d/munge/sock
StateSaveLocation=$d/state
SlurmdSpoolDir=$d/spool/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=300
KillWait=30
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
SlurmdParameters=config_overrides
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
END
for i in 1 2 3; do
  echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=1700$i CPUs=16 RealMemory=16000 Gres=gpu:test:2 State=UNKNOWN"
done >>"$d/slurm.conf"
cat >>"$d/slurm.conf" <<END
PartitionName=gpu Nodes=n[1-3] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes=n[1-3] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
END
for i in 1 2 3; do
  for gpu in 0 1; do
    mknod "$d/gres/n$i-gpu$gpu" c 195 "$gpu" || without "device files cannot be made"
    echo "NodeName=n$i Name=gpu Type=test File=$d/gres/n$i-gpu$gpu Count=1"
  done
done >"$d/gres.conf"
printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' >"$d/cgroup.conf"
export SLURM_CONF=$d/slurm.conf
slurmctld -f "$SLURM_CONF"
for i in 1 2 3; do EVOCACHE_TEST_NODE=$d/n$i slurmd -f "$SLURM_CONF" -N "n$i"; done

# Waits until a command succeeds, at most so many seconds.
until_true() {
  local most=$1 what=$2 began=$SECONDS
  shift 2
  until "$@"; do
    if [ $((SECONDS - began)) -ge "$most" ]; then echo "not within $most s: $what"; return 1; fi
    sleep 0.3
  done
}
idle_nodes() { [ "$(sinfo -h -N -p gpu -t idle -o %N | wc -l)" = 3 ]; }
until_true 30 "three idle nodes" idle_nodes
sinfo -N -p gpu -o "%N %T %G"

step "what the front door would do"
cd "$d/jobs"
export EVOCACHE_HOST=127.0.0.1 EVOCACHE_HTTP=127.0.0.1:19464
scripts=$root/deploy/slurm
sed -e "s/^evaluations = .*/evaluations = $evaluations/" -e 's/^prompts = .*/prompts = 8/' -e 's/^repeats = .*/repeats = 1/' \
  -e "s#^prompts_file = .*#prompts_file = \"$root/worker/models/emoji/prompts.txt\"#" "$root/deploy/examples/emoji.toml" >"$d/search.toml"
cat >"$d/site.toml" <<END
[slurm]
shared = "$d/shared"
coordinator = ["--partition=gpu"]
worker = ["--partition=gpu", "--cpus-per-task=1"]
run = ["--model", "$root/worker/models/emoji", "--model-name", "emoji"]
environment = { EVOCACHE_WRAP = "nice -n 1" }
END
front() { evocache launch "$d/search.toml" --id slurm --on slurm --workers 4 --profile "$d/site.toml" "$@"; }
front --dry-run >"$d/plan.sh"
bash -n "$d/plan.sh"
tail -n 6 "$d/plan.sh"
# The files that it would write are those of this folder.
for file in prepare.sh coordinator.sbatch worker.sbatch; do
  sed -n "/^cat >.*$file <</,/^END_OF_FILE\$/p" "$d/plan.sh" | sed '1d;$d' | cmp - "$scripts/$file"
done
[ -z "$(squeue -h)" ] && [ ! -e "$d/shared" ]

step "coordinator, search and workers by the front door"
export EVOCACHE_SHARED=$d/shared
front
until_true 30 "an address of the coordinator" test -s "$EVOCACHE_SHARED/coordinator.url"
cd "$EVOCACHE_SHARED"
"$scripts/prepare.sh" # by hand, once more, changes nothing
[ "$(grep -c '^name' tokens.toml)" = 2 ]
coordinator=$(squeue -h -n evocache-coordinator -o %i)
array=$(squeue -h -n evocache-worker-slurm -o %F | head -n 1)
logs=$EVOCACHE_SHARED/evocache-worker-slurm-${array}
call() { EVOCACHE_COORDINATOR=$(cat "$EVOCACHE_SHARED/coordinator.url") evocache --ca "$EVOCACHE_SHARED/ca.pem" \
  --token-file "$EVOCACHE_SHARED/operator.token" "$@"; }
# Whether all four tasks have a worker that the coordinator hears of; none on a node that is lost counts.
lost=none
four() {
  hurry
  call workers --json 2>/dev/null | python3 -c 'import json, sys
tasks = [w["name"].split("@") for w in json.load(sys.stdin) if w["state"] == "alive"]
sys.exit(len({task for task, node in tasks if node != sys.argv[1]}) != 4)' "$lost" 2>/dev/null
}
# Requeued jobs rest for two minutes, unless they are told not to. They do rest for some seconds: a credential that is given
# in the second in which the last one was revoked counts as revoked too.
hurry() {
  local id at
  for id in $(squeue -h -r -t PD -o %i); do
    at=$(scontrol -o show job "$id" 2>/dev/null | sed -n 's/.*EligibleTime=\([^ ]*\).*/\1/p')
    at=$(date -d "$at" +%s 2>/dev/null) || continue
    if [ "$at" -gt $(($(date +%s) + 10)) ]; then scontrol update jobid="$id" starttime=now+4 2>/dev/null || true; fi
  done
}
until_true 60 "four workers" four
squeue -o "%i %P %T %N %b"
cat "${logs}"_*.log | grep -o 'on n[1-3], GPU [01]' | sort | uniq -c | tee "$d/gpus"
[ "$(grep -c ' 1 on' "$d/gpus")" = 4 ] || { echo "two tasks share a GPU"; exit 1; }
done_so_far() { call show slurm --json 2>/dev/null | sed -n '0,/"evaluations"/s/.*"evaluations": *\([0-9]*\).*/\1/p'; }
beyond() { local n; n=$(done_so_far) && [ "${n:-0}" -ge "$1" ]; }
metric() { python3 -c 'import sys, urllib.request as r; print(next(line.split()[-1] for line in r.urlopen("http://127.0.0.1:19464/metrics").read().decode().splitlines() if line.startswith(sys.argv[1] + " ")))' "$1"; }
starts() { grep -c ', start [0-9]' "${logs}_0.log"; }
started_again() { hurry; [ "$(starts)" -gt "$1" ]; }
count() { cat "${logs}"_*.log | grep -c "$1" || true; }

for round in $(seq "$rounds"); do
  began=$(done_so_far)
  until_true 120 "the search goes on" beyond $((${began:-0} + 8))
  step "round $round: task 0 is near its limit of time"
  before=$(starts)
  scancel --batch --signal=USR1 "${array}_0"
  until_true 60 "task 0 starts again" started_again "$before"
  grep "limit of time" "${logs}_0.log" | tail -n 1
  until_true 30 "four workers" four

  step "round $round: urgent work takes the GPUs of the node of task 3"
  node=$(squeue -h -j "${array}_3" -o %N)
  before=$(count 'shutting down')
  urgent=$(sbatch --parsable --partition=urgent --nodelist="$node" --gres=gpu:2 --output="$d/urgent.log" --wrap 'sleep 3')
  urgent_ran() { ! squeue -h -j "$urgent" 2>/dev/null | grep -q .; }
  until_true 90 "the urgent job has run" urgent_ran
  after=$(count 'shutting down')
  [ "$after" -gt "$before" ] || { echo "no worker was told to end"; exit 1; }
  until_true 60 "four workers" four
  echo "$((after - before)) preempted, four are back"

  step "round $round: nothing has expired, as every candidate was given back"
  expired=$(metric evocache_leases_expired_total)
  echo "evocache_leases_expired_total $expired, evaluations $(done_so_far)"
  [ "$expired" = 0 ]

  step "round $round: the node of the coordinator is lost"
  node=$(squeue -h -j "$coordinator" -o %N)
  url=$(cat "$EVOCACHE_SHARED/coordinator.url")
  # Its slurmd is frozen and the node declared lost before anything is killed: a step that outlived its job for a moment
  # would report that the job has ended, which a lost node cannot.
  pids=$(of_node "$node")
  xargs -r kill -STOP <<<"$pids" || true
  scontrol update nodename="$node" state=down reason=lost
  xargs -r kill -KILL <<<"$pids" || true
  lost=$node since=$SECONDS
  moved() { hurry; [ "$(cat "$EVOCACHE_SHARED/coordinator.url")" != "$url" ]; }
  until_true 60 "the coordinator on another node" moved
  echo "from $url on $node to $(cat "$EVOCACHE_SHARED/coordinator.url") on $(squeue -h -j "$coordinator" -o %N)"
  until_true 90 "four workers" four
  echo "four workers again $((SECONDS - since)) s after the loss"
  EVOCACHE_TEST_NODE=$d/$node slurmd -f "$SLURM_CONF" -N "$node"
  # It may be back by itself already (ReturnToService).
  scontrol update nodename="$node" state=resume 2>/dev/null || true
  lost=none
done

step "one worker less, and the search ends"
site=(--on slurm --profile "$d/site.toml")
evocache scale slurm "${site[@]}" --workers 3
gone() { [ "$(squeue -h -r -n evocache-worker-slurm -t R,PD -o %i | wc -l)" = 3 ]; }
until_true 40 "three tasks" gone
timeout 480 bash -c '. "$EVOCACHE_SHARED/env" && evocache watch slurm' 2>"$d/watch" >/dev/null || { tail -n 5 "$d/watch"; exit 1; }
call show slurm --json >"$d/show.json"
call front slurm | tail -n 3
call workers

step "one worker more, then all down"
evocache scale slurm "${site[@]}" --workers 4
[ "$(squeue -h -r -n evocache-worker-slurm -t R,PD -o %i | wc -l)" = 4 ]
evocache down slurm "${site[@]}"
only() { [ "$(squeue -h -o %i)" = "$coordinator" ]; }
until_true 60 "the coordinator alone" only
evocache down slurm "${site[@]}" --all

step "stopped, the store holds every evaluation once"
empty() { ! squeue -h 2>/dev/null | grep -q .; }
until_true 60 "no jobs" empty
grep -c "stopped" "evocache-coordinator-$coordinator.log"
evocache store check --data "$EVOCACHE_SHARED/store" --json >"$d/check.json"
python3 - "$d/show.json" "$d/check.json" "$evaluations" <<'PY'
import json, sys
show, check, meant = json.load(open(sys.argv[1])), json.load(open(sys.argv[2])), int(sys.argv[3])
[search] = check["searches"]
print("told:", show["state"], show["progress"]["evaluations"], "spent", show["progress"]["spent"], "failed", show["progress"]["failed"])
print("stored:", search, "sound" if check["sound"] else "NOT SOUND")
assert check["sound"] and show["state"] == "completed" and show["progress"]["failed"] == 0
assert show["progress"]["evaluations"] == search["evaluations"] == meant, "counted twice, or lost"
assert search["evaluations"] <= search["candidates"]
PY
