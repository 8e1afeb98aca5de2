"""How many threads run, and that BLAS does not run its own inside them."""

from __future__ import annotations

import ast
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from problems import penalty_of, random_rows

import gramian.kernels
from gramian.engine import local, pool
from gramian.engine.rows import Intercepts
from gramian.kernels import reference


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({"cpu.max": "damaged"}, 64),
        ({}, 64),
    ],
)
def test_a_container_with_less_processor_time_gets_fewer_threads(files, cores, tmp_path, monkeypatch):
    monkeypatch.delenv("GRAMIAN_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    monkeypatch.setattr(pool, "CONTROL_GROUP", tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert pool.thread_count(None) == cores
    assert pool.thread_count(70) == 70
    monkeypatch.setenv("GRAMIAN_NUM_THREADS", "5")
    assert pool.thread_count(None) == 5


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_the_cores_that_the_process_is_bound_to_count(monkeypatch, tmp_path):
    monkeypatch.delenv("GRAMIAN_NUM_THREADS", raising=False)
    monkeypatch.setattr(pool, "CONTROL_GROUP", tmp_path)
    allowed = os.sched_getaffinity(0)
    assert pool.thread_count(None) == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert pool.thread_count(None) == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_compiled_kernels_call_no_blas():
    """Matrix products and linear algebra would be BLAS calls, each with threads of its own."""
    for path in Path(gramian.kernels.__file__).parent.rglob("*.py"):
        if path.name != "reference.py":
            nodes = list(ast.walk(ast.parse(path.read_text())))
            assert not any(isinstance(node, ast.MatMult) for node in nodes), path.name
            names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
            assert not names & {"dot", "vdot", "inner", "matmul", "tensordot", "linalg"}, path.name
            # einsum has loops of its own, unless it is told to optimize
            assert not any(isinstance(node, ast.keyword) and node.arg == "optimize" for node in nodes), path.name


def test_the_rescue_by_lapack_runs_when_our_threads_are_idle(pools, monkeypatch):
    rows = random_rows(np.random.default_rng(0), np.full(400, 5), 30)
    seen, busy = [], []
    rescue, drain = reference.minimum_norm_row, pool._drain

    def working(left):
        busy.append(threading.get_ident())
        drain(left)
        busy.remove(threading.get_ident())

    def watched(*arguments, **system):
        seen.append(len(busy))
        return rescue(*arguments, **system)

    monkeypatch.setattr(pool, "_drain", working)

    monkeypatch.setattr(reference, "minimum_norm_row", watched)
    other = np.random.default_rng(1).normal(size=(30, 9))
    _, singular = local.half_sweep(rows, other, penalty_of(9, 0, 0, True), Intercepts(biased=True, offset=0.0), 3)
    assert pools == [3]
    assert singular == 400
    assert seen == [0] * 400
