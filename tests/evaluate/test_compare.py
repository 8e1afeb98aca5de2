"""Comparisons: the figures are the models' own, and nothing that goes wrong costs the rows that are finished."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from commands import Run

import gramian as gm
from gramian.evaluate.log import append_record, peak_memory, read_records
from gramian.interop.mlflow import mlflow_callback
from gramian.models.baseline import Baseline

SMALL = {"bias": gm.Baseline(), "als": gm.ALS(factors=2, epochs=3), "popular": gm.Popularity()}


@dataclass(frozen=True, kw_only=True)
class Broken(Baseline):
    name: ClassVar[str] = "broken"

    def epoch(self, ratings, arrays, number):
        raise MemoryError("no room for it")


@dataclass(frozen=True, kw_only=True)
class Interrupting(Baseline):
    name: ClassVar[str] = "interrupting"

    def epoch(self, ratings, arrays, number):
        if number == 2 and ratings.n_users > 5:  # not while warming up
            signal.raise_signal(signal.SIGINT)
        return super().epoch(ratings, arrays, number)


def test_the_figures_are_the_models_own(parts):
    made = gm.compare(SMALL, *parts, k=5)
    assert made.best == made.table["model"][0]
    rows = {row["model"]: row for row in made.table.to_dicts()}
    for label in ("bias", "als"):
        model = SMALL[label].fit(parts[0])
        assert rows[label]["rmse"] == pytest.approx(model.evaluate(parts[1])["rmse"], rel=1e-6)
        assert rows[label]["ndcg"] == gm.evaluate_ranking(model, parts[1], 5).figures["ndcg"]
        assert 0 < rows[label]["error"] < 0.1
        off = model.predict(parts[1].users, parts[1].items) - parts[1].values.astype(float)
        each = [np.sqrt(np.mean(off[parts[1].users == user] ** 2)) for user in np.unique(parts[1].users)]
        assert rows[label]["user_rmse"] == pytest.approx(np.mean(each), rel=1e-6)
    assert rows["popular"]["rmse"] is None
    assert rows["als"]["parameters"] == (parts[0].n_users + parts[0].n_items) * 3
    assert 0 <= rows["bias"]["p"] <= 1
    assert rows[made.best]["p"] is None


def test_models_that_give_probabilities_have_their_log_loss(parts):
    recipe = gm.BPMF(factors=2, draws=6)
    made = gm.compare({"bias": gm.Baseline(), "sure": recipe}, *parts)
    expected = recipe.fit(parts[0]).evaluate_probabilities(parts[1])
    rows = {row["model"]: row for row in made.table.to_dicts()}
    assert rows["sure"]["log_loss"] == pytest.approx(expected["log_loss"], rel=1e-9)
    assert rows["bias"]["log_loss"] is None
    assert made.records[1]["rps"] == pytest.approx(expected["rps"], rel=1e-9)
    assert "log_loss" not in gm.compare({"bias": gm.Baseline()}, *parts).table.columns


def test_a_failed_model_is_a_row_with_its_reason(parts):
    made = gm.compare({"broken": Broken(), **SMALL}, *parts)
    rows = {row["model"]: row for row in made.table.to_dicts()}
    assert rows["broken"]["reason"] == "MemoryError: no room for it"
    assert rows["als"]["rmse"] > 0


@pytest.fixture
def heeding_interrupts():
    """A shell's job in the background ignores SIGINT, and so does what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding_interrupts")
def test_an_interrupt_keeps_the_finished_rows_and_resume_goes_on(parts, tmp_path):
    log = str(tmp_path / "log.jsonl")
    made = gm.compare({"bias": SMALL["bias"], "stop": Interrupting(), "als": SMALL["als"]}, *parts, log=log)
    assert made.interrupted
    assert [record["model"] for record in made.records] == ["bias"]
    begun: list[str] = []
    again = gm.compare(SMALL, *parts, log=log, resume=True, say=begun.append)
    assert len(begun) == 2
    assert [record["model"] for record in again.records] == list(SMALL)
    assert again.records[0]["fit_seconds"] == made.records[0]["fit_seconds"]
    assert gm.compare(SMALL, *parts, log=log, resume=True, k=3, say=begun.append).records
    assert len(begun) == 5  # lists of another length are other figures


def test_the_log_counts_how_often_a_test_was_used(parts, tmp_path):
    log = str(tmp_path / "log.jsonl")
    assert gm.compare({"a": gm.Baseline()}, *parts, log=log, split="by hand").earlier == 0
    assert gm.compare({"a": gm.Baseline()}, *parts, log=log).earlier == 0  # the same again is no choice
    assert gm.compare({"b": gm.Baseline(regularization=1)}, *parts, log=log).earlier == 1
    assert gm.compare({"a": gm.Baseline()}, parts[1], parts[0], log=log).earlier == 0
    assert read_records(log)[0]["split"] == "by hand"


def test_cold_users_are_taken_in_before_they_are_judged(ratings):
    held = gm.hold_out(ratings, "cold_users", seed=2)
    given, asked = held._test.split(0.5, seed=2)
    recipes = {"als": gm.ALS(factors=2, epochs=5), "bpmf": gm.BPMF(factors=2, draws=20), "list": gm.Popularity()}
    made = gm.compare({**recipes, "broken": Broken()}, held.development, asked, given=given, k=5)
    rows = {row["model"]: row for row in made.table.to_dicts()}
    model = recipes["als"].fit(held.development)
    assert rows["als"]["rmse"] == pytest.approx(gm.evaluate_fold_in(model, given, asked)["rmse"], rel=1e-6)
    assert rows["als"]["rmse"] < gm.Baseline(biases=False).fit(held.development).evaluate(asked)["rmse"]
    assert rows["broken"]["reason"]
    # the lists are those of recommend_for, without what was given
    at_least = held.development.global_mean
    found = []
    for user in np.unique(asked.users[asked.values >= at_least]):
        wanted = set(asked.items[(asked.users == user) & (asked.values >= at_least)].tolist())
        mine = given.users == user
        rated = dict(zip(given.items[mine].tolist(), given.values[mine].tolist(), strict=True))
        if user in given.user_ids:
            found.append(len(wanted & set(model.recommend_for(rated, 5)["item"].to_list())) / len(wanted))
    assert rows["als"]["recall"] == pytest.approx(np.mean(found))


def test_wrong_arguments_are_said_before_anything_is_fitted(parts):
    with pytest.raises(gm.ParameterError, match="There is no model 'alt'"):
        gm.compare(["als", "alt"], *parts)
    with pytest.raises(gm.ParameterError, match="nothing to compare"):
        gm.compare([], *parts)
    with pytest.raises(gm.ParameterError, match="needs a log"):
        gm.compare(SMALL, *parts, resume=True)
    with pytest.raises(gm.DataError, match="Ratings are needed"):
        gm.compare(SMALL, parts[0], None)


def test_a_torn_line_of_the_log_is_passed_over(tmp_path):
    log = tmp_path / "log.jsonl"
    append_record(log, {"a": 1})
    log.write_text(log.read_text() + '{"a": 2, "b')
    append_record(log, {"a": 3})
    assert [record["a"] for record in read_records(log)] == [1, 3]


def test_peak_memory_sees_what_was_taken_and_given_back():
    with peak_memory() as peak:
        np.ones(4_000_000).sum()
    assert peak.bytes is None or 30e6 < peak.bytes < 60e6


@pytest.mark.filterwarnings("ignore")  # of a large library, at its import
def test_mlflow_hears_the_recipe_once_and_every_epoch(parts, monkeypatch, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    with mlflow.start_run() as begun:
        model = gm.ALS(factors=2, epochs=2).fit(*parts, callback=mlflow_callback())
    kept = mlflow.MlflowClient().get_run(begun.info.run_id).data
    assert kept.params == {name: str(value) for name, value in model.recipe.to_dict().items()}
    curve = mlflow.MlflowClient().get_metric_history(begun.info.run_id, "validation_rmse")
    assert [(point.step, point.value) for point in curve] == [
        (epoch["epoch"], epoch["validation_rmse"]) for epoch in model.history
    ]


def test_mlflow_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(gm.GramianError, match=r"gramian\[mlflow\]"):
        mlflow_callback()


def test_compare_on_the_command_line(run: Run, tmp_path, parts) -> None:
    for name, part in zip(("train", "test"), parts, strict=True):
        part.to_frame().write_csv(tmp_path / f"{name}.csv")
    words = ("compare", "train.csv", "--test", "test.csv", "--models", "baseline,als", "--log", "log.jsonl")
    code, out, err = run(*words)
    assert code == 0
    assert "baseline" in out
    assert "1 of 2" in err
    code, out, err = run(*words, "--resume", "--json")
    assert code == 0
    assert [record["model"] for record in json.loads(out)] == ["baseline", "als"]
    assert err == ""
    for wrong in (
        ("--models", "nothing"),
        ("--report", "r.html", "--choose"),
        ("--report", "r.html", "--protocol", "cold_users"),
        ("--protocol", "never"),
    ):
        code, _, err = run("compare", "train.csv", *wrong)
        assert (code, err.count("\n")) == (2, 1)
    code, _, err = run("compare", "train.csv", "--test", "test.csv", "--protocol", "random")
    assert code == 2
    assert "--protocol" in err


def test_a_narrow_terminal_gets_the_columns_that_fit(run: Run, tmp_path, parts, monkeypatch) -> None:
    parts[0].to_frame().write_csv(tmp_path / "r.csv")
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run("compare", "r.csv", "--models", "baseline,als")
    assert code == 0
    assert "too narrow" in err
    assert len([line for line in out.splitlines() if line.startswith(("als", "baseline"))]) == 2
    assert "parameters" not in out


def test_compare_chooses_on_validation_and_tests_once(run: Run, tmp_path, ratings) -> None:
    ratings.to_frame().write_csv(tmp_path / "r.csv")
    for protocol in ("time", "last", "cold_users"):
        words = ("compare", "r.csv", "--models", "als,sgd", "--protocol", protocol, "--choose", "--json")
        code, out, _ = run(*words)
        assert code == 0
        found = json.loads(out)
        best = min(found["records"], key=lambda record: record["rmse"])
        assert found["chosen"]["chosen"] == best["model"]
        held = gm.hold_out(ratings, protocol)
        model = gm.recipe_from_dict(best["recipe"]).fit(held.development)
        assert found["chosen"]["rmse"] == pytest.approx(held.evaluate(model)["rmse"], rel=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.usefixtures("heeding_interrupts")
def test_control_c_keeps_what_is_finished(tmp_path, wide_ratings) -> None:
    wide_ratings.take(wide_ratings.user_codes < 120).to_frame().write_csv(tmp_path / "r.csv")
    program = [sys.executable, "-c", "from gramian.cli.main import main; main()"]
    words = [
        "compare",
        "r.csv",
        "--models",
        "baseline,bpmf,als",
        "--protocol",
        "random",
        "--json",
        "--log",
        "log.jsonl",
    ]
    pipe = subprocess.PIPE
    running = subprocess.Popen([*program, *words], cwd=tmp_path, stdout=pipe, stderr=pipe, text=True)
    deadline = time.monotonic() + 120
    while not read_records(tmp_path / "log.jsonl") and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 130, err
    assert [record["model"] for record in json.loads(out)] == ["baseline"]
    assert "Go on with --resume" in err
    assert "Traceback" not in err
    more = subprocess.run([*program, *words, "--resume"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "baseline" not in more.stderr
    assert [record["model"] for record in read_records(tmp_path / "log.jsonl")] == ["baseline", "bpmf", "als"]
