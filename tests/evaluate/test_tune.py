"""Tuning: never worse than it began, and not lost when killed."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import Run

import gramian as gm
from gramian.evaluate.log import read_records

pytest.importorskip("optuna")


def test_the_best_is_reproducible_and_no_worse_than_the_default(wide_ratings):
    found = gm.tune(gm.ALS(factors=16, epochs=8), wide_ratings, trials=12, seed=1)
    assert found.trials.height == 12
    assert found.rmse <= found.default_rmse
    parts = [wide_ratings.split(0.1, seed=1 + fold) for fold in range(3)]
    errors = [found.recipe.fit(train).evaluate(held)["rmse"] for train, held in parts]
    assert found.rmse == pytest.approx(sum(errors) / 3, rel=1e-6)
    assert eval(found.python, {"gm": gm}) == found.recipe
    assert min(found.curve) == found.rmse
    assert set(found.importances) <= set(gm.ALS.search_space)


@pytest.mark.parametrize("protocol", ["time", "last"])
def test_validation_by_time_lies_after_what_is_learned_from(wide_ratings, protocol, tmp_path):
    log = tmp_path / "log.jsonl"
    gm.tune(gm.ALS(factors=2, epochs=2), wide_ratings, trials=2, protocol=protocol, folds=2, log=log)
    later, first = (part["train"] for part in read_records(log)[0]["parts"])
    rest = gm.hold_out(wide_ratings, protocol, test=0.1, validation=0.1)
    assert later == rest.development.fingerprint()
    assert first == rest.train.fingerprint()


def test_every_trial_is_a_line_of_the_log(wide_ratings, tmp_path):
    log = tmp_path / "log.jsonl"
    found = gm.tune(gm.ALS(factors=4, epochs=3), wide_ratings, trials=7, jobs=2, folds=1, log=log)
    lines = {line["trial"]: line for line in read_records(log)}
    assert sorted(lines) == list(range(7))
    for row in found.trials.to_dicts():
        line = lines[row["trial"]]
        assert line["state"] == row["state"]
        assert line["validation_rmse"] == row["rmse"]
        assert line["parts"][0]["train"] == wide_ratings.split(0.1, seed=0)[0].fingerprint()
    best = min(
        (line for line in lines.values() if line["state"] == "complete"), key=lambda line: line["validation_rmse"]
    )
    assert best["curve"] == found.curve
    with pytest.raises(gm.DataError, match="cannot be written"):
        gm.tune("als", wide_ratings, log=tmp_path / "no" / "log.jsonl")


def test_the_command_it_prints_is_one(run: Run, tmp_path, wide_ratings) -> None:
    wide_ratings.to_frame().write_csv(tmp_path / "r.csv")
    code, out, _ = run("tune", "r.csv", "--model", "svd", "--trials", "3", "--plot", "curve.png")
    assert code == 0
    assert (tmp_path / "curve.png").exists()
    command = next(line for line in out.splitlines() if line.startswith("gramian fit"))
    assert run(*command.split()[1:], "-o", "m.gramian")[0] == 0


def test_a_search_is_resumed_from_its_storage(wide_ratings, tmp_path):
    recipe, storage = gm.ALS(factors=4, epochs=2), tmp_path / "s.db"
    first = gm.tune(recipe, wide_ratings, trials=3, storage=storage)
    with pytest.raises(gm.DataError, match="already"):
        gm.tune(recipe, wide_ratings, trials=3, storage=storage)
    more = gm.tune(recipe, wide_ratings, trials=6, storage=storage, resume=True)
    assert more.trials.height == 6
    assert more.trials["rmse"][:3].to_list() == first.trials["rmse"].to_list()
    assert len(more.trials["regularization"].unique()) == 6


def _finished_trials(storage: Path) -> int:
    """How many trials a search has finished; it only reads, for Optuna's own reader would make the tables as well."""
    if not storage.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{storage}?mode=ro", uri=True)) as database:
        try:
            return database.execute("SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')").fetchone()[0]
        except sqlite3.OperationalError:  # not yet made, or locked
            return 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_search_goes_on(wide_ratings, tmp_path):
    wide_ratings.to_frame().write_csv(tmp_path / "r.csv")
    words = ["tune", "r.csv", "--trials", "500", "--folds", "1", "--storage", "s.db"]
    program = [sys.executable, "-c", "from gramian.cli.main import main; main()"]
    running = subprocess.Popen([*program, *words], cwd=tmp_path, stderr=subprocess.DEVNULL)
    done, deadline = 0, time.monotonic() + 180
    while done < 3 and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
        done = _finished_trials(tmp_path / "s.db")
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert done >= 3
    again = subprocess.run(
        [*program, *words[:3], str(done + 2), *words[4:], "--resume", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    import json

    found = json.loads(again.stdout)
    assert not [trial for trial in found["trials"] if trial["state"] == "running"]
    assert sum(trial["state"] in ("complete", "pruned") for trial in found["trials"]) >= done + 2


def test_parallel_trials_and_a_time_budget(wide_ratings):
    found = gm.tune(gm.ALS(factors=4, epochs=2), wide_ratings, trials=4, jobs=2, folds=1)
    assert found.trials.height == 4
    assert "n_jobs" not in found.python
    assert gm.tune(gm.ALS(factors=4, epochs=2), wide_ratings, trials=1000, seconds=1.0, folds=1).trials.height < 900


def test_wrong_arguments_are_said_at_once(ratings):
    for wrong in (
        {"trials": 0},
        {"jobs": 0},
        {"seconds": -1},
        {"protocol": "never"},
        {"validation": 0},
        {"resume": True},
        {"folds": 0},
        {"folds": 2, "validation": ratings},
    ):
        with pytest.raises(gm.ParameterError):
            gm.tune("als", ratings, **wrong)
    with pytest.raises(gm.ParameterError, match="nothing to tune"):
        gm.tune(gm.Popularity(), ratings)
