"""Paths that documentation named before the rooms go on importing, and hold the very same objects."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib import import_module

import pytest

from gramian.core.moved import MOVED


@pytest.mark.parametrize("path", MOVED)
def test_an_old_path_holds_what_its_new_homes_hold(path: str) -> None:
    old = import_module(path)
    for home in map(import_module, MOVED[path]):
        for name in home.__all__:
            assert getattr(old, name) is getattr(home, name)


def test_a_script_of_before_runs() -> None:
    code = (
        "from gramian.ratings import Ratings\nfrom gramian.sklearn import RatingRegressor\n"
        "from gramian.evaluate.records import mlflow_callback\nimport gramian.significance as s\n"
        "import gramian as gm; assert Ratings is gm.Ratings; print(s.paired_test.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "gramian.metrics.significance"


def test_a_pickle_of_before_loads() -> None:
    import gramian as gm

    assert pickle.loads(b"cgramian.ratings\nRatings\n.") is gm.Ratings
