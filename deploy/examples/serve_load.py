"""Open-loop load on a running `evocache-worker serve`: Poisson arrivals at multiples of what it can draw.

    python deploy/examples/serve_load.py --url http://127.0.0.1:8188 --loads 0.5,1,3 --seconds 60 --deadline 5

First it measures the capacity, with as many requests in flight as keep batches full. Then, for each load, requests arrive at random,
whether or not earlier ones are answered. A line tells what was answered in time (goodput, also as a share of the capacity), what was
refused at once, what was let in and not drawn (lost), and the latency of what was let in. The last column is the share of a core that
this program took from the server. Needs nothing but Python.
"""

import argparse
import asyncio
import json
import random
import time


class Client:
    """Requests over connections that stay open."""

    def __init__(self, url: str) -> None:
        self.host, port = url.removeprefix("http://").rstrip("/").split(":")
        self.port = int(port)
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, body: dict, deadline: float) -> tuple[int, str, float]:
        """Status, code of a refusal, and seconds."""
        start = time.perf_counter()
        text = json.dumps(body)
        request = (
            f"POST /v1/images/generations HTTP/1.1\r\nhost: {self.host}:{self.port}\r\nx-deadline: {deadline}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n{text}"
        ).encode()
        status, code = 0, ""
        try:
            # The server closes connections that are idle for long: then once more, over a new one.
            for fresh in (False, True):
                reader, writer = self.idle.pop() if self.idle and not fresh else await asyncio.open_connection(self.host, self.port)
                try:
                    writer.write(request)
                    head = await reader.readuntil(b"\r\n\r\n")
                except (asyncio.IncompleteReadError, ConnectionError):
                    writer.close()
                    continue
                status = int(head[9:12])
                lines = head.decode("latin-1").lower().split("\r\n")
                length = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
                answer = await reader.readexactly(length)
                if status != 200:
                    code = json.loads(answer)["error"]["code"]
                self.idle.append((reader, writer))
                break
        except OSError:
            pass
        return status, code, time.perf_counter() - start


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


class Load:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.client = Client(arguments.url)
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
                status, _, _ = await self.client.ask(self.body(), 3600)
                done += status == 200

        start = time.perf_counter()
        await asyncio.gather(*(loop() for _ in range(self.arguments.in_flight)))
        return done / (time.perf_counter() - start)

    async def open_loop(self, rate: float) -> dict:
        deadline, tasks = self.arguments.deadline, []
        start, computed = time.perf_counter(), time.process_time()
        due = start
        while (due := due + self.random.expovariate(rate)) < start + self.arguments.seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(self.client.ask(self.body(), deadline)))
        answers = await asyncio.gather(*tasks)
        took = time.perf_counter() - start
        drawn = [seconds for status, _, seconds in answers if status == 200]
        refused = [seconds for status, _, seconds in answers if status in (429, 503)]
        # A refusal that took time is of a request that had been let in.
        lost = sum(seconds > 0.5 for seconds in refused)
        codes: dict[str, int] = {}
        for status, code, _ in answers:
            if status != 200:
                name = code or str(status)
                codes[name] = codes.get(name, 0) + 1
        return {
            "offered": len(answers) / took,
            "goodput": sum(seconds <= deadline for seconds in drawn) / took,
            "late": sum(seconds > deadline for seconds in drawn),
            "refused": len(refused) - lost,
            "lost": lost,
            "failed": len(answers) - len(drawn) - len(refused),
            "mean": sum(drawn) / len(drawn) if drawn else float("nan"),
            "p50": percentile(drawn, 0.5),
            "p90": percentile(drawn, 0.9),
            "p99": percentile(drawn, 0.99),
            "refusal_p99": percentile([seconds for seconds in refused if seconds <= 0.5], 0.99),
            "share": (time.process_time() - computed) / took,
            "codes": codes,
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
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each load instead of a table")
    arguments = parser.parse_args()
    load = Load(arguments)
    capacity = arguments.capacity or await load.capacity(min(arguments.seconds, 20))
    if not arguments.json:
        print(f"capacity {capacity:.2f} pictures/s, deadline {arguments.deadline} s")
        print("load  offered/s goodput/s  share  late refused  lost failed   mean    p50    p90    p99  refusal p99 (s)  this program")
    for factor in map(float, arguments.loads.split(",")):
        found = await load.open_loop(factor * capacity)
        if arguments.json:
            print(json.dumps({"load": factor, "capacity": capacity, "deadline": arguments.deadline, **found}), flush=True)
            continue
        print(
            f"{factor:4.1f}  {found['offered']:9.2f} {found['goodput']:9.2f}  {found['goodput'] / capacity:5.2f}  {found['late']:4d}"
            f" {found['refused']:7d} {found['lost']:5d} {found['failed']:6d} {found['mean']:6.2f} {found['p50']:6.2f}"
            f" {found['p90']:6.2f} {found['p99']:6.2f}  {found['refusal_p99']:15.3f}  {100 * found['share']:10.1f} %",
            flush=True,
        )
        if found["codes"]:
            print("      " + ", ".join(f"{count} {code}" for code, count in sorted(found["codes"].items())))


if __name__ == "__main__":
    asyncio.run(main())
