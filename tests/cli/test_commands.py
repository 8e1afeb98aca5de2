"""The command line as a user meets it: real files, real models, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from commands import SUBPROCESS, Run

import gramian as gm


@pytest.fixture
def trained(run: Run) -> str:
    code, _, _ = run("fit", "movielens-small", "--factors", "4", "--epochs", "2", "-o", "m.gramian")
    assert code == 0
    return "m.gramian"


def test_demo_shows_models_features_and_recommendations(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("demo", "--out", "shown")
    assert code == 0
    errors = {line[:18].strip(): line.split() for line in out.splitlines() if line.startswith(("base", "ALS", "glob"))}
    test_rmse = {name: float(words[-2]) for name, words in errors.items()}
    assert test_rmse["ALS, K = 32"] < test_rmse["baseline (biases)"] < test_rmse["global mean"]
    assert "Ten recommendations for user 15" in out
    for picture in ("learning-curve.png", "item-map.png"):
        assert (tmp_path / "shown" / picture).read_bytes().startswith(b"\x89PNG")
    assert gm.load(tmp_path / "shown" / "als.gramian").ratings.n_users == 671


def test_fit_evaluate_predict_recommend(run: Run, tmp_path: Path) -> None:
    train, test = gm.load_dataset("movielens-small").split(0.2, seed=0)
    train.to_frame().write_csv("train.csv")
    test.to_frame().write_parquet("test.parquet")
    titles = pl.DataFrame({"movieId": [1, 318], "title": ["Toy Story (1995)", "Shawshank"]})
    titles.write_csv("titles.csv")
    words = ("--factors", "4", "--epochs", "3", "--n-jobs", "1", "--no-biases", "--items", "titles.csv")
    code, out, err = run("fit", "train.csv", "--validation", "test.parquet", *words, "-o", "m.gramian", "--json")
    assert code == 0, err
    card = json.loads(out)
    assert card["recipe"]["biases"] is False
    assert card["recipe"]["factors"] == 4
    model = gm.load("m.gramian")
    assert model.history[-1]["validation_rmse"] == card["last_epoch"]["validation_rmse"]

    code, out, _ = run("evaluate", "m.gramian", "test.parquet", "--json")
    seen = json.loads(out)
    assert seen["rmse"] == pytest.approx(model.evaluate(test)["rmse"])
    assert 0 < seen["cold"] < seen["n"] == len(test)

    test.to_frame().select("user", "item").head(50).write_csv("pairs.csv")
    code, out, err = run("predict", "m.gramian", "pairs.csv", "-o", "out.csv", "--unknown", "nan")
    assert code == 0
    written = pl.read_csv("out.csv")
    expected = model.predict(written["user"], written["item"], unknown="nan")
    assert written["prediction"].to_list() == pytest.approx(expected.tolist(), rel=1e-6, nan_ok=True)

    code, out, _ = run("recommend", "m.gramian", "--user", "15", "-n", "2", "--json")
    assert [row["rank"] for row in json.loads(out)] == [1, 2]
    code, _, _ = run("recommend", "m.gramian", "--all", "-n", "3", "-o", "all.parquet")
    assert pl.read_parquet("all.parquet").height == 3 * model.ratings.n_users
    code, out, _ = run("recommend", "m.gramian", "--rated", "Toy Story (1995)=5", "-n", "2", "--among", "318", "--json")
    assert [row["item"] for row in json.loads(out)] == [318]


@pytest.mark.parametrize("value", ["estimate", "0.9"])
def test_a_number_may_be_a_word(run: Run, value: str) -> None:
    words = ("fit", "movielens-small", "--model", "pmf", "--factors", "2", "--epochs", "2", "--noise-std", value)
    code, _, err = run(*words)
    assert code == 0, err
    recipe = gm.load("model.gramian").recipe
    assert recipe == gm.PMF(factors=2, epochs=2, noise_std=value if value == "estimate" else 0.9)


def test_similar_and_features(run: Run, trained: str) -> None:
    code, out, _ = run("similar", trained, "--item", "toy story (1995)", "-n", "3", "--json")
    assert code == 0
    assert len(json.loads(out)) == 3
    code, out, _ = run("similar", trained, "--user", "15", "-n", "3", "--json")
    assert {row["rank"] for row in json.loads(out)} == {1, 2, 3}
    code, out, err = run("features", trained, "--top", "5", "--map", "map.png")
    assert code == 0
    assert out.count("feature ") == 4
    assert Path("map.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = run("similar", trained, "--item", "star wars")
    assert code == 2
    assert "Several items have 'star wars' in their title" in err


def test_describe_prints_the_description_and_the_findings(run: Run) -> None:
    code, out, _ = run("describe", "movielens-small", "--json")
    assert code == 0
    assert json.loads(out)["description"]["n_ratings"] == 100_004
    Path("bad.csv").write_text("user,item,rating\n1,10,4\n1,11,four\n")
    code, out, _ = run("describe", "bad.csv")
    assert code == 2
    assert "four" in out


BAD = {
    "empty": ("", "is empty"),
    "header": ("user,item,rating\n", "no ratings"),
    "column": ("user,item,mood\n1,2,3\n", "No column for the rating"),
    "text": ("user,item,rating\n1,2,3\n1,3,good\n", "line 3 has 'good'"),
    "nan": ("user,item,rating\n1,2,NaN\n", "line 2 has 'NaN'"),
    "gap": ("user,item,rating\n1,2,3\n1,3,\n", "line 3 has no value"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_get_one_sentence(run: Run, kind: str) -> None:
    content, sentence = BAD[kind]
    Path("bad.csv").write_text(content)
    code, out, err = run("fit", "bad.csv")
    assert (code, out) == (2, "")
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert not Path("model.gramian").exists()


def test_bad_arguments_get_one_sentence(run: Run, trained: str) -> None:
    before = Path(trained).read_bytes()
    cases = {
        ("fit", "movielens-small", "--regularization=-1"): "[0, inf); got -1.0",
        ("fit", "movielens-small", "--factors", "0"): "[1, 512]; got 0",
        ("fit", "movielens-small", "--model", "magic"): "There is no model 'magic'",
        ("fit", "movielens-small", "--model", "baseline", "--factors", "3"): "has no setting 'factors'",
        ("fit", "movielens-small", "--patience", "2"): "needs validation",
        ("fit", "movielens-small", "--model", "pmf", "--noise-std", "guess"): "or 'estimate'; got 'guess'",
        ("fit", "movielens-small", "--model", "pmf", "--noise-std", "0"): "or 'estimate'; got 0.0",
        ("fit", "movielens-tiny"): "movielens-tiny",
        ("recommend", trained, "--user", "999999"): "unknown to the model",
        ("recommend", trained): "Say for whom",
        ("recommend", trained, "--rated", "1:5"): "ITEM=RATING",
        ("evaluate", "nosuch.gramian", "movielens-small"): "There is no model file",
        ("features", trained, "--feature", "4"): "[0, 3]; got 4",
    }
    for words, sentence in cases.items():
        code, _, err = run(*words)
        assert code == 2, words
        assert sentence in err, err
        assert "Traceback" not in err
    assert Path(trained).read_bytes() == before


def test_damaged_models_are_refused(run: Run, trained: str) -> None:
    whole = Path(trained).read_bytes()
    Path("cut.gramian").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    Path("flipped.gramian").write_bytes(flipped)
    Path("newer.gramian").write_bytes(whole.replace(rb"{\"format\": 1,", rb"{\"format\": 9,"))
    for name, sentence in (("cut", "damaged"), ("flipped", "damaged"), ("newer", "newer format: found version 9")):
        code, out, err = run("evaluate", f"{name}.gramian", "movielens-small")
        assert (code, out) == (2, "")
        assert sentence in err


def test_what_was_trained_survives_a_failed_save(run: Run, tmp_path: Path) -> None:
    """A full disk, by the limit on a file's size: the checkpoint stays, and --resume needs no new epoch."""
    words = ["fit", "movielens-small", "--factors", "2", "--epochs", "3", "-o", "m.gramian"]
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); " + SUBPROCESS[2]
    done = subprocess.run([sys.executable, "-c", limited, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "'m.gramian' could not be written" in done.stderr
    assert (tmp_path / "m.gramian.checkpoint").exists()
    code, _, err = run(*words, "--resume")
    assert code == 0
    assert len(gm.load("m.gramian").history) == 3
    assert not Path("m.gramian.checkpoint").exists()
    code, _, err = run(*words, "--resume")
    assert "There is no checkpoint m.gramian.checkpoint: the training begins with the first epoch" in err


def test_smaller_things_are_said(run: Run, trained: str) -> None:
    Path("pairs.csv").write_text("user,item\n15,1\n999999,1\n")
    code, out, _ = run("predict", trained, "pairs.csv", "--unknown", "nan", "--json")
    assert json.loads(out)[1]["prediction"] is None
    code, out, err = run("evaluate", trained, "movielens-small")
    assert "100,004 of 100,004 pairs were in the training" in err
    code, out, _ = run("--version")
    assert (code, out) == (0, f"gramian {gm.__version__}\n")
    Path("file").write_text("")
    cases = {
        ("features", trained, "--map", "map.foo"): ".png, .svg or .pdf; got 'map.foo'",
        ("recommend", trained, "--user", "15", "-o", "r.xyz"): ".csv or .parquet; got 'r.xyz'",
        ("recommend", trained, "--rated", "1=5", "--rated", "1=2"): "rated twice",
        ("recommend", trained, "--rated", "1"): "ITEM=RATING",
        ("demo", "--out", "file"): "cannot be made",
        ("demo", "--user", "99999"): "There is no user 99999",
        ("fit", "movielens-small", "--user", "who"): "given for files only",
        ("fit", "nofile"): "There is no file or data set 'nofile'",
        ("fit", "movielens-small", "-o", "."): "is a folder",
    }
    for words, sentence in cases.items():
        code, _, err = run(*words)
        assert code == 2, (words, err)
        assert sentence in err, (words, err)


def test_what_solves_nothing_does_not_start_numba(run: Run, trained: str) -> None:
    Path("pairs.csv").write_text("user,item\n15,1\n")
    commands = [
        ["describe", "movielens-small"],
        ["evaluate", trained, "movielens-small"],
        ["predict", trained, "pairs.csv"],
        ["recommend", trained, "--user", "15"],
    ]
    for words in commands:
        without_numba(words)


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_an_interrupt_keeps_the_last_full_epoch_and_resume_goes_on(run: Run, tmp_path: Path) -> None:
    words = ["fit", "movielens-small", "--factors", "8", "-o", "m.gramian"]
    process = subprocess.Popen([*SUBPROCESS, *words, "--epochs", "100000"], stderr=subprocess.PIPE, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not (tmp_path / "m.gramian.checkpoint").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert b"interrupted" in err
    done = len(gm.load(tmp_path / "m.gramian").history)
    assert done >= 1
    code, _, err_text = run(*words, "--epochs", str(done + 2), "--resume")
    assert code == 0, err_text
    resumed = gm.load("m.gramian")
    whole = gm.ALS(factors=8, epochs=done + 2).fit(gm.load_dataset("movielens-small"))
    assert (resumed.user_rows == whole.user_rows).all()
    assert (resumed.item_rows == whole.item_rows).all()
    assert not (tmp_path / "m.gramian.checkpoint").exists()


def test_intervals_and_their_calibration(run: Run, tmp_path: Path) -> None:
    rest, test = gm.load_dataset("movielens-small").split(0.2, seed=0)
    train, held_out = rest.split(0.2, seed=0)
    for name, part in (("train", train), ("held_out", held_out), ("test", test)):
        part.to_frame().write_parquet(f"{name}.parquet")
    assert run("fit", "train.parquet", "--factors", "4", "--epochs", "2", "-o", "m.gramian")[0] == 0
    code, _, err = run(
        "conformal", "m.gramian", "held_out.parquet", "--by", "popularity", "--groups", "3", "-o", "c.gramian"
    )
    assert code == 0
    assert err.strip() == f"c.gramian: the model of m.gramian with intervals from {len(held_out):,} ratings"

    code, _, err = run("predict", "c.gramian", "test.parquet", "--interval", "0.8", "-o", "out.csv")
    assert code == 0, err
    written = pl.read_csv("out.csv")
    assert written.columns == ["user", "item", "prediction", "lower", "upper"]
    assert err.count("are unknown to the model") == 1  # once, not for the intervals again
    held = written.select(pl.lit(test.to_frame()["rating"]).is_between("lower", "upper")).to_series().mean()
    assert held == pytest.approx(0.8, abs=0.02)

    code, out, _ = run("evaluate", "c.gramian", "test.parquet", "--calibration", "--plot", "c.png")
    assert code == 0
    assert "90 % intervals hold" in out
    assert "popularity" in out
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run("evaluate", "c.gramian", "test.parquet", "--calibration", "--json")
    assert json.loads(out)["calibration"] == gm.load("c.gramian").calibration(test).to_dict()
    code, out, _ = run("recommend", "c.gramian", "--rated", "1=5", "-n", "2", "--json")
    assert len(json.loads(out)) == 2

    Path("pairs.csv").write_text("user,item\n15,1\n")
    cases = {
        ("predict", "m.gramian", "pairs.csv", "--interval", "0.9"): "has no intervals of its own",
        ("predict", "c.gramian", "pairs.csv", "--interval", "90"): "a number in (0, 1); got 90.0",
        ("evaluate", "m.gramian", "test.parquet", "--calibration"): "conformal",
        ("evaluate", "c.gramian", "test.parquet", "--plot", "c.png"): "give --calibration",
        ("conformal", "m.gramian", "train.parquet"): "must be held out",
        ("conformal", "m.gramian", "held_out.parquet", "--by", "age"): "'activity', 'popularity'",
    }
    for words, sentence in cases.items():
        code, _, err = run(*words)
        assert code == 2, words
        assert sentence in err, err
        assert len(err.strip().splitlines()) == 1
    without_numba(["predict", "c.gramian", "pairs.csv", "--interval", "0.9"])
    without_numba(["evaluate", "c.gramian", "test.parquet", "--calibration"])
    without_numba(["conformal", "m.gramian", "held_out.parquet"])


def without_numba(words: list[str]) -> None:
    """Run a command in a process of its own that must not load Numba or matplotlib."""
    code = (
        "import sys, gramian.cli.main\n"
        f"sys.argv[1:] = {words!r}\n"
        "try: gramian.cli.main.main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "assert 'numba' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr)


def test_a_bayesian_model_learns_from_tables_of_users_and_items(run: Run, tmp_path: Path) -> None:
    ratings = gm.load_dataset("movielens-small").split(0.9, seed=0)[0]
    ratings.to_frame().write_csv("ratings.csv")
    users, items = sorted(set(ratings.users.tolist())), sorted(set(ratings.items.tolist()))
    pl.DataFrame({"userId": users, "age": [20 + n % 50 for n in users]}).write_csv("users.csv")
    pl.DataFrame({"movieId": items, "year": [1950 + n % 60 for n in items], "genres": ["A|B", "C"] * (len(items) // 2)
                  + ["A"] * (len(items) % 2)}).write_csv("items.csv")  # fmt: skip
    words = ("--implicit", "both", "--items", "items.csv", "--users", "users.csv", "--factors", "2", "--draws", "5")
    code, _, err = run("fit", "ratings.csv", "--model", "bpmf", *words, "-o", "m.gramian")
    assert code == 0, err
    model = gm.load("m.gramian")
    assert model.recipe.implicit == "both"
    assert model.recipe.user_features.names == ("age",)
    assert model.recipe.item_features.names == ("year", "genres=A", "genres=B", "genres=C")
    code, _, err = run("fit", "ratings.csv", "--users", "users.csv")
    assert code == 2
    assert "does not learn from a table of users" in err
