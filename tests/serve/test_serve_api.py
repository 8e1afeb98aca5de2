"""The HTTP API in one process: answers equal the library's, errors are problem documents, limits hold."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import sqlalchemy as sa
import uvicorn
from serving import Answer, free_port

import gramian as gm
from gramian.serve.asgi import create_app
from gramian.serve.batch import Batcher
from gramian.serve.feedback import Feedback
from gramian.serve.limits import Limits
from gramian.serve.live import load_live
from gramian.serve.problems import Problem
from gramian.serve.service import Service
from gramian.serve.store import Store

USER, ITEM = 101, 11
RECIPES = {
    "als": gm.ALS(factors=3, epochs=3),
    "bpmf": gm.BPMF(factors=3, draws=12, burn_in=5),
    "baseline": gm.Baseline(),
}


def title_of(item: Any) -> str:
    return f"The {'Great' if int(item) % 2 else 'Small'} Film {item}"


@pytest.fixture(scope="module")
def files(tmp_path_factory, parts) -> dict[str, str]:
    """Model files: with integer ids and titles."""
    folder = tmp_path_factory.mktemp("models")
    train, test = parts
    titles = {"item": train.item_ids.ids, "title": [title_of(item) for item in train.item_ids]}
    train = train.with_items(pl.DataFrame(titles))
    made = {}
    for name, recipe in RECIPES.items():
        made[name] = str(folder / f"{name}.gramian")
        recipe.fit(train, test).save(made[name])
    made["conformal"] = str(folder / "conformal.gramian")
    gm.conformal(gm.load(made["als"]), test).save(made["conformal"])
    return made


@pytest.fixture(scope="module")
def models(files) -> dict[str, Any]:
    return {name: gm.load(path) for name, path in files.items()}


class Api:
    """An application served by uvicorn in a thread of this process, and a client of it."""

    def __init__(self, service: Service) -> None:
        self.service, self.port = service, free_port()
        config = uvicorn.Config(create_app(service), port=self.port, log_level="error", access_log=False)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)

    def start(self) -> None:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def __enter__(self) -> Api:
        self.start()
        for _ in range(600):
            if self.get("/v1/ready").status == 200:
                return self
            time.sleep(0.05)
        raise AssertionError("not ready")

    def __exit__(self, *rest: Any) -> None:
        self.server.should_exit = True
        self.thread.join()

    def send(self, method: str, path: str, body: Any, headers: dict[str, str] | None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"Content-Type": "application/json", **(headers or {})}
        connection.request(method, path, body, sent, encode_chunked=isinstance(body, Iterator))
        answer = connection.getresponse()
        made = Answer(answer.status, answer.headers, answer.read())
        connection.close()
        return made

    def get(self, path: str, params: Any = None, headers: Any = None) -> Answer:
        query = "" if params is None else f"?{urllib.parse.urlencode(params)}"
        return self.send("GET", path + query, None, headers)

    def post(self, path: str, body: Any, headers: Any = None) -> Answer:
        return self.send("POST", f"/v1/{path}", None if body is None else json.dumps(body).encode(), headers)


def api_of(path: str, settings: Limits = Limits(rate=0), **more: Any) -> Api:  # noqa: B008
    return Api(Service(lambda: load_live(path), settings, **more))


@pytest.fixture(scope="module")
def apis(files, parts) -> Iterator[dict[str, Api]]:
    """One client per model."""
    made = {name: api_of(path, test=parts[1]).__enter__() for name, path in files.items()}
    yield made
    for api in made.values():
        api.__exit__(None, None, None)


@pytest.fixture
def fed(files, where) -> Iterator[tuple[Api, Store]]:
    """A Bayesian model with a store, on SQLite and on PostgreSQL."""
    store = Store(where)
    settings = Limits(rate=0)
    with api_of(files["bpmf"], settings, feedback=Feedback(store, settings)) as api:
        yield api, store


def said(answer: Any, status: int) -> str:
    """The sentence of a problem document."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json
    assert found["status"] == status
    assert found["type"].startswith("urn:gramian:problem:")
    assert found["title"]
    return found["detail"]


# ---- answers equal the library's -------------------------------------------------------------------


@pytest.mark.parametrize("name", [*RECIPES, "conformal"])
def test_recommendations_of_a_known_user(apis, models, name) -> None:
    answer = apis[name].post("recommend", {"user": USER, "n": 5}).json
    expected = models[name].recommend(USER, 5)
    rows = answer["items"]
    assert answer["from"] == "model"
    assert [row["item"] for row in rows] == expected["item"].to_list()
    assert [row["score"] for row in rows] == pytest.approx(expected["score"].to_list())
    assert [row["title"] for row in rows] == [title_of(row["item"]) for row in rows]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    predicted = models[name].predict(USER, [row["item"] for row in rows])
    assert [row["predicted"] for row in rows] == pytest.approx(predicted.tolist())


@pytest.mark.parametrize("order", ["mean", "lower", "thompson"])
@pytest.mark.parametrize("whom", ["user", "ratings"])
def test_orders_exclusions_and_candidates(apis, models, order, whom) -> None:
    model = models["bpmf"]
    among = model.item_ids.ids.to_list()[:20]
    given = {among[0]: 5.0, among[3]: 1.0}
    by = {"by": order, "level": 0.8, "seed": 4}
    if whom == "user":
        listed = model.recommend(USER, 7, among=among, exclude_seen=False, **by)["item"].to_list()
        body: dict[str, Any] = {"user": USER}
    else:
        listed = model.recommend_for(given, 7, among=among, exclude_seen=False, **by)["item"].to_list()
        body = {"ratings": {str(item): value for item, value in given.items()}}
    how = {"order": order, "level": 0.8, "seed": 4, "among": among, "include_seen": True, "n": 6}
    answer = apis["bpmf"].post("recommend", {**body, **how, "exclude": [listed[2]]}).json
    assert [row["item"] for row in answer["items"]] == listed[:2] + listed[3:]


def test_intervals_of_known_and_new(apis, models) -> None:
    for name in ("bpmf", "conformal"):
        rows = apis[name].post("recommend", {"user": USER, "intervals": True, "level": 0.7}).json["items"]
        ends = models[name].predict_interval(USER, [row["item"] for row in rows], 0.7)
        assert np.allclose([[row["lower"], row["upper"]] for row in rows], ends)
        body = {"ratings": {str(ITEM): 5.0}, "intervals": True}
        for row in apis[name].post("recommend", body).json["items"]:
            assert 0.5 <= row["lower"] <= row["predicted"] <= row["upper"] <= 5
    rows = apis["als"].post("recommend", {"user": USER, "intervals": True}).json["items"]
    assert all(row["lower"] is None for row in rows)


@pytest.mark.parametrize("name", ["als", "bpmf", "conformal"])
def test_predictions_of_somebody_new_are_those_of_a_user_with_the_same_ratings(apis, models, name) -> None:
    """At convergence a user's own ratings, folded in, give their predictions."""
    model = models[name]
    known = model.rated_by(USER)
    ratings = {str(item): rating for item, rating in known.select("item", "rating").iter_rows()}
    items = model.item_ids.ids.to_list()[:10]
    found = apis[name].post("predict", {"ratings": ratings, "items": items}).json
    pairs = apis[name].post("predict", {"pairs": [{"user": USER, "item": item} for item in items]}).json
    new, old = ([row["predicted"] for row in part["predictions"]] for part in (found, pairs))
    assert old == pytest.approx(model.predict(USER, items).tolist())
    if name == "bpmf":  # which draws the row anew
        rows = model.fold_in({int(item): rating for item, rating in ratings.items()})
        codes = model.item_ids.codes(items)
        parts = [
            np.clip(draw.item_rows[codes].astype(float) @ np.append(row[:-1], 1) + row[-1] + model.global_mean, 0.5, 5)
            for row, draw in zip(rows, model.draws, strict=True)
        ]
        old = np.mean(parts, axis=0)
    assert np.allclose(new, old, atol=1e-4)
    assert all(row["user"] is None for row in found["predictions"])
    assert (found["level"] is None) == (name == "als")


def test_unknown_ids_are_refused_or_fall_back(apis, models) -> None:
    pairs = [{"user": USER, "item": ITEM}, {"user": 999, "item": ITEM}, {"user": USER, "item": 999}]
    text = said(apis["bpmf"].post("predict", {"pairs": pairs}), 404)
    assert text == "The item 999 is unknown to the model; check the id."
    found = apis["bpmf"].post("predict", {"pairs": pairs, "unknown": "fallback"}).json
    with pytest.warns(gm.errors.UnknownIdWarning):
        expected = models["bpmf"].predict([USER, 999, USER], [ITEM, ITEM, 999])
    assert [row["predicted"] for row in found["predictions"]] == pytest.approx(expected.tolist())


@pytest.mark.parametrize("name", ["als", "bpmf"])
def test_reasons_sum_to_the_prediction(apis, models, name) -> None:
    item = models[name].recommend(USER, 1)["item"][0]
    found = apis[name].post("explain", {"user": USER, "item": item, "n": 1000}).json
    total = found["rest"] + sum(reason["contribution"] for reason in found["reasons"])
    expected = models[name].explain(USER, item)
    rated = dict(models[name].rated_by(USER).select("item", "rating").iter_rows())
    score = models[name].recommend_for(rated, 1, among=[item], exclude_seen=False)["score"][0]
    assert total == pytest.approx(score, abs=1e-4)
    terms = dict(expected.contributions.select("item", "contribution").iter_rows())
    assert {reason["item"]: reason["contribution"] for reason in found["reasons"]} == pytest.approx(terms, abs=1e-3)


def test_search_similar_features_map_history(apis, models) -> None:
    api, model = apis["als"], models["als"]
    found = api.get("/v1/items", params={"q": "film great", "n": 3}).json["items"]
    counts = [row["ratings"] for row in found]
    assert len(found) == 3
    assert counts == sorted(counts, reverse=True)
    assert all("Great" in row["title"] for row in found)
    assert api.get("/v1/items", params={"q": "nothing such"}).json == {"items": []}
    near = api.get(f"/v1/items/{ITEM}/similar", params={"n": 3}).json["items"]
    assert [row["item"] for row in near] == model.similar_items(ITEM, 3)["item"].to_list()
    features = api.get("/v1/features", params={"top": 2}).json["features"]
    assert [row["item"] for row in features[1]["low"]] == model.top_items(1, 2, lowest=True)["item"].to_list()
    placed = api.get("/v1/map", params={"n": 4}).json["items"]
    codes = model.item_ids.codes([row["item"] for row in placed])
    assert np.allclose([[row["x"], row["y"]] for row in placed], model.features.items[codes, :2])
    epochs = api.get("/v1/history").json["epochs"]
    assert [row["train_rmse"] for row in epochs] == model.history.column("train_rmse")


def test_the_card_says_what_can_be_asked(apis) -> None:
    cards = {name: api.get("/v1/model").json for name, api in apis.items()}
    assert cards["bpmf"]["abilities"]["orders"] == ["mean", "lower", "thompson"]
    assert cards["als"]["abilities"]["orders"] == ["mean"]
    assert [card["abilities"]["intervals"] for card in cards.values()] == [False, True, False, True]
    assert cards["als"]["recipe"]["factors"] == 3
    assert cards["als"]["feedback"] is False


def test_calibration_on_the_test_ratings(apis, models, parts) -> None:
    for _ in range(100):
        found = apis["bpmf"].get("/v1/calibration").json
        if found["errors"] is not None:
            break
        time.sleep(0.05)
    assert found["errors"]["rmse"] == pytest.approx(models["bpmf"].evaluate(parts[1])["rmse"])
    assert found["calibration"]["curve"][0].keys() >= {"level", "coverage"}


def test_what_a_model_cannot_do(apis) -> None:
    assert "keeps no draws" in said(apis["als"].post("recommend", {"user": USER, "order": "lower"}), 422)
    assert "keeps no draws" in said(apis["als"].post("ask", {"user": USER}), 422)
    assert "no latent features" in said(apis["baseline"].get("/v1/features"), 422)
    assert "no latent features" in said(apis["baseline"].get(f"/v1/items/{ITEM}/similar"), 422)


def test_what_to_ask_next(apis, models) -> None:
    found = apis["bpmf"].post("ask", {"ratings": {str(ITEM): 4.0}, "n": 3}).json["items"]
    assert [row["item"] for row in found] == models["bpmf"].ask_next({ITEM: 4.0}, 3)["item"].to_list()


# ---- what is wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("recommend", {}, 422, "Say for whom: either 'user', an id, or 'ratings'"),
        ("recommend", {"user": USER, "ratings": {}}, 422, "Say for whom"),
        ("recommend", {"user": USER, "n": 0}, 422, "body.n: Input should be greater than or equal to 1"),
        ("recommend", {"user": USER, "m": 0}, 422, "body.m: Extra inputs are not permitted"),
        ("recommend", {"user": True}, 422, "body.user"),
        ("recommend", {"user": 2**80}, 422, "body.user"),
        ("recommend", {"user": "u\x00"}, 422, "body.user"),
        ("recommend", {"user": "abc"}, 422, "The user ids of this model are integers; got 'abc'."),
        ("recommend", {"user": 999}, 404, "The user 999 is unknown to the model; check the id."),
        ("recommend", {"ratings": {"999": 3}}, 404, "The item '999' is unknown to the model; check the id."),
        ("recommend", {"ratings": {"11": 6}}, 422, "must be on the scale 0.5 to 5: got 6 for the item '11'"),
        ("recommend", {"user": USER, "among": [999]}, 404, "The item 999 is unknown"),
        ("predict", {}, 422, "Say what to predict"),
        ("predict", {"pairs": [], "level": 1.0}, 422, "body.level"),
        ("explain", {"user": USER, "item": 999}, 404, "The item 999 is unknown"),
        ("ratings", {"ratings": [{"user": 1, "item": 11, "rating": 3}]}, 503, "start it with --db"),
        ("nothing", {}, 404, "Not Found."),
    ],
)
def test_bad_requests_get_one_sentence(apis, path, body, status, text) -> None:
    assert text in said(apis["als"].post(path, body), status)


@pytest.mark.parametrize(
    "body", ["", "{", "[1", '{"user": NaN}', "\ud800".encode("utf-8", "surrogatepass"), b"[" * 9999]
)
def test_what_is_no_json(apis, body) -> None:
    answer = apis["als"].send("POST", "/v1/recommend", body, None)
    assert answer.status in (400, 422), answer.body
    assert answer.headers["content-type"] == "application/problem+json"


def test_nothing_is_left_to_recommend(apis) -> None:
    assert apis["als"].post("recommend", {"user": USER, "among": []}).json["items"] == []
    assert apis["als"].post("recommend", {"ratings": {}, "among": []}).json["items"] == []
    assert apis["als"].post("predict", {"pairs": []}).json["predictions"] == []


def test_wrong_methods_and_pages(apis) -> None:
    assert said(apis["als"].get("/v1/recommend"), 405) == "Method Not Allowed."
    assert "no page 'x.html'" in said(apis["als"].get("/page/x.html"), 404)
    assert said(apis["als"].get("/page/..%2frun.py"), 404)


# ---- feedback ----------------------------------------------------------------------------------------


def test_new_ratings_move_recommendations_at_once(fed, models) -> None:
    api, store = fed
    before = api.post("recommend", {"user": USER, "n": 5}).json
    best = before["items"][0]["item"]
    kept = api.post("ratings", {"ratings": [{"user": USER, "item": best, "rating": 0.5}]})
    assert (kept.status, kept.json["accepted"]) == (201, 1)
    after = api.post("recommend", {"user": USER, "n": 5}).json
    assert (before["from"], after["from"]) == ("model", "feedback")
    assert best not in [row["item"] for row in after["items"]]
    trained = dict(models["bpmf"].rated_by(USER).select("item", "rating").iter_rows())
    expected = models["bpmf"].recommend_for({**trained, best: 0.5}, 5)
    assert [row["item"] for row in after["items"]] == expected["item"].to_list()
    pair = {"pairs": [{"user": USER, "item": ITEM}]}
    expected_rating = api.post("predict", {"ratings": {**trained, best: 0.5}, "items": [ITEM]}).json
    assert api.post("predict", pair).json["predictions"][0]["predicted"] == pytest.approx(
        expected_rating["predictions"][0]["predicted"]
    )
    assert store.count() == 1


def test_a_new_user_begins_with_feedback(fed) -> None:
    api, _ = fed
    said(api.post("recommend", {"user": 5000}), 404)
    nothing = api.post("recommend", {"user": 5000, "unknown": "fallback"}).json
    assert nothing["from"] == "nothing"
    assert nothing["items"] == api.post("recommend", {"ratings": {}}).json["items"]
    api.post("ratings", {"ratings": [{"user": 5000, "item": ITEM, "rating": 5}]})
    new = api.post("recommend", {"user": 5000, "intervals": True}).json
    same = api.post("recommend", {"ratings": {str(ITEM): 5}, "intervals": True}).json
    assert new["items"] == same["items"]
    assert api.post("explain", {"user": 5000, "item": 18}).json["reasons"][0]["item"] == ITEM


def test_writes_are_idempotent(fed) -> None:
    api, store = fed
    body = {"ratings": [{"user": USER, "item": ITEM, "rating": 4}, {"user": "101", "item": "18", "rating": 3}]}
    answers = [api.post("ratings", body, headers={"Idempotency-Key": "one"}) for _ in range(3)]
    # the time is the server's own where none was sent: the same write all the same
    assert [answer.status for answer in answers] == [201, 200, 200]
    assert [answer.json["repeated"] for answer in answers] == [False, True, True]
    body["ratings"][0]["rating"] = 5
    assert "used before" in said(api.post("ratings", body, headers={"Idempotency-Key": "one"}), 409)
    assert store.count() == 2
    found = api.get("/v1/users/101/ratings").json
    assert found["ratings"] == {"11": 4.0, "18": 3.0}
    assert len(found["audit"]) == 2


def test_what_may_not_be_kept(fed) -> None:
    api, store = fed
    rating = {"user": USER, "item": ITEM, "rating": 4}
    assert "on the scale" in said(api.post("ratings", {"ratings": [rating, {**rating, "rating": 7}]}), 422)
    assert "new_items=true" in said(api.post("ratings", {"ratings": [{**rating, "item": 999}]}), 404)
    assert "in the future" in said(api.post("ratings", {"ratings": [{**rating, "time": 2**60}]}), 422)
    assert "body.ratings" in said(api.post("ratings", {"ratings": []}), 422)
    assert store.count() == 0
    assert api.post("ratings", {"ratings": [{**rating, "item": 999}], "new_items": True}).status == 201
    assert store.count() == 1


def test_a_database_that_fails_is_said_and_does_not_end_the_server(fed) -> None:
    api, store = fed
    with store._writing.begin() as connection:
        connection.execute(sa.text("DROP TABLE gramian_ratings"))
    assert "The feedback database" in said(api.post("recommend", {"user": USER}), 503)
    assert "failed" in said(api.post("ratings", {"ratings": [{"user": USER, "item": ITEM, "rating": 4}]}), 503)
    assert api.post("recommend", {"ratings": {str(ITEM): 5}}).status == 200


def test_another_server_on_the_same_database_is_seen(files, where) -> None:
    settings = Limits(rate=0, history_seconds=0.05)
    with api_of(files["als"], settings, feedback=Feedback(Store(where), settings)) as api:
        assert api.post("recommend", {"user": USER}).json["from"] == "model"
        other = Store(where)
        from gramian.serve.store import Given

        other.add([Given(str(USER), str(ITEM), 5.0, 1)])
        other.close()
        time.sleep(0.1)
        assert api.post("recommend", {"user": USER}).json["from"] == "feedback"


# ---- who may, and how much --------------------------------------------------------------------------


def test_keys_and_roles(files, tmp_path) -> None:
    settings = Limits(keys=True, rate=0)
    store = Store(str(tmp_path / "feedback.db"))
    secrets = {role: store.create_key(role, role) for role in ("read", "write", "admin")}
    headers = {role: {"Authorization": f"Bearer {secret}"} for role, secret in secrets.items()}
    rating = {"ratings": [{"user": USER, "item": ITEM, "rating": 4}]}
    with api_of(files["als"], settings, feedback=Feedback(store, settings)) as api:
        refused = api.post("recommend", {"user": USER})
        assert "needs an API key" in said(refused, 401)
        assert refused.headers["www-authenticate"] == "Bearer"
        said(api.post("recommend", {"user": USER}, headers={"Authorization": "Bearer gk_guess"}), 401)
        said(api.get("/metrics"), 401)
        assert api.get("/v1/health").status == 200
        assert api.get("/").status == 200
        assert api.post("recommend", {"user": USER}, headers=headers["read"]).status == 200
        assert "its role is 'read', 'write' is needed" in said(
            api.post("ratings", rating, headers=headers["read"]), 403
        )
        assert api.post("ratings", rating, headers=headers["write"]).status == 201
        said(api.post("reload", None, headers=headers["write"]), 403)
        assert api.post("reload", None, headers=headers["admin"]).json["changed"] is False
        audit = api.get(f"/v1/users/{USER}/ratings", headers=headers["read"]).json["audit"]
        assert audit[0]["key"] == "write"


def test_rates_are_limited(files) -> None:
    with api_of(files["als"], Limits(rate=0.5, burst=4)) as api:
        answers = [api.post("recommend", {"user": USER}) for _ in range(6)]
        assert "rate limit" in said(answers[-1], 429)
        assert int(answers[-1].headers["retry-after"]) >= 1


def test_bodies_are_limited(files) -> None:
    with api_of(files["als"], Limits(rate=0, body_bytes=1000)) as api:
        text = said(api.post("recommend", {"user": "1" * 2000}), 413)
        assert text == "The body is too large: the most is 1,000 bytes; send it in parts."

        def chunks() -> Iterator[bytes]:
            yield b'{"user": "'
            for _ in range(100):
                yield b"1" * 100

        said(api.send("POST", "/v1/recommend", chunks(), {"Transfer-Encoding": "chunked"}), 413)


def test_what_takes_too_long_is_given_up(files, monkeypatch) -> None:
    from gramian.serve.live import Live

    monkeypatch.setattr(Live, "search", lambda *_: time.sleep(1))
    with api_of(files["als"], Limits(rate=0, request_seconds=0.3, body_seconds=0.1)) as api:
        assert "took too long" in said(api.get("/v1/items?q=x"), 503)
        with socket.create_connection(("127.0.0.1", api.port)) as slow:
            head = f"POST /v1/recommend HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\nContent-Type: application/json\r\n"
            slow.sendall(f"{head}Content-Length: 10\r\n\r\n{{".encode())
            assert slow.recv(1000).startswith(b"HTTP/1.1 408")


def test_other_sites_are_refused(apis) -> None:
    said(apis["als"].get("/v1/model", headers={"Host": "evil.example"}), 403)
    said(apis["als"].get("/v1/model", headers={"Origin": "http://evil.example"}), 403)
    assert apis["als"].get("/v1/model", headers={"Origin": f"http://127.0.0.1:{apis['als'].port}"}).status == 200


def test_a_name_behind_a_proxy(files) -> None:
    with api_of(files["als"], Limits(rate=0, names=("films.example",))) as api:
        proxied = {"Host": "films.example", "Origin": "https://films.example"}
        assert api.get("/v1/model", headers=proxied).status == 200
        said(api.get("/v1/model", headers={**proxied, "Origin": "https://evil.example"}), 403)


def test_headers_of_every_answer(apis) -> None:
    for path in ("/", "/v1/health", "/v1/nothing", "/v1/recommend"):
        headers = apis["als"].get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert (headers["cache-control"] == "no-store") == path.startswith("/v1")


def test_metrics_have_no_ids(apis) -> None:
    apis["als"].post("recommend", {"user": USER})
    apis["als"].get("/v1/items/11/similar")
    text = apis["als"].get("/metrics").body.decode()
    assert 'gramian_requests_total{method="POST",route="/v1/recommend",status="200"}' in text
    assert 'route="/v1/items/{item}/similar"' in text
    assert f'"{USER}"' not in text


# ---- starting, reloading, waiting ------------------------------------------------------------------


def test_not_ready_before_the_kernels_are_compiled(files, monkeypatch) -> None:
    from gramian.serve.live import Live

    warm, go = Live.warm, threading.Event()
    monkeypatch.setattr(Live, "warm", lambda self: (go.wait(30), warm(self)))
    api = api_of(files["als"])
    api.start()
    try:
        assert "is starting" in said(api.get("/v1/ready"), 503)
        assert "is starting" in said(api.post("recommend", {"user": USER}), 503)
        assert api.get("/v1/health").status == 200
        go.set()
        for _ in range(600):
            if api.get("/v1/ready").status == 200:
                break
            time.sleep(0.05)
        assert api.post("recommend", {"user": USER}).status == 200
    finally:
        go.set()
        api.__exit__()


def test_a_damaged_file_leaves_the_old_model_serving(files, tmp_path) -> None:
    path = tmp_path / "served.gramian"
    path.write_bytes(Path(files["als"]).read_bytes())
    with api_of(str(path)) as api:
        before = api.post("recommend", {"user": USER}).json
        whole = path.read_bytes()
        path.write_bytes(whole[:-9])
        assert "damaged" in said(api.post("reload", None), 409)
        assert api.post("recommend", {"user": USER}).json == before
        path.unlink()
        assert "There is no model file" in said(api.post("reload", None), 422)
        path.write_bytes(Path(files["bpmf"]).read_bytes())
        answer = api.post("reload", None).json
        assert answer["changed"] is True
        assert answer["model"] != before["model"]
        assert api.get("/v1/model").json["recipe"]["name"] == "bpmf"


def test_what_waits_is_bounded() -> None:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    go, sizes = threading.Event(), []

    def compute(asked: list[int]) -> list[int]:
        sizes.append(len(asked))
        go.wait(30)
        return [2 * one for one in asked]

    async def run() -> list[Any]:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(compute, pool, most=4, waiting=8)
            calls = [asyncio.create_task(batcher.ask(k)) for k in range(12)]
            await asyncio.sleep(0.1)
            go.set()
            return await asyncio.gather(*calls, return_exceptions=True)

    found = asyncio.run(run())
    assert found[:9] == [2 * k for k in range(9)]  # one at work, eight waiting
    assert all(isinstance(one, Problem) and one.status == 503 for one in found[9:])
    assert sizes == [1, 4, 4]
