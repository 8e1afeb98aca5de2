"""Requests made from the OpenAPI document by schemathesis, good and bad: no 5xx, and answers are what it says."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import served

import gramian as gm
from gramian.serve.store import Store

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]  # fmt: skip


def known(body: dict[str, Any]) -> dict[str, Any]:
    """The same request about somebody and something that the model knows."""
    ids = {"user": 101, "item": 11, "items": [11, 18], "among": [11, 18, 25], "exclude": [18]}
    made = {name: ids.get(name, value) for name, value in body.items() if name != "pairs"}
    if made.get("ratings") is not None:
        listed = isinstance(made["ratings"], list)
        made["ratings"] = (
            [{**one, "user": 101, "item": 11, "rating": 3} for one in made["ratings"]] if listed else {"11": 4}
        )
        made.pop("user", None)
    elif "pairs" not in body:
        made["user"] = 101
    return made


def send(operation: Any, mode: GenerationMode, secret: str, counts: Counter[int]) -> None:
    """Send good or bad requests, check the answers, and count them by status."""

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=12, suppress_health_check=list(HealthCheck))
    def requests(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict) and counts.total() % 2:
            case.body = known(case.body)
        answer = case.call_and_validate(headers={"Authorization": f"Bearer {secret}"}, checks=CHECKS)
        counts[answer.status_code] += 1

    requests()


def test_requests_made_from_the_document(tmp_path, parts) -> None:
    path, db = tmp_path / "m.gramian", str(tmp_path / "feedback.db")
    train, test = parts
    titles = train.item_ids.ids.to_frame("item").with_columns(title=train.item_ids.ids.cast(str))
    gm.BPMF(factors=3, draws=10, burn_in=3).fit(train.with_items(titles)).save(path)
    test.to_frame().write_csv(tmp_path / "test.csv")
    store = Store(db)
    secret = store.create_key("test", "admin")
    store.close()
    arguments = (str(path), "--db", db, "--test", str(tmp_path / "test.csv"), "--rate", "0")
    with served(*arguments, secret=secret) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}/v1/openapi.json")
        answered: dict[str, Counter[int]] = {}
        for found in schema.get_all_operations():
            operation = found.ok()
            answered[operation.label] = Counter()
            for mode in GenerationMode:
                with contextlib.suppress(Unsatisfiable):  # there is nothing to be wrong in some requests
                    send(operation, mode, secret, answered[operation.label])
        assert len(answered) == 16
        for label in ("POST /v1/recommend", "POST /v1/predict", "GET /v1/items", "POST /v1/ratings"):
            assert answered[label][422], (label, answered[label])
        for label in ("POST /v1/recommend", "POST /v1/reload", "GET /v1/items", "GET /v1/features", "GET /v1/map"):
            assert answered[label][200], (label, answered[label])
        print(answered)
        said = server.stop()
    assert "Traceback" not in said
    assert Path(db).exists()
