"""Plays the pods of a rendered chart on this machine, without Kubernetes: the real programs with the arguments, variables,
secrets and probes that the chart gives them, as a search on the bundled model. Shows what no schema can: that the programs
take these arguments, that certificate, tokens and addresses fit together, that the metric that scales workers is there, and
that a worker that is told to end gives its candidate back and says so to the Job.

Knows of Kubernetes only what the chart uses. Paths of volumes become folders, and the name of the service becomes localhost,
which the chart's certificate has too.

    play.py RENDERED.yaml PROGRAMS MODELS SEARCH.toml
"""

import base64
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import yaml

rendered, programs, models, search = (pathlib.Path(a).resolve() for a in sys.argv[1:5])
objects = [o for o in yaml.safe_load_all(rendered.read_text()) if o]
root = pathlib.Path(tempfile.mkdtemp())
running = []


def find(kind, component=None):
    found = [o for o in objects if o["kind"] == kind]
    if component:
        found = [o for o in found if o["metadata"]["labels"].get("app.kubernetes.io/component") == component]
    assert len(found) == 1, f"{len(found)} objects of kind {kind} {component or ''}"
    return found[0]


def secret(name):
    [data] = [o["data"] for o in objects if o["kind"] == "Secret" and o["metadata"]["name"] == name]
    return {key: base64.b64decode(value) for key, value in data.items()}


class Pod:
    """A pod's only container as a process."""

    def __init__(self, name, spec, fields):
        [container] = spec["containers"]
        self.name, self.container, self.folder = name, container, root / name
        volumes = {v["name"]: v for v in spec.get("volumes", [])}
        places = {"/usr/local/share/evocache/models": models}
        for mount in container["volumeMounts"]:
            place = self.folder / mount["mountPath"].lstrip("/")
            place.mkdir(parents=True, exist_ok=True)
            # /tmp is the machine's own.
            if mount["mountPath"] != "/tmp":
                places[mount["mountPath"]] = place
            source = volumes.get(mount["name"], {}).get("secret")
            if source:
                data = secret(source["secretName"])
                items = source.get("items") or [{"key": key, "path": key} for key in data]
                for item in items:
                    (place / item["path"]).write_bytes(data[item["key"]])
        environment = {}
        for variable in container.get("env", []):
            source = variable.get("valueFrom")
            value = fields[source["fieldRef"]["fieldPath"]] if source else variable["value"]
            environment[variable["name"]] = value

        def here(text):
            for variable, value in environment.items():
                text = text.replace(f"$({variable})", value)
            for there, place in places.items():
                text = text.replace(there, str(place))
            return text.replace(SERVICE, "localhost")

        self.command = [here(text) for text in container.get("command", []) + container.get("args", [])]
        path = f"{programs}:{os.environ['PATH']}"
        self.environment = {"PATH": path} | {name: here(value) for name, value in environment.items()}

    def start(self):
        self.log = open(self.folder / "log", "w+")
        self.process = subprocess.Popen(
            self.command, env=self.environment, stdout=self.log, stderr=self.log, start_new_session=True
        )
        running.append(self)
        print(f"{self.name}: started as {' '.join(self.command[:2])}", flush=True)
        return self

    def text(self):
        return (self.folder / "log").read_text()

    def stop(self, grace):
        """SIGTERM to the first process only, as a kubelet does; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(grace)

    def call(self, *arguments):
        """This pod's caller with other arguments."""
        done = subprocess.run(
            [self.command[0], *arguments], env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout


def probe(pod, kind):
    get = pod.container[kind]["httpGet"]
    [port] = [p["containerPort"] for p in pod.container["ports"] if p["name"] == get["port"]]
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}{get['path']}", timeout=5).status == 200
    except OSError:
        return False


def until(what, seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        for pod in running:
            assert pod.process.poll() is None or pod.name.startswith("ended"), f"{pod.name} ended: {pod.text()[-2000:]}"
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)


statefulset, service = find("StatefulSet"), [o for o in objects if o["kind"] == "Service" and not o["metadata"]["name"].endswith("-metrics")][0]
namespace = "default"
SERVICE = f"{service['metadata']['name']}.{namespace}.svc"
workers = [o for o in objects if o["kind"] in ("Deployment", "Job")]
[worker] = workers
is_job = worker["kind"] == "Job"
template = worker["spec"]["template"]["spec"]
test = find("Pod", "test")

# Where a service leads: its selector picks the pods, its target is one of their ports.
labels = statefulset["spec"]["template"]["metadata"]["labels"]
for each in [o for o in objects if o["kind"] == "Service"]:
    assert each["spec"]["selector"].items() <= labels.items(), each["metadata"]["name"]
    for port in each["spec"]["ports"]:
        names = [p["name"] for p in statefulset["spec"]["template"]["spec"]["containers"][0]["ports"]]
        assert port["targetPort"] in names, port
for policy in [o for o in objects if o["kind"] in ("NetworkPolicy", "PodDisruptionBudget")]:
    picks = policy["spec"].get("podSelector") or policy["spec"]["selector"]
    assert picks["matchLabels"].items() <= labels.items(), policy["kind"]
    worker_labels = worker["spec"]["template"]["metadata"]["labels"]
    assert not picks["matchLabels"].items() <= worker_labels.items(), f"{policy['kind']} picks workers too"
    for rule in policy["spec"].get("ingress", []):
        if {"port": "grpc", "protocol": "TCP"} in rule["ports"]:
            for caller in (worker_labels, test["metadata"]["labels"]):
                assert any(
                    peer["podSelector"]["matchLabels"].items() <= caller.items() for peer in rule["from"] if "podSelector" in peer
                ), "a caller of this release is kept away"

try:
    coordinator = Pod("coordinator", statefulset["spec"]["template"]["spec"], {}).start()
    until("startup", 30, lambda: probe(coordinator, "startupProbe"))
    until("readiness", 30, lambda: probe(coordinator, "readinessProbe"))
    assert probe(coordinator, "livenessProbe")

    reader = Pod("reader", test["spec"], {})
    print("helm test:", reader.call(*reader.command[1:]).strip() or "(no searches)")
    tokens = [o["metadata"]["name"] for o in objects if o["kind"] == "Secret" and "tokens.toml" in o["data"]][0]
    operator = Pod("operator", test["spec"], {})
    (operator.folder / "token").write_bytes(secret(tokens)["operator.token"])
    operator.environment["EVOCACHE_TOKEN_FILE"] = str(operator.folder / "token")
    refused = subprocess.run(
        [reader.command[0], "launch", str(search)], env=reader.environment, capture_output=True, text=True
    )
    assert refused.returncode != 0 and "role" in refused.stderr, "a reader launched a search"
    operator.call("launch", str(search), "--id", "chart")

    def metrics():
        port = find_port(coordinator, "http")
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()

    def find_port(pod, name):
        return [p["containerPort"] for p in pod.container["ports"] if p["name"] == name][0]

    def value(name):
        return float([line.split()[-1] for line in metrics().splitlines() if line.startswith(f"{name} ")][0])

    scaled = [o for o in objects if o["kind"] == "ScaledObject"]
    for each in scaled:
        [trigger] = each["spec"]["triggers"]
        wanted = value(trigger["metadata"]["valueLocation"])
        print(f"{trigger['metadata']['valueLocation']} = {wanted}: {wanted / float(trigger['metadata']['targetValue']):.1f} workers")
        assert wanted > 0 and each["spec"]["scaleTargetRef"]["name"] == worker["metadata"]["name"]

    fields = {"metadata.name": "worker-0", "spec.nodeName": "node-0"}
    first = Pod("ended-worker", template, fields).start()
    until("results", 60, lambda: value('evocache_evaluations_total{outcome="accepted"}') >= 2)
    code = first.stop(template["terminationGracePeriodSeconds"])
    print(f"a {worker['kind']}'s worker that is told to end exits with {code}")
    assert code == (143 if is_job else 0), first.text()[-2000:]
    if is_job:
        ignored = [rule["onExitCodes"]["values"] for rule in worker["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
        assert [143] in ignored
    assert value("evocache_leases_expired_total") == 0
    second = Pod("worker", template, fields | {"metadata.name": "worker-1"}).start()
    until("the end of the search", 150, lambda: 'phase="completed"} 1' in metrics())
    assert value("evocache_evaluations_wanted") == 0, "workers would never be scaled to none"
    best = reader.call("best", "chart", "--min-quality-ratio", "90%", "--ignore-bounds")
    print(best.strip().splitlines()[0])
    assert second.stop(template["terminationGracePeriodSeconds"]) == (143 if is_job else 0)
    grace = statefulset["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert coordinator.stop(grace) == 0
    print("every pod has stopped in its grace period")
finally:
    for pod in running:
        if pod.process.poll() is None:
            os.killpg(pod.process.pid, signal.SIGKILL)
