"""How fast and how steadily a server answers: top-10 lists at 1, 16 and 64 connections; minutes of mixed load.

    python benchmarks/serve.py                       # p50, p99 and requests per second, one process
    python benchmarks/serve.py --mixed 300           # 300 s of mixed load, a SIGKILL, and a fifth as much again

A synthetic model of 138,493 users and 26,744 items, K = 64, is served by `gramian serve` in a process of its own; the
load comes from this process over loopback, each connection asking for its next list when it has the one before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import gramian as gm
from gramian.core.history import History
from gramian.serve.store import Store

USERS, ITEMS, FACTORS, RATED = 138_493, 26_744, 64, 20
PORT = 8765
CONNECTIONS = (1, 16, 64)


def synthetic_model(users: int = USERS, items: int = ITEMS) -> gm.Model:
    """A model with random factors and RATED random ratings by each user."""
    rng = np.random.default_rng(0)
    rated = np.unique(np.repeat(np.arange(users), RATED) * items + rng.integers(items, size=users * RATED))
    rated = np.union1d(rated, np.arange(items))  # every item occurs
    values = np.round(rng.normal(3.5, 1, len(rated)) * 2).clip(1, 10) / 2
    titles = pl.DataFrame({"item": np.arange(items), "title": [f"Film number {item}" for item in range(items)]})
    frame = pl.DataFrame({"user": rated // items, "item": rated % items, "rating": values})
    ratings = gm.Ratings.from_frame(frame).with_items(titles)
    rows = {
        "user_rows": rng.normal(0, 0.3, (ratings.n_users, FACTORS + 1)).astype(np.float32),
        "item_rows": rng.normal(0, 0.3, (ratings.n_items, FACTORS + 1)).astype(np.float32),
    }
    return gm.ALS(factors=FACTORS).model(ratings, rows, History())


class Server:
    """`gramian serve` in a process of its own."""

    def __init__(self, *arguments: str, port: int = PORT) -> None:
        self.port, self._arguments = port, arguments
        self.start()

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        command = [str(Path(sys.executable).with_name("gramian")), "serve", *self._arguments, "--port", str(self.port)]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/ready"):
                    return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        raise SystemExit("The server did not become ready.")

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it properly."""
        self.process.terminate()
        self.process.wait(30)

    def megabytes(self) -> float:
        """Its resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Connection(asyncio.Protocol):
    """One HTTP connection that sends a request, waits for the answer, and gives the status and the body."""

    def __init__(self) -> None:
        self._got, self._answer = b"", asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Collect an answer, whose length its head says."""
        self._got += data
        head, gap, body = self._got.partition(b"\r\n\r\n")
        if not gap:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) >= length and not self._answer.done():
            self._answer.set_result((int(head[9:12]), body[:length]))

    def connection_lost(self, error: Exception | None) -> None:
        """Tell who waits."""
        if not self._answer.done():
            self._answer.set_exception(ConnectionResetError())

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Send one request."""
        self._got, self._answer = b"", asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer


def post(path: str, body: Any, *headers: str) -> bytes:
    """A whole request."""
    text = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{PORT}", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(text)}", "", ""]).encode() + text


async def closed_loop(make: Callable[[], bytes], connections: int, seconds: float) -> list[float]:
    """Seconds of every answer after a warm-up; any other status than 200 ends the measurement."""
    loop = asyncio.get_running_loop()
    spent: list[float] = []
    begin = loop.time() + 2
    end = begin + seconds

    async def client() -> None:
        _, connection = await loop.create_connection(Connection, "127.0.0.1", PORT)
        while (began := loop.time()) < end:
            status, body = await connection.send(make())
            if status != 200:
                raise SystemExit(f"answered {status}: {body.decode()}")
            if began >= begin:
                spent.append(loop.time() - began)

    await asyncio.gather(*(client() for _ in range(connections)))
    return spent


def check(model: gm.Model) -> None:
    """Ask for some lists and compare them with the model's own."""
    for user in range(0, USERS, USERS // 5):
        request = urllib.request.Request(
            f"http://127.0.0.1:{PORT}/v1/recommend", json.dumps({"user": user}).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request) as answer:
            listed = [row["item"] for row in json.load(answer)["items"]]
        assert listed == model.recommend(user, 10)["item"].to_list(), f"user {user}: another list"


def latencies(seconds: float) -> Iterator[str]:
    """The table of latencies."""
    model = synthetic_model()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.gramian"
        model.save(path)
        server = Server(str(path), "--rate", "0")
        try:
            check(model)
            rng = random.Random(0)
            yield "| connections | requests per second | p50, ms | p99, ms | most, ms |"
            yield "|---|---|---|---|---|"
            for connections in CONNECTIONS:
                spent = asyncio.run(
                    closed_loop(lambda: post("/v1/recommend", {"user": rng.randrange(USERS)}), connections, seconds)
                )
                half, high, most = np.quantile(spent, [0.5, 0.99, 1]) * 1000
                yield f"| {connections} | {len(spent) / seconds:,.0f} | {half:.2f} | {high:.2f} | {most:.1f} |"
            yield f"\nresident memory of the server: {server.megabytes():.0f} MB"
        finally:
            server.stop()


# ---- mixed load -------------------------------------------------------------------------------------


class Mixed:
    """Seven tenths lists, the rest predictions, ratings, lists for newcomers, and searches."""

    def __init__(self, secret: str) -> None:
        self.rng = random.Random(1)
        self.header = f"Authorization: Bearer {secret}"
        self.sent, self.answered, self.again = 0, 0, 0

    def request(self) -> tuple[bytes, int]:
        """The next request, and how many ratings it gives."""
        rng, kind = self.rng, self.rng.random()
        user, item = rng.randrange(USERS), rng.randrange(ITEMS)
        if kind < 0.7:
            return post("/v1/recommend", {"user": user}, self.header), 0
        if kind < 0.8:
            pairs = [{"user": user, "item": rng.randrange(ITEMS)} for _ in range(10)]
            return post("/v1/predict", {"pairs": pairs}, self.header), 0
        if kind < 0.9:
            self.sent += 1
            given = [{"user": user, "item": item, "rating": rng.randrange(1, 11) / 2}]
            return post("/v1/ratings", {"ratings": given}, self.header, f"Idempotency-Key: bench-{self.sent}"), 1
        ratings = {str(rng.randrange(ITEMS)): 4.0 for _ in range(5)}
        return post("/v1/recommend", {"ratings": ratings}, self.header), 0

    async def client(self, end: float) -> None:
        """One connection: what was cut off by the kill is sent again, with the same key."""
        loop = asyncio.get_running_loop()
        connection: Connection | None = None
        while loop.time() < end:
            request, ratings = self.request()
            while True:
                try:
                    if connection is None:
                        connection = (await loop.create_connection(Connection, "127.0.0.1", PORT))[1]
                    status, body = await connection.send(request)
                except (ConnectionError, OSError):
                    connection, self.again = None, self.again + 1
                    await asyncio.sleep(0.1)
                    continue
                if status == 503 and b"starting" in body:
                    await asyncio.sleep(0.1)
                    continue
                break
            if status not in (200, 201):
                raise SystemExit(f"answered {status}: {body.decode()}")
            self.answered += 1
            self.kept = getattr(self, "kept", 0) + ratings


def mixed(seconds: float, connections: int = 16) -> Iterator[str]:
    """Mixed load, a SIGKILL, a new start, and more of it: errors, memory, and ratings sent and kept."""
    with tempfile.TemporaryDirectory() as folder:
        path, db = Path(folder) / "bench.gramian", str(Path(folder) / "feedback.db")
        synthetic_model().save(path)
        store = Store(db)
        load = Mixed(store.create_key("bench", "write"))
        server = Server(str(path), "--db", db, "--rate", "0")
        memory: list[float] = []

        async def watched() -> None:
            loop = asyncio.get_running_loop()
            began = loop.time()
            clients = asyncio.gather(*(load.client(began + 1.2 * seconds) for _ in range(connections)))
            while loop.time() - began < seconds and not clients.done():
                await asyncio.sleep(1)
                memory.append(server.megabytes())
            server.kill()
            await loop.run_in_executor(None, server.start)
            await clients

        try:
            asyncio.run(watched())
            yield f"{load.answered:,} requests answered in {1.2 * seconds:.0f} s at {connections} connections, no error"
            yield f"{load.again:,} attempts while the server was down"
            yield f"ratings acknowledged {load.kept:,}, kept in the database {store.count():,}"
            places = [int(tenth * (len(memory) - 1) / 10) for tenth in range(11)]
            yield f"memory in tenths of the time before the kill, MB: {', '.join(f'{memory[k]:.0f}' for k in places)}"
        finally:
            server.stop()
            store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="for each number of connections")
    parser.add_argument("--mixed", type=float, help="seconds of mixed load, instead")
    given = parser.parse_args()
    for line in mixed(given.mixed) if given.mixed else latencies(given.seconds):
        print(line, flush=True)
