"""What the routes call: the model that is served now, its batches, and the feedback that answers are made with."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gramian.data.ratings import Ratings
from gramian.errors import DataError, GramianError, ParameterError, UnknownIdError
from gramian.models.calibration import calibration
from gramian.serve import answers
from gramian.serve.batch import Batcher, Workers
from gramian.serve.feedback import Feedback
from gramian.serve.limits import Limits
from gramian.serve.live import Id, Live, TopAsked
from gramian.serve.problems import Problem
from gramian.serve.schemas import Asked, Explained, GivenRating, Predicted, Rating, Recommended
from gramian.serve.store import Given, Receipt
from gramian.serve.telemetry import Telemetry

__all__ = ["Service"]

log = logging.getLogger("gramian.serve")
FUTURE = 86_400  # seconds that a client's clock may be ahead


class Service:
    """One server's state.

    Args:
        load: Reads the model file; called at the start and for every reload.
        settings: The limits.
        feedback: The store, or None to keep nothing.
        test: Ratings that the model was not trained on, to measure it with.
    """

    def __init__(
        self, load: Callable[[], Live], settings: Limits, feedback: Feedback | None = None,
        test: Ratings | None = None,
    ) -> None:  # fmt: skip
        self.settings, self.feedback, self.test = settings, feedback, test
        self.telemetry = Telemetry()
        self.ready = False
        self.when_ready: Callable[[], object] = lambda: None
        self.measured: dict[str, Any] | None = None
        self.measuring = test is not None
        self._load, self._reloading = load, asyncio.Lock()
        # the batches have a thread of their own: they never wait behind a long request
        self._pools = ThreadPoolExecutor(1, "top"), ThreadPoolExecutor(settings.threads, "work")
        self.workers = Workers(self._pools[1], settings.waiting)
        self._serve(load())

    def _serve(self, live: Live) -> None:
        def compute(asked: list[TopAsked]) -> list[Any]:
            self.telemetry.batch.observe(len(asked))
            return live.top(asked)

        # one assignment: who has taken the old pair goes on with it
        self.current = live, Batcher(compute, self._pools[0], live.most_at_once, self.settings.waiting)
        self.telemetry.loaded.set(live.loaded_at)

    @property
    def live(self) -> Live:
        """The model that is served now."""
        return self.current[0]

    async def start(self) -> None:
        """Compile what requests need, then be ready; then measure, where there are test ratings."""
        try:
            await self.workers.run(self.live.warm)
        except Exception:
            log.exception("The model could not be made ready")
            return
        self.when_ready()
        self.ready = True
        self.telemetry.ready.set(1)
        log.info("ready: model %s", self.live.version)
        await self.measure()

    async def measure(self) -> None:
        """Errors and calibration of the model that is served now."""
        if self.test is None:
            return
        live, test = self.live, self.test

        def measured() -> dict[str, Any]:
            curve = calibration(live.model, test).to_dict() if live.can.intervals else None
            return {"errors": live.model.evaluate(test), "calibration": curve}

        try:
            found = await self.workers.run(measured)
        except (GramianError, Problem) as error:
            log.warning("The model could not be measured: %s", error)
            found = None
        if live is self.live:
            self.measured, self.measuring = found, False

    async def reload(self) -> tuple[str, bool]:
        """Read the model file again and serve it, unless it is damaged; no request is dropped.

        Returns:
            The version that is served now, and whether it is another.

        Raises:
            DataError: There is no file any more; the old model is served on.
            FormatError: It is damaged; the old model is served on.
        """
        async with self._reloading:
            before = self.live.version
            try:
                fresh = await self.workers.run(self._load)
                await self.workers.run(fresh.warm)
            except Exception as error:
                self.telemetry.reloads.labels("refused").inc()
                log.warning("reload refused, model %s is served on: %s", before, error)
                raise
            self._serve(fresh)
            self.measured, self.measuring = None, self.test is not None
            self.telemetry.reloads.labels("done").inc()
            log.info("reloaded: model %s after %s", fresh.version, before)
        asyncio.get_running_loop().create_task(self.measure())
        return fresh.version, fresh.version != before

    def close(self) -> None:
        """Let running work end, and close the store."""
        for pool in self._pools:
            pool.shutdown(wait=True)
        if self.feedback is not None:
            self.feedback.close()

    # ---- answers --------------------------------------------------------------------------------

    async def recommend(self, asked: Recommended) -> tuple[str, str, list[dict[str, Any]]]:
        """The version, where the list comes from, and the list."""
        live, batcher = self.current
        code, history, source = await self._whom(live, asked, asked.unknown)
        if history is not None:
            return live.version, source, await self.workers.run(answers.recommend_new, live, history, asked)
        if asked.order != "mean" or asked.among is not None or asked.exclude:
            return live.version, source, await self.workers.run(answers.recommend_known, live, code, asked)
        rows = await batcher.ask(TopAsked(code, asked.n, not asked.include_seen))
        if asked.intervals:
            rows = await self.workers.run(answers.with_ends, live, code, rows, asked.level)
        return live.version, source, rows

    async def _whom(
        self, live: Live, asked: Asked, unknown: str = "raise"
    ) -> tuple[int, Mapping[Any, float] | None, str]:
        """A user's code, or the ratings to fold in; and where they come from."""
        if (asked.user is None) == (asked.ratings is None):
            raise ParameterError("Say for whom: either 'user', an id, or 'ratings', what somebody new rated.")
        if asked.user is None:
            return -1, asked.ratings, "ratings"
        history = await self.history(live, asked.user)
        if history is not None:
            return -1, history, "feedback"
        if unknown == "fallback" and live.users.get(live.users.typed(asked.user)) < 0:
            return -1, {}, "nothing"
        return live.users.code(asked.user), None, "model"

    async def history(self, live: Live, user: Id) -> dict[Id, float] | None:
        """All that a user rated, in training and since; None without new ratings of known items."""
        if self.feedback is None:
            return None
        typed = live.users.typed(user)
        stored = await self.feedback.of_user(str(typed))
        fresh = {item: value for text, value in stored.items() if (item := _known(live, text)) is not None}
        if not fresh or not live.can.fold_in:
            return None
        code = live.users.get(typed)
        trained = live.trained_on(code) if code >= 0 else {}
        low, high = live.model.scale
        return {item: min(max(value, low), high) for item, value in {**trained, **fresh}.items()}

    async def predict(self, asked: Predicted) -> tuple[str, list[dict[str, Any]]]:
        """The version, and predictions in the order of what was asked."""
        live = self.live
        if asked.pairs is not None and asked.ratings is None and asked.items is None:
            histories = {}
            for user in {pair.user for pair in asked.pairs}:
                history = await self.history(live, user)
                if history is not None:
                    histories[user] = history
            rows = await self.workers.run(answers.predict_pairs, live, asked.pairs, histories, asked)
        elif asked.pairs is None and asked.ratings is not None and asked.items is not None:
            rows = await self.workers.run(answers.predict_items, live, asked)
        else:
            raise ParameterError("Say what to predict: either 'pairs', or 'ratings' of somebody new with 'items'.")
        return live.version, rows

    async def explain(self, asked: Explained) -> dict[str, Any]:
        """The reasons of a prediction."""
        live = self.live
        ratings = await self._all_ratings(live, asked)
        return {"model": live.version, **await self.workers.run(answers.explain, live, ratings, asked)}

    async def _all_ratings(self, live: Live, asked: Asked) -> Mapping[Any, float]:
        code, history, _ = await self._whom(live, asked)
        return live.trained_on(code) if history is None else history

    async def ask_next(self, asked: Asked, n: int) -> dict[str, Any]:
        """What to ask somebody next."""
        live = self.live
        ratings = await self._all_ratings(live, asked)
        return {"model": live.version, "items": await self.workers.run(answers.ask_next, live, ratings, n)}

    async def keep(self, sent: Rating, key_id: int, client_key: str | None) -> Receipt:
        """Keep ratings in the store: all, or none."""
        if self.feedback is None:
            raise Problem("unavailable", "This server keeps no ratings: start it with --db to turn feedback on.")
        given = [self._checked(self.live, one, sent.new_items) for one in sent.ratings]
        receipt = await self.feedback.add(given, key_id, client_key)
        if not receipt.repeated:
            self.telemetry.kept.inc(receipt.count)
        return receipt

    def _checked(self, live: Live, one: GivenRating, new_items: bool) -> Given:
        item = live.items.typed(one.item)
        if live.items.get(item) < 0 and not new_items:
            raise UnknownIdError(
                f"The item {one.item!r} is unknown to the model; correct it, or send new_items=true to keep its "
                "ratings for the next update."
            )
        live.check_rating(one.item, one.rating)
        now = int(time.time())
        if one.time is not None and one.time > now + FUTURE:
            raise DataError(f"A rating's time must not lie in the future: got {one.time}, now is {now}; send seconds.")
        return Given(str(live.users.typed(one.user)), str(item), one.rating, one.time)


def _known(live: Live, text: str) -> Id | None:
    """An item id of the store, if the model knows it."""
    try:
        typed = live.items.typed(text)
    except ParameterError:
        return None
    return typed if live.items.get(typed) >= 0 else None
