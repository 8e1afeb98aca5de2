"""The feedback store on real SQLite and real PostgreSQL."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from gramian.errors import DataError, FormatError, ParameterError
from gramian.serve import tables
from gramian.serve.store import ApiKey, Given, RepeatedKeyError, Store, StoreError


@pytest.fixture
def store(where) -> Iterator[Store]:
    made = Store(where)
    yield made
    made.close()


def given(user: str, *ratings: tuple[str, float], at: int = 100) -> list[Given]:
    return [Given(user, item, rating, at) for item, rating in ratings]


def test_the_latest_rating_of_a_pair_holds(store) -> None:
    store.add(given("7", ("1", 3.0), ("2", 4.0)))
    store.add(given("7", ("1", 5.0), at=101))
    store.add(given("7", ("2", 1.0), at=99))  # came late: an older rating
    store.add(given("8", ("1", 2.0)))
    assert store.of_user("7") == {"1": 5.0, "2": 4.0}
    assert store.of_user("nobody") == {}
    assert store.count() == 5


def test_the_audit_says_who_and_when(store) -> None:
    secret = store.create_key("shop", "write")
    key = store.find_key(secret)
    first = store.add(given("7", ("1", 3.0)), key_id=key.id)
    second = store.add(given("7", ("1", 4.0), at=200))
    newest, oldest = store.audit("7")
    assert (newest["rating"], newest["key"], newest["write"], newest["rated_at"]) == (4.0, "", second.write, 200)
    assert (oldest["rating"], oldest["key"], oldest["write"]) == (3.0, "shop", first.write)
    assert oldest["received_at"] > 1_700_000_000


def test_a_write_with_the_same_key_is_kept_once(store) -> None:
    first = store.add(given("7", ("1", 3.0)), client_key="a")
    again = store.add(given("7", ("1", 3.0)), client_key="a")
    other = store.add(given("7", ("1", 3.0)), client_key="a", key_id=5)  # another sender has keys of its own
    assert (first.repeated, again.repeated, other.repeated) == (False, True, False)
    assert again.write == first.write
    assert store.count() == 2
    timeless = [Given("7", "1", 3.0)]
    assert not store.add(timeless, client_key="b").repeated
    time.sleep(1.1)  # its time is that of its keeping: sent again later, it is the same write
    assert store.add(timeless, client_key="b").repeated
    with pytest.raises(RepeatedKeyError, match="'a' was used before for other ratings"):
        store.add(given("7", ("1", 4.0)), client_key="a")
    assert store.count() == 3


def test_the_same_key_at_once_from_several_servers(where) -> None:
    stores = [Store(where) for _ in range(4)]
    together = threading.Barrier(4)

    def write(store: Store) -> bool:
        together.wait()
        return store.add(given("7", ("1", 3.0)), client_key="a").repeated

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(write, stores)) == [False, True, True, True]
    assert stores[0].count() == 1
    for store in stores:
        store.close()


def test_several_servers_start_and_write_at_once(where) -> None:
    def work(number: int) -> None:
        store = Store(where)
        for k in range(10):
            store.add(given(str(number), (str(k), 3.0)))
        store.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    store = Store(where)
    assert store.count() == 40
    store.close()


def test_all_or_none(store) -> None:
    with pytest.raises(StoreError, match="failed"):
        store.add([*given("7", ("1", 3.0)), Given("7", "2", None, 100)])  # type: ignore[arg-type]
    assert store.count() == 0


def test_feedback_as_a_table(store) -> None:
    with pytest.raises(DataError, match="There is no feedback in"):
        store.frame(text_users=False, text_items=False)
    store.add(given("7", ("1", 3.0), ("x", 4.0)))
    table = store.frame(text_users=False, text_items=True)
    assert table.rows() == [(7, "1", 3.0, 100), (7, "x", 4.0, 100)]
    with pytest.raises(DataError, match="has the item id 'x'"):
        store.frame(text_users=False, text_items=False)


def test_keys_are_kept_as_digests_only(store, where) -> None:
    secret = store.create_key("shop", "write")
    assert store.find_key(secret) == ApiKey(1, "shop", "write")
    assert store.find_key(secret[:-1]) is None
    with pytest.raises(ParameterError, match="already a key 'shop'"):
        store.create_key("shop", "read")
    with store._engine.connect() as connection:
        assert secret not in str(connection.execute(sa.select(tables.keys)).all())
    store.revoke_key("shop")
    assert store.find_key(secret) is None
    assert store.list_keys()[0]["revoked_at"] is not None
    with pytest.raises(ParameterError, match="no key 'shop' that is in use"):
        store.revoke_key("shop")


def test_roles_include_each_other() -> None:
    assert ApiKey(1, "", "admin").may("write")
    assert ApiKey(1, "", "write").may("read")
    assert not ApiKey(1, "", "read").may("write")


def test_an_older_database_is_brought_up_to_date(where) -> None:
    engine = Store(where)._engine
    with engine.begin() as connection:
        tables.metadata.drop_all(connection)
    tables.migrate(engine.execution_options(writing=True), upto=1)
    assert not sa.inspect(engine).get_indexes("gramian_ratings")
    engine.dispose()
    store = Store(where)
    assert [index["name"] for index in sa.inspect(store._engine).get_indexes("gramian_ratings")] == [
        "gramian_ratings_by_user"
    ]
    store.close()


def test_a_newer_database_is_refused(store, where) -> None:
    with store._writing.begin() as connection:
        connection.execute(tables.versions.insert().values(version=99, applied_at=0))
    with pytest.raises(FormatError, match=r"found version 99, .* upgrade gramian"):
        Store(where)


def test_sqlite_keeps_a_log_ahead(tmp_path) -> None:
    store = Store(str(tmp_path / "feedback.db"))
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    store.close()


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("nowhere/feedback.db", "no folder 'nowhere'"),
        ("sqlite://", "Feedback in memory would be lost"),
        ("mysql://host/name", "SQLite or PostgreSQL; got 'mysql'"),
        ("a b://", "cannot be read"),
    ],
)
def test_where_feedback_cannot_be_kept(where, text) -> None:
    with pytest.raises(ParameterError, match=text):
        Store(where)


def test_a_database_that_does_not_answer() -> None:
    with pytest.raises(StoreError, match=r"postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/name failed") as caught:
        Store("postgresql://me:secret@127.0.0.1:1/name")
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path) -> None:
    path = tmp_path / "feedback.db"
    path.write_text("not a database, but long enough to look like one " * 50)
    with pytest.raises(StoreError, match="file is not a database"):
        Store(str(path))


def test_a_full_lock_waits(tmp_path, store) -> None:
    """Another process holds SQLite's write lock for a moment: the write waits for it."""
    if store._engine.dialect.name != "sqlite":
        return
    path = store._engine.url.database
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    timer.start()
    store.add(given("7", ("1", 3.0)))
    timer.join()
    other.close()
    assert store.count() == 1
