"""The table of compare.sh: Optuna's NSGA-II over its storages, and evocache, on the same problem on this machine.

    python compare.py [--seconds 40] [--evocache target/release/evocache] [--evaluations 2000]

CPU counts workers and servers of either side; objectives cost nothing on either side.
"""
import argparse, json, pathlib, platform, resource, subprocess, sys
import grpc, optuna

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]


def used():
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def run(command):
    before = used()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout), used() - before


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40, help="for each row of Optuna's")
    parser.add_argument("--evaluations", type=int, default=2000, help="for each row of evocache's")
    parser.add_argument("--evocache", default=str(ROOT / "target/release/evocache"))
    args = parser.parse_args()
    rows = []
    for name, storage, workers in [("in memory, one process", "memory", 1), ("journal file", "journal", 1),
                                   ("gRPC proxy", "proxy", 4)]:
        print(f"optuna, {name} ...", file=sys.stderr, flush=True)
        command = [sys.executable, "-W", "ignore", str(HERE / "trials.py"), storage, "--workers", str(workers)]
        result, _ = run(command + ["--seconds", str(args.seconds)])
        rows.append((f"Optuna NSGA-II, {name}", workers, result["trials"], result["trials"] / result["seconds"],
                     1000 * result["cpu_seconds"] / result["trials"], "-", result["bytes"] / result["trials"]))
    for workers in (4, 64):
        print(f"evocache, {workers} workers ...", file=sys.stderr, flush=True)
        command = [args.evocache, "simulate", "--workers", str(workers), "--evaluations", str(args.evaluations),
                   "--time", "0", "--json"]
        result, cpu = run(command)
        rows.append(("evocache, durable, gRPC", workers, result["evaluations"], result["evaluations_per_second"],
                     1000 * cpu / result["evaluations"], f"{result['coordinator']['cpu_ms_per_evaluation']:.2f}",
                     result["store_bytes"] / result["evaluations"]))
    print(f"1,680 bits, two objectives; {platform.machine()}, Python {platform.python_version()}, "
          f"optuna {optuna.__version__}, grpcio {grpc.__version__}")
    print(f"{'':<42}{'workers':>8}{'trials':>8}{'trials/s':>10}{'CPU ms/trial':>14}{'of it server':>14}{'bytes/trial':>13}")
    for name, workers, trials, rate, cpu, server, size in rows:
        print(f"{name:<42}{workers:>8}{trials:>8}{rate:>10.2f}{cpu:>14.2f}{server:>14}{size:>13.0f}")


if __name__ == "__main__":
    main()
