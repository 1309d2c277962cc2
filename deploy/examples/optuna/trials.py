"""Runs Optuna's NSGA-II on a problem of the size of a caching search, over one of its storages, and says what a trial took.

    python trials.py memory|journal|proxy [--bits 1680] [--seconds 40] [--workers 1]

The objectives cost nothing: what is measured is the service, as `evocache simulate --time 0` does. A bit is a decision
(1: compute). Latency is the share of bits that are set; the error grows with the age of what is reused.
"""
import argparse, json, multiprocessing, os, pathlib, resource, socket, tempfile, time
import optuna
from optuna.storages import GrpcStorageProxy, InMemoryStorage, JournalStorage, run_grpc_proxy_server
from optuna.storages.journal import JournalFileBackend

STEPS = 20


def objectives(trial, bits):
    genome = [trial.suggest_int(f"b{i}", 0, 1) for i in range(bits)]
    slots, error = bits // STEPS, 0
    ages = [0] * slots
    for i, compute in enumerate(genome):
        ages[i % slots] = 0 if compute else ages[i % slots] + 1
        error += ages[i % slots]
    return sum(genome) / bits, error / bits


def work(storage, bits, seconds, population, seed):
    """One worker; the answer comes by the storage."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.NSGAIISampler(population_size=population, seed=seed)
    study = optuna.load_study(study_name="s", storage=storage(), sampler=sampler)
    study.optimize(lambda trial: objectives(trial, bits), timeout=seconds)


def serve(journal, port):
    run_grpc_proxy_server(JournalStorage(JournalFileBackend(journal)), host="127.0.0.1", port=port)


def cpu(pid):
    """Seconds on a core of a process that runs."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("storage", choices=["memory", "journal", "proxy"])
    parser.add_argument("--bits", type=int, default=1680)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--population", type=int, default=20)
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = tempfile.TemporaryDirectory()
    journal, server = os.path.join(folder.name, "journal.log"), None
    if args.storage == "memory":
        kept = InMemoryStorage()
        storage = lambda: kept
    elif args.storage == "journal":
        storage = lambda: JournalStorage(JournalFileBackend(journal))
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = multiprocessing.Process(target=serve, args=(journal, port), daemon=True)
        server.start()
        storage = lambda: GrpcStorageProxy(host="127.0.0.1", port=port)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
    study = optuna.create_study(storage=storage(), study_name="s", directions=["minimize", "minimize"])
    served, began = cpu(server.pid) if server else 0, time.perf_counter()
    # In a process each, as on machines of their own; what is in memory is in one process only.
    before = resource.getrusage(resource.RUSAGE_SELF)
    if args.storage == "memory":
        work(storage, args.bits, args.seconds, args.population, 0)
    else:
        workers = [multiprocessing.Process(target=work, args=(storage, args.bits, args.seconds, args.population, seed))
                   for seed in range(args.workers)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0, worker.exitcode
    wall = time.perf_counter() - began
    after, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime if args.storage == "memory" else 0
    used = own + children.ru_utime + children.ru_stime + (cpu(server.pid) - served if server else 0)
    trials = len([t for t in study.get_trials(deepcopy=False) if t.state == optuna.trial.TrialState.COMPLETE])
    bytes_kept = os.path.getsize(journal) if os.path.exists(journal) else 0
    print(json.dumps({"trials": trials, "seconds": wall, "cpu_seconds": used, "bytes": bytes_kept}))
    if server:
        server.terminate()


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
