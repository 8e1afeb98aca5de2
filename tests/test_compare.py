"""Comparisons: the figures are the models' own, and nothing that goes wrong costs the rows that are finished."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

import gramian as gm
from gramian.evaluate.records import append_record, mlflow_callback, peak_memory, read_records
from gramian.models.baseline import Baseline
from test_cli import Run, run  # noqa: F401

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
    assert rows["popular"]["rmse"] is None
    assert rows["als"]["parameters"] == (parts[0].n_users + parts[0].n_items) * 3
    assert 0 <= rows["bias"]["p"] <= 1
    assert rows[made.best]["p"] is None


def test_a_failed_model_is_a_row_with_its_reason(parts):
    made = gm.compare({"broken": Broken(), **SMALL}, *parts)
    rows = {row["model"]: row for row in made.table.to_dicts()}
    assert rows["broken"]["reason"] == "MemoryError: no room for it"
    assert rows["als"]["rmse"] > 0


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


def test_mlflow_hears_the_recipe_once_and_every_epoch(parts, monkeypatch):
    heard = []
    fake = SimpleNamespace(log_params=heard.append, log_metrics=lambda figures, step: heard.append((step, figures)))
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    model = gm.ALS(factors=2, epochs=2).fit(*parts, callback=mlflow_callback())
    assert heard[0] == model.recipe.to_dict()
    assert [step for step, _ in heard[1:]] == [1, 2]
    assert heard[2][1]["validation_rmse"] == model.history[-1]["validation_rmse"]
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(gm.GramianError, match="not installed"):
        mlflow_callback()


def test_compare_on_the_command_line(run: Run, tmp_path, parts) -> None:  # noqa: F811
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
    code, _, err = run("compare", "train.csv", "--models", "nothing")
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = run("compare", "train.csv", "--test", "test.csv", "--protocol", "random")
    assert code == 2
    assert "--protocol" in err
