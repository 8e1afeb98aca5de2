"""The store as the server uses it: off the event loop, and with a short memory of users and keys."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from gramian.core.plain import Plain
from gramian.serve.batch import Workers
from gramian.serve.limits import Limits
from gramian.serve.store import ApiKey, Given, Receipt, Store

__all__ = ["Feedback", "Remembered"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
KEY_SECONDS = 5.0  # after which a revoked key has certainly lost its worth
KEYS = 1000


class Remembered(Generic[K, V]):
    """The latest values of at most ``most`` keys, each for ``seconds``."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._values: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K) -> tuple[V] | None:
        """The value in a tuple, or None."""
        found = self._values.get(key)
        if found is None or found[0] < time.monotonic():
            return None
        return (found[1],)

    def put(self, key: K, value: V) -> None:
        """Remember a value."""
        now = time.monotonic()
        self._values[key] = (now + self._seconds, value)
        self._values.move_to_end(key)
        while len(self._values) > self._most or next(iter(self._values.values()))[0] < now:
            self._values.popitem(last=False)

    def forget(self, key: K) -> None:
        """Forget one."""
        self._values.pop(key, None)


class Feedback:
    """A store behind threads: one that writes (SQLite lets one write at a time), some that read."""

    def __init__(self, store: Store, settings: Limits) -> None:
        self.store = store
        self._pools = ThreadPoolExecutor(1, "feedback-write"), ThreadPoolExecutor(4, "feedback-read")
        self._writing, self._reading = (Workers(pool, settings.waiting) for pool in self._pools)
        self._histories: Remembered[str, dict[str, float]] = Remembered(settings.histories, settings.history_seconds)
        self._keys: Remembered[str, ApiKey | None] = Remembered(KEYS, KEY_SECONDS)
        self._writes = 0

    async def of_user(self, user: str) -> dict[str, float]:
        """What a user rated, by item, as text."""
        known = self._histories.get(user)
        if known is not None:
            return known[0]
        writes = self._writes
        found = await self._reading.run(self.store.of_user, user)
        if writes == self._writes:  # else it may have been read before a write that has finished since
            self._histories.put(user, found)
        return found

    async def add(self, given: Sequence[Given], key_id: int, client_key: str | None) -> Receipt:
        """Keep ratings; they are on disk when this returns."""

        def write() -> Receipt:
            return self.store.add(given, key_id=key_id, client_key=client_key)

        try:
            return await self._writing.run(write)
        finally:
            self._writes += 1
            for user in {one.user for one in given}:
                self._histories.forget(user)

    async def audit(self, user: str) -> tuple[dict[str, float], list[Plain]]:
        """What holds for a user now, and how it came."""

        def read() -> tuple[dict[str, float], list[Plain]]:
            return self.store.of_user(user), self.store.audit(user)

        return await self._reading.run(read)

    async def key(self, secret: str) -> ApiKey | None:
        """The key with this secret, if it is in use."""
        digest = hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
        known = self._keys.get(digest)
        if known is not None:
            return known[0]
        found = await self._reading.run(self.store.find_key, secret)
        self._keys.put(digest, found)
        return found

    async def check(self) -> None:
        """Raise StoreError unless the database answers."""
        await self._reading.run(self.store.check)

    def close(self) -> None:
        """Finish what is being written, and close."""
        for pool in self._pools:
            pool.shutdown(wait=True)
        self.store.close()
