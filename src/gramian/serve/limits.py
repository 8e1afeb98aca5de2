"""What a server gets at its start: limits, and where it may be reached from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LOOPBACK", "Limits"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Limits:
    """Limits of a server; each bounds what one client can cost the others.

    Attributes:
        host: The address it is bound to.
        names: Names that it may be called by besides those of loopback, behind a proxy say.
        keys: Whether requests need an API key.
        body_bytes: The largest request body.
        body_seconds: How long a body may take to arrive.
        request_seconds: How long an answer may take.
        rate: Requests per second of one key (or address, without keys), 0 for no limit.
        burst: How many may come at once before ``rate`` counts.
        threads: How many requests that need real work are worked on at once.
        waiting: How many requests may wait; more get 503.
        history_seconds: For how long a user's feedback may be answered from memory. Its own writes a server sees at
            once; those of other servers on the same database after so long.
        histories: Of how many users it is remembered.
    """

    host: str = "127.0.0.1"
    names: tuple[str, ...] = ()
    keys: bool = False
    body_bytes: int = 1 << 20
    body_seconds: float = 10.0
    request_seconds: float = 30.0
    rate: float = 200.0
    burst: int = 400
    threads: int = 2
    waiting: int = 512
    history_seconds: float = 2.0
    histories: int = 50_000
