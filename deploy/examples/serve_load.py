"""Open-loop load on a running `evocache-worker serve`: Poisson arrivals at multiples of what it can draw.

    python deploy/examples/serve_load.py --url http://127.0.0.1:8188 --loads 0.5,1,3 --seconds 60 --deadline 5

First it measures the capacity, with as many requests in flight as keep batches full. Then, for each load, requests arrive at random,
whether or not earlier ones are answered. A line tells what was answered in time (goodput, also as a share of the capacity), what was
refused, and the latency of what was let in. Needs nothing but Python.
"""

import argparse
import asyncio
import json
import random
import time


async def ask(host: str, port: int, body: dict, deadline: float) -> tuple[int, float]:
    """One request on a connection of its own: status and seconds."""
    start = time.perf_counter()
    text = json.dumps(body).encode()
    try:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(
            f"POST /v1/images/generations HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\nx-deadline: {deadline}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n".encode() + text
        )
        answer = await reader.read()
        writer.close()
        status = int(answer.split(b" ", 2)[1]) if answer else 0
    except OSError:
        status = 0
    return status, time.perf_counter() - start


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


class Load:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.host, port = arguments.url.removeprefix("http://").rstrip("/").split(":")
        self.port = int(port)
        self.arguments = arguments
        self.random = random.Random(arguments.seed)

    def body(self) -> dict:
        body = {"prompt": self.random.choice(self.arguments.prompts), "seed": self.random.randrange(1 << 32)}
        body["user"] = str(self.random.randrange(self.arguments.users))
        if self.arguments.uncached:
            body["schedule"] = "none"
        return body

    async def capacity(self, seconds: float) -> float:
        """Pictures per second of a closed loop."""
        end, done = time.perf_counter() + seconds, 0

        async def loop() -> None:
            nonlocal done
            while time.perf_counter() < end:
                status, _ = await ask(self.host, self.port, self.body(), 3600)
                done += status == 200

        start = time.perf_counter()
        await asyncio.gather(*(loop() for _ in range(self.arguments.in_flight)))
        return done / (time.perf_counter() - start)

    async def open_loop(self, rate: float) -> dict:
        deadline, tasks = self.arguments.deadline, []
        start = time.perf_counter()
        due = start
        while (due := due + self.random.expovariate(rate)) < start + self.arguments.seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(ask(self.host, self.port, self.body(), deadline)))
        answers = await asyncio.gather(*tasks)
        took = time.perf_counter() - start
        drawn = [seconds for status, seconds in answers if status == 200]
        refused = [seconds for status, seconds in answers if status in (429, 503)]
        return {
            "offered": len(answers) / took,
            "goodput": sum(seconds <= deadline for seconds in drawn) / took,
            "late": sum(seconds > deadline for seconds in drawn),
            "refused": len(refused),
            "failed": len(answers) - len(drawn) - len(refused),
            "mean": sum(drawn) / len(drawn) if drawn else float("nan"),
            "p50": percentile(drawn, 0.5),
            "p99": percentile(drawn, 0.99),
            "refusal_p99": percentile(refused, 0.99),
        }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8188")
    parser.add_argument("--loads", default="0.2,0.5,0.8,1,1.5,3", help="multiples of the capacity")
    parser.add_argument("--seconds", type=float, default=60, help="length of each load")
    parser.add_argument("--deadline", type=float, default=5, help="seconds that a request may take")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--in-flight", type=int, default=8, help="requests in flight while the capacity is measured")
    parser.add_argument("--capacity", type=float, help="pictures per second, instead of measuring them")
    parser.add_argument("--uncached", action="store_true", help="ask for pictures without a schedule")
    parser.add_argument("--prompts", nargs="+", default=["an owl", "a red apple", "a pizza", "a cat"])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    load = Load(arguments)
    capacity = arguments.capacity or await load.capacity(min(arguments.seconds, 20))
    print(f"capacity {capacity:.2f} pictures/s, deadline {arguments.deadline} s")
    print("load  offered/s goodput/s  share  late refused failed   mean    p50    p99  refusal p99 (s)")
    for factor in map(float, arguments.loads.split(",")):
        found = await load.open_loop(factor * capacity)
        print(
            f"{factor:4.1f}  {found['offered']:9.2f} {found['goodput']:9.2f}  {found['goodput'] / capacity:5.2f}  {found['late']:4d}"
            f" {found['refused']:7d} {found['failed']:6d} {found['mean']:6.2f} {found['p50']:6.2f} {found['p99']:6.2f}"
            f"  {found['refusal_p99']:11.3f}"
        )


if __name__ == "__main__":
    asyncio.run(main())
