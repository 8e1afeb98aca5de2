"""What the tests of the server share: models, servers in processes of their own, databases that are there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

GRAMIAN = str(Path(sys.executable).with_name("gramian"))
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


def need(found: object, what: str) -> None:
    """Skip where a program is missing, but never where GRAMIAN_TEST_ALL says that all must be there."""
    if not found:
        if os.environ.get("GRAMIAN_TEST_ALL"):
            pytest.fail(f"{what} is not installed, and GRAMIAN_TEST_ALL is set")
        pytest.skip(f"{what} is not installed")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Answer:
    """A status, headers and a JSON (or text) body."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """`gramian serve` as a user starts it."""

    def __init__(self, *arguments: str, secret: str | None = None, **environment: str) -> None:
        self.port, self.arguments, self.secret = free_port(), arguments, secret
        self.environment = {**os.environ, **environment}
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [GRAMIAN, "serve", *self.arguments, "--port", str(self.port)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=self.environment)
        for _ in range(600):
            if self.process.poll() is not None:
                raise AssertionError(self.process.stderr.read())
            try:
                if self.ask("/v1/ready").status == 200:
                    return
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(0.1)
        raise AssertionError("the server did not become ready")

    def ask(self, path: str, body: Any = None, **headers: str) -> Answer:
        sent = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, sent, {"Content-Type": "application/json"})
        if self.secret is not None:
            request.add_header("Authorization", f"Bearer {self.secret}")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def stop(self) -> str:
        """End it properly; what it said on stderr."""
        self.process.terminate()
        _, said = self.process.communicate(timeout=30)
        return said


@contextmanager
def served(*arguments: str, secret: str | None = None, **environment: str) -> Iterator[Server]:
    server = Server(*arguments, secret=secret, **environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server of our own, and its URL."""
    need(POSTGRES, "PostgreSQL (apt-get install postgresql)")
    with tempfile.TemporaryDirectory() as folder:
        yield from running_postgres(POSTGRES[-1], Path(folder))


def running_postgres(programs: Path, folder: Path) -> Iterator[str]:
    """The URL of a server whose files are in a folder. It refuses to run as root, so root hands it over."""
    user, prefix, port = "postgres", [], free_port()
    if os.geteuid() == 0:
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        shutil.chown(folder, user)
    data = folder / "data"

    def call(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*prefix, str(programs / program), *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    call("initdb", "-D", str(data), "-U", user, "-A", "trust", "--no-sync", "-E", "UTF8")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    # the log of the server must not be our pipe, or communicating with pg_ctl would never end
    call("pg_ctl", "-D", str(data), "-l", str(folder / "log"), "-w", "-o", options, "start")
    try:
        yield f"postgresql://{user}@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-D", str(data), "-w", "-m", "fast", "stop")
