"""The server as a process: started by the command, killed, reloaded, asked for keys; and what the commands print."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from serving import GRAMIAN, served

import gramian as gm
from gramian.cli.main import main
from gramian.serve.store import Given, Store


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., str]:
    """Run a command in this process; what it said."""

    def run(*words: str, code: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["gramian", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == code
        said = capsys.readouterr()
        return said.out + said.err

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory, ratings) -> str:
    path = str(tmp_path_factory.mktemp("models") / "als.gramian")
    gm.ALS(factors=3, epochs=3).fit(ratings).save(path)
    return path


def write_key(db: str) -> str:
    store = Store(db)
    try:
        return store.create_key("test", "write")
    finally:
        store.close()


def test_acknowledged_feedback_survives_a_kill(model, tmp_path) -> None:
    db = str(tmp_path / "feedback.db")
    secret = write_key(db)
    acknowledged: list[str] = []
    with served(model, "--db", db, "--rate", "0", secret=secret) as server:

        def send(sender: int) -> None:
            for k in range(100_000):
                name = f"{sender}-{k}"
                user = sender * 1_000_000 + k
                body = {"ratings": [{"user": user, "item": 11, "rating": 3}]}
                try:
                    answer = server.ask("/v1/ratings", body, Idempotency_Key=name)
                except OSError:  # killed
                    return
                assert answer.status == 201
                acknowledged.append(str(user))

        with ThreadPoolExecutor(3) as pool:
            clients = [pool.submit(send, sender) for sender in range(3)]
            while len(acknowledged) < 40 and not any(client.done() for client in clients):
                time.sleep(0.01)
            server.kill()
            for client in clients:
                client.result()
        store = Store(db)
        kept = set(store.frame(text_users=True, text_items=True)["user"])
        store.close()
        assert set(acknowledged) <= kept
        assert len(kept) <= len(acknowledged) + 3  # at most what was on its way
        server.start()
        user = int(acknowledged[0])
        assert server.ask("/v1/recommend", {"user": user}).json["from"] == "feedback"
        again = server.ask("/v1/ratings", {"ratings": [{"user": 0, "item": 11, "rating": 3}]}, Idempotency_Key="0-0")
        assert (again.status, again.json["repeated"]) == (200, True)


def test_reload_drops_no_request(model, tmp_path, ratings) -> None:
    path = tmp_path / "served.gramian"
    path.write_bytes(Path(model).read_bytes())
    other = tmp_path / "other.gramian"
    gm.ALS(factors=2, epochs=2, seed=1).fit(ratings).save(other)
    done, versions, failed = threading.Event(), set(), []
    with served(str(path), "--rate", "0") as server:

        def ask() -> None:
            while not done.is_set():
                answer = server.ask("/v1/recommend", {"user": 101})
                if answer.status == 200:
                    versions.add(answer.json["model"])
                else:
                    failed.append(answer.body)

        with ThreadPoolExecutor(3) as pool:
            clients = [pool.submit(ask) for _ in range(3)]
            first = server.ask("/v1/model").json["version"]
            path.write_bytes(other.read_bytes())
            server.process.send_signal(signal.SIGHUP)
            for _ in range(200):
                if server.ask("/v1/model").json["version"] != first:
                    break
                time.sleep(0.05)
            path.write_bytes(b"damaged")
            server.process.send_signal(signal.SIGHUP)
            assert server.ask("/v1/reload", b"").status == 409
            time.sleep(0.3)
            done.set()
            for client in clients:
                client.result()
        assert failed == []
        assert len(versions) == 2
        said = server.stop()
    assert "reload refused" in said
    assert "Traceback" not in said


def test_log_port_and_titles(model, tmp_path) -> None:
    db, items = str(tmp_path / "feedback.db"), tmp_path / "items.csv"
    items.write_text("item,title\n" + "".join(f"{11 + 7 * k},Film {k}\n" for k in range(40)))
    with served(model, "--db", db, "--items", str(items), secret=write_key(db)) as server:
        assert server.ask("/v1/items?q=film+39").json["items"][0]["item"] == 11 + 7 * 39
        second = subprocess.run([GRAMIAN, "serve", model, "--port", str(server.port)], capture_output=True, text=True)
        assert second.returncode == 2
        assert "is the port taken?" in second.stderr
        server.ask("/v1/items?q=private")
        server.ask("/v1/ratings", {"ratings": [{"user": 424242, "item": 11, "rating": 3}]})
        said = server.stop()
    assert "ready: model" in said
    assert server.secret not in said
    for personal in ("private", "424242", "POST"):
        assert personal not in said


def test_update_folds_in_all_feedback(model, tmp_path, command) -> None:
    db, out = str(tmp_path / "feedback.db"), str(tmp_path / "new.gramian")
    assert "There is no feedback" in command("update", model, "--db", db, "-o", out, code=2)
    store = Store(db)
    store.add([Given("9000", "11", 1.0, 2_000_000_000), Given("9000", "18", 5.0, 2_000_000_000)])
    store.add([Given("9000", "11", 5.0, 2_000_000_001), Given("101", "777", 4.0, 2_000_000_000)])
    store.close()
    said = command("update", model, "--db", db, "-o", out)
    assert "3 new ratings; now" in said
    old, new = gm.load(model), gm.load(out)
    assert new.rated_by(9000).select("item", "rating").rows() == [(11, 5.0), (18, 5.0)]
    assert 777 in new.item_ids
    assert len(new.ratings) == len(old.ratings) + 3
    by_hand = old.update(
        gm.Ratings.from_frame(
            pl.DataFrame(
                {"user": [9000, 9000, 101], "item": [11, 18, 777], "rating": [5.0, 5.0, 4.0],
                 "time": [2_000_000_001, 2_000_000_000, 2_000_000_000]}
            )
        )
    )  # fmt: skip
    assert (by_hand.user_rows == new.user_rows).all()


def test_update_from_a_file(model, tmp_path, command) -> None:
    path = tmp_path / "new.csv"
    path.write_text("user,item,rating\n9000,11,4\n")
    assert "1 new ratings" in command("update", model, str(path), "-o", str(tmp_path / "new.gramian"))
    assert "a file, or --db" in command("update", model, code=2)


def test_the_keys_commands(tmp_path, command) -> None:
    db = str(tmp_path / "feedback.db")
    secret = command("keys", "create", "admin", "--db", db, "--role", "admin").split("\n")[0]
    assert secret.startswith("gk_")
    listed = command("keys", "list", "--db", db)
    assert "admin" in listed
    assert secret not in listed
    assert "one of 'read', 'write', 'admin'; got 'root'" in command(
        "keys", "create", "x", "--db", db, "--role", "root", code=2
    )
    command("keys", "revoke", "admin", "--db", db)
    assert '"revoked_at": 1' in command("keys", "list", "--db", db, "--json")


def test_where_it_may_not_be_reached_without_keys(model, command) -> None:
    said = command("serve", model, "--host", "0.0.0.0", code=2)
    assert said.startswith("error: A server that others can reach (0.0.0.0) needs API keys")


def test_a_model_that_is_not_there(tmp_path, command) -> None:
    assert "There is no model file" in command("serve", str(tmp_path / "none.gramian"), code=2)


def test_the_commands_need_no_server_until_they_serve() -> None:
    names = "('fastapi', 'uvicorn', 'sqlalchemy')"
    code = f"import sys, gramian, gramian.cli.main; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
