"""Known rating sets: the bundled one, copies in every layout, and downloads from a server of our own."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import logging.handlers
import socket
import threading
import zipfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pooch
import pytest

import gramian as gm
from gramian.data import datasets

U_DATA = "196\t242\t3\t881250949\n186\t2\t4\t891717742\n196\t2\t1\t881250950\n"
U_ITEM = (
    "2|GoldenEye (1995)|01-Jan-1995||http://x|0|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0|1|0|0\n"
    "242|Misérables (1998)|||http://x|0|0|0|0|0|0|0|0|1|0|0|0|0|0|0|0|0|0|0\n"
    "267|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
)
RATINGS_DAT = "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n"
MOVIES_DAT = "661::James and the Giant Peach (1996)::Animation|Children's\n1193::Café :: Noir (1975)::Drama\n"
RATINGS_CSV = "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,4.5,964981247\n7,1,2.0,964981248\n"
MOVIES_CSV = 'movieId,title,genres\n1,Toy Story (1995),Comedy\n3,"Usual Suspects, The (1995)",Crime|Thriller\n'
BOOK_RATINGS = "book_id,user_id,rating\n1,314,5\n2,314,3\n1,439,3\n"
BOOKS_1 = (
    "id,book_id,authors,original_publication_year,title\n1,2767052,Collins,2008.0,The Hunger Games\n2,3,Rowe,,HP\n"
)
BOOKS_2 = "book_id,authors,original_publication_year,title\n1,Collins,2008.0,The Hunger Games\n2,Rowling,-720.0,HP\n"

# (name, the file of ratings and its text, the file of titles, its bytes, ids and titles that come out)
LAYOUTS = {
    "100k": ("u.data", U_DATA, "u.item", U_ITEM.encode("latin-1"), {2: "GoldenEye (1995)", 242: "Misérables (1998)"}),
    "1m": ("ratings.dat", RATINGS_DAT, "movies.dat", MOVIES_DAT.encode("latin-1"),
           {661: "James and the Giant Peach (1996)", 1193: "Café :: Noir (1975)"}),
    "movielens-10m": ("ratings.dat", RATINGS_DAT, "movies.dat", MOVIES_DAT.encode(),
                      {661: "James and the Giant Peach (1996)", 1193: "Café :: Noir (1975)"}),
    "25m": ("ratings.csv", RATINGS_CSV, "movies.csv", MOVIES_CSV.encode(),
            {1: "Toy Story (1995)", 3: "Usual Suspects, The (1995)"}),
    "movielens-small": ("ratings.csv", RATINGS_CSV, "movies.csv", MOVIES_CSV.encode(),
                        {1: "Toy Story (1995)", 3: "Usual Suspects, The (1995)"}),
    "movietweetings": ("ratings.dat", "1::0104257::8::1364690142\n2::1074638::7::1365029107\n", "movies.dat",
                       b"0104257::A Few Good Men (1992)::Drama\n1074638::Skyfall (2012)::Action\n",
                       {"0104257": "A Few Good Men (1992)", "1074638": "Skyfall (2012)"}),
    "goodbooks": ("ratings.csv", BOOK_RATINGS, "books.csv", BOOKS_1.encode(), {1: "The Hunger Games", 2: "HP"}),
}  # fmt: skip


def write_layout(name: str, folder: Path) -> Path:
    ratings, text, items, content, _ = LAYOUTS[name]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ratings).write_text(text)
    (folder / items).write_bytes(content)
    return folder


def write_zip(name: str, path: Path, inside: str = "ml-x/") -> Path:
    ratings, text, items, content, _ = LAYOUTS[name]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/deeper/ml-x/" + ratings, "not this one")
        archive.writestr(inside + ratings, text)
        archive.writestr(inside + items, content)
    return path


def titles(ratings: gm.Ratings) -> dict[object, object]:
    assert ratings.titles is not None
    return dict(zip(ratings.item_ids, ratings.titles, strict=True))


# ---- bundled -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> gm.Ratings:
    return gm.load_dataset("movielens-small")


def test_the_bundled_set_is_what_it_says(small: gm.Ratings) -> None:
    assert (len(small), small.n_users, small.n_items, small.scale) == (100_004, 671, 9_066, (0.5, 5.0))
    assert small.duplicates == 0
    assert small.times is not None
    assert (small.times.min(), small.times.max()) == (789_652_009, 1_476_640_644)
    assert small.global_mean == pytest.approx(3.543608, abs=1e-6)


def test_the_bundled_set_has_titles(small: gm.Ratings) -> None:
    table = small.item_table
    assert table is not None
    assert table.columns == ["item", "title", "year", "genres"]
    assert table.row(0) == (1, "Toy Story (1995)", 1995, "Adventure|Animation|Children|Comedy|Fantasy")
    untitled = table.filter(table["title"].is_null())
    assert untitled["item"].to_list() == [108548, 108583, 143410, 151307, 162376]
    assert small.to_frame()["item"].is_in(untitled["item"].to_list()).sum() == 7
    assert not table["title"].fill_null("").str.contains("NaN|null").any()


def test_the_bundled_files_are_small_and_have_their_terms() -> None:
    folder = files("gramian.data") / "bundled"
    sizes = [len((folder / f"movielens-small-{part}.parquet").read_bytes()) for part in ("ratings", "movies")]
    assert sum(sizes) < 2_000_000
    terms = (folder / "LICENSE-movielens.txt").read_text(encoding="utf-8")
    for phrase in ("commercial", "endorsement", "same license conditions", "Harper", "2016", "ml-latest-small.zip"):
        assert " ".join(phrase.split()) in " ".join(terms.split())


def test_the_bundled_set_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    assert len(gm.load_dataset("movielens-small")) == 100_004


# ---- a copy ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_as_folder_file_and_archive(name: str, tmp_path: Path) -> None:
    folder = write_layout(name, tmp_path / "deep" / "er")
    packed = write_zip(name, tmp_path / "set.zip")
    loaded = [gm.load_dataset(name, path=p) for p in (folder, tmp_path / "deep", folder / LAYOUTS[name][0], packed)]
    assert len({ratings.fingerprint() for ratings in loaded}) == 1
    for ratings in loaded:
        assert len(ratings) == LAYOUTS[name][1].count("\n") - LAYOUTS[name][1].startswith(("userId", "book_id"))
        assert titles(ratings) == LAYOUTS[name][4]


def test_the_genres_and_year_of_ml_100k(tmp_path: Path) -> None:
    table = gm.load_dataset("100k", path=write_layout("100k", tmp_path)).item_table
    assert table is not None
    assert table.rows() == [
        (2, "GoldenEye (1995)", 1995, "Action|Adventure|Thriller"),
        (242, "Misérables (1998)", 1998, "Drama"),
        (267, "unknown", None, "unknown"),
    ]


def test_the_second_edition_of_goodbooks(tmp_path: Path) -> None:
    folder = write_layout("goodbooks", tmp_path)
    (folder / "books.csv").write_text(BOOKS_2)
    table = gm.load_dataset("goodbooks", path=folder).item_table
    assert table is not None
    assert table.rows() == [(1, "The Hunger Games", 2008, "Collins"), (2, "HP", -720, "Rowling")]


def test_gzipped_files(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv.gz").write_bytes(gzip.compress(BOOK_RATINGS.encode()))
    (tmp_path / "books.csv.gz").write_bytes(gzip.compress(BOOKS_1.encode()))
    for path in (tmp_path, tmp_path / "ratings.csv.gz"):
        assert titles(gm.load_dataset("goodbooks", path=path)) == LAYOUTS["goodbooks"][4]


def test_ratings_without_titles(tmp_path: Path) -> None:
    (tmp_path / "u1.base").write_text(U_DATA)
    assert gm.load_dataset("100k", path=tmp_path / "u1.base").item_table is None


def test_a_path_that_is_not_of_this_set(tmp_path: Path) -> None:
    write_layout("25m", tmp_path / "25m")
    write_zip("25m", tmp_path / "25m.zip")
    for path, what in ((tmp_path / "25m", "folder"), (tmp_path / "25m.zip", "archive")):
        with pytest.raises(gm.DataError, match=rf"The {what} .* is not of this data set: found no 'u.data'"):
            gm.load_dataset("100k", path=path)
    with pytest.raises(gm.DataError, match="There is no file"):
        gm.load_dataset("100k", path=tmp_path / "nowhere")


def test_a_damaged_archive(tmp_path: Path) -> None:
    path = write_zip("25m", tmp_path / "25m.zip")
    content = bytearray(path.read_bytes())
    place = content.find(b"ml-x/movies.csv") + len("ml-x/movies.csv") + 20
    content[place] ^= 0xFF
    path.write_bytes(content)
    (tmp_path / "cut.zip").write_bytes(content[: len(content) // 2])
    for damaged in (path, tmp_path / "cut.zip"):
        with pytest.raises(gm.DataError, match=r"The archive .* cannot be read: .*; use another copy"):
            gm.load_dataset("25m", path=damaged)


def test_damaged_titles(tmp_path: Path) -> None:
    folder = write_layout("100k", tmp_path)
    (folder / "u.item").write_text("no separator here\n")
    with pytest.raises(gm.DataError, match=r"The titles in .* cannot be read"):
        gm.load_dataset("100k", path=folder)


def test_an_unknown_name() -> None:
    with pytest.raises(gm.ParameterError, match=r"one of 'movielens-small', 'movielens-100k', .*; got 'movielens-7'"):
        gm.load_dataset("movielens-7")


# ---- a download --------------------------------------------------------------------------------------


class Server:
    """Serves one folder on 127.0.0.1, and counts what is asked."""

    def __init__(self, folder: Path) -> None:
        server = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: object) -> None:
                super().__init__(*args, directory=str(folder))

            def do_GET(self) -> None:
                server.asked += 1
                super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self.asked = 0
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("GRAMIAN_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "www").mkdir()
    made = Server(tmp_path / "www")
    yield made
    made.close()


def serve(monkeypatch: pytest.MonkeyPatch, name: str, md5: str | None, *urls: str) -> None:
    changed = dataclasses.replace(datasets.SETS[name], urls=urls, md5=md5)
    monkeypatch.setitem(datasets.SETS, name, changed)


@pytest.fixture
def ml_100k(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive in the layout of ml-100k, with its right checksum, on the server."""
    path = write_zip("100k", tmp_path / "www" / "ml-100k.zip", "ml-100k/")
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    serve(monkeypatch, "movielens-100k", md5, f"{server.address}/ml-100k.zip")
    return path


def test_a_download_is_kept_and_quiet(
    server: Server, ml_100k: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logger = pooch.get_logger()
    level, said = logger.level, logging.handlers.BufferingHandler(1000)
    logger.addHandler(said)
    first = gm.load_dataset("100k")
    assert titles(first) == LAYOUTS["100k"][4]
    assert gm.load_dataset("movielens-100k").fingerprint() == first.fingerprint()
    assert server.asked == 1
    kept = sorted(p.relative_to(tmp_path / "cache").as_posix() for p in (tmp_path / "cache").rglob("*.*"))
    assert kept == ["movielens-100k/ml-100k.zip", "movielens-100k/u.data", "movielens-100k/u.item"]
    assert capfd.readouterr() == ("", "")
    logger.removeHandler(said)
    assert (said.buffer, logger.level) == ([], level)


def test_an_interrupted_unpacking_is_done_again(ml_100k: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, real = [], zipfile.ZipFile.open

    def stop_at_the_second(*args: Any, **options: Any) -> Any:
        opened.append(args)
        if len(opened) > 1:
            raise KeyboardInterrupt
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "open", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            gm.load_dataset("100k")
    assert titles(gm.load_dataset("100k")) == LAYOUTS["100k"][4]


def test_a_wrong_checksum_is_refused(
    server: Server, ml_100k: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{server.address}/ml-100k.zip"
    serve(monkeypatch, "movielens-100k", "0" * 32, url)
    with pytest.raises(gm.DataError, match="does not have the published checksum") as caught:
        gm.load_dataset("100k")
    assert f"download {url} by hand and give path=…" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.*"))
    assert len(gm.load_dataset("100k", path=ml_100k)) == 3


def test_a_file_that_is_not_there(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, "goodbooks", None, f"{server.address}/gone.zip")
    with pytest.raises(gm.DataError, match=r"could not be downloaded: 404 .*; download http.*gone.zip by hand"):
        gm.load_dataset("goodbooks")


def test_what_came_is_no_archive(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "www" / "goodbooks-10k.zip").write_text("<html>Please log in</html>")
    serve(monkeypatch, "goodbooks", None, f"{server.address}/goodbooks-10k.zip")
    with pytest.raises(gm.DataError, match="could not be downloaded: File is not a zip file; download"):
        gm.load_dataset("goodbooks")


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}/ml-1m.zip"
    monkeypatch.setenv("GRAMIAN_DATA", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    serve(monkeypatch, "movielens-1m", "0" * 32, closed)
    with pytest.raises(gm.DataError, match=r"there is no connection to the address; download .* by hand") as caught:
        gm.load_dataset("1m")
    assert closed in str(caught.value)


def test_a_set_of_two_files(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_layout("movietweetings", tmp_path / "www")
    urls = [f"{server.address}/{name}" for name in ("ratings.dat", "movies.dat")]
    serve(monkeypatch, "movietweetings", None, *urls)
    assert titles(gm.load_dataset("movietweetings")) == LAYOUTS["movietweetings"][4]
    gm.load_dataset("movietweetings")
    assert server.asked == 2


def test_addresses_are_official_and_movielens_is_checked() -> None:
    for name, kind in datasets.SETS.items():
        assert all(url.startswith("https://") for url in kind.urls)
        if name.startswith("movielens"):
            assert kind.urls[0].startswith("https://files.grouplens.org/datasets/movielens/ml-")
            assert kind.md5 is not None
            assert len(bytes.fromhex(kind.md5)) == 16
