"""Models and checkpoints of before load and say the same; ``tests/support/saved_models.py`` wrote them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from saved_models import LONGER, predictions, ratings, recipes

import gramian as gm

FOLDER = Path(__file__).parents[1] / "saved" / "models"
EXPECTED = json.loads((FOLDER / "predictions.json").read_text())
# The sums of a product have other last digits on another processor.
SAME = {"rtol": 1e-5, "atol": 1e-5}


def check(model: gm.Model, name: str) -> None:
    made = predictions(model, ratings())
    assert made.keys() == EXPECTED[name].keys()
    for what, values in made.items():
        np.testing.assert_allclose(values, EXPECTED[name][what], **SAME, err_msg=what)


@pytest.mark.parametrize("name", [*recipes(), "conformal"])
def test_a_model_of_before_predicts_as_it_did(name: str, tmp_path: Path) -> None:
    model = gm.load(FOLDER / f"{name}.gramian")
    check(model, name)
    model.save(tmp_path / "again.gramian")
    check(gm.load(tmp_path / "again.gramian"), name)


@pytest.mark.parametrize("name", LONGER)
def test_a_training_of_before_is_gone_on_with(name: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "c"
    checkpoint.write_bytes((FOLDER / f"{name}.checkpoint").read_bytes())
    recipe = dataclasses.replace(recipes()[name], **LONGER[name])
    check(recipe.fit(ratings(), checkpoint=checkpoint, resume=True), f"{name}, gone on")
