"""Starting a server: the model or the demonstration's, the store, and uvicorn."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from pathlib import Path

import polars as pl
import pooch
import uvicorn
from threadpoolctl import threadpool_limits

from gramian.data.datasets import load_dataset
from gramian.data.ratings import Ratings
from gramian.data.readers import read_items, read_ratings
from gramian.errors import DataWarning, GramianError, ParameterError, UnknownIdWarning
from gramian.models.bayes.bpmf import BPMF
from gramian.serve.asgi import create_app
from gramian.serve.feedback import Feedback
from gramian.serve.limits import LOOPBACK, Limits
from gramian.serve.live import Live, load_live
from gramian.serve.service import Service
from gramian.serve.store import Store
from gramian.visuals.console import note

__all__ = ["demo_model", "demo_parts", "run", "serve"]

# Threads that compute take turns with the one that answers; Python's 5 ms would be the answers' delay.
TURN_SECONDS = 0.0005
DEMO = BPMF(factors=16, draws=150)


def demo_parts() -> tuple[Ratings, Ratings]:
    """The bundled ratings without a random fifth, and that fifth."""
    return load_dataset("movielens-small").split(0.2, seed=0)


def demo_model() -> Path:
    """The file of the demonstration's model in the user's cache; it is trained at the first call."""
    from gramian import __version__

    folder = Path(os.environ.get("GRAMIAN_DATA") or pooch.os_cache("gramian"))
    path = folder / f"demo-{__version__}.gramian"
    if not path.exists():
        note("Training the demonstration's model on the bundled ratings (once, some seconds) …")
        folder.mkdir(parents=True, exist_ok=True)
        train, test = demo_parts()
        DEMO.fit(train, test, progress=sys.stderr.isatty()).save(path)
    return path


def run(
    model: str | None,
    settings: Limits,
    *,
    port: int = 8000,
    db: str | None = None,
    items: str | None = None,
    test: str | None = None,
) -> None:
    """Serve until a signal comes.

    Raises:
        GramianError: The model, a file or the database cannot be used.
    """
    if db is None and (settings.host not in LOOPBACK or settings.names):
        reached = ", ".join((settings.host, *settings.names))
        raise ParameterError(
            f"A server that others can reach ({reached}) needs API keys, which are kept in a database: give one "
            "with --db, and make a key with gramian keys create."
        )
    path = str(demo_model()) if model is None else model
    table: pl.DataFrame | None = None if items is None else read_items(items)
    held_out = read_ratings(test) if test is not None else (demo_parts()[1] if model is None else None)

    def load() -> Live:
        return load_live(path, table)

    warnings.simplefilter("ignore", UnknownIdWarning)
    warnings.simplefilter("ignore", DataWarning)
    store = None if db is None else Store(db)
    if store is not None and not any(key["revoked_at"] is None for key in store.list_keys()):
        note(f"note: There is no API key yet, so nobody can ask: gramian keys create NAME --db {db}")
    service = Service(load, settings, None if store is None else Feedback(store, settings), held_out)
    serve(service, port)


def serve(service: Service, port: int) -> None:
    """Run uvicorn with a service."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("gramian.serve").setLevel(logging.INFO)
    sys.setswitchinterval(TURN_SECONDS)
    service.when_ready = gc.freeze  # the model is here to stay: the collector need not walk through it
    threadpool_limits(1)  # requests are computed side by side: threads within one would only wait for each other
    host = service.settings.host
    shown = f"[{host}]" if ":" in host else host
    note(f"Serving {service.live.model!r}\nOpen http://{shown}:{port}/ (API: /v1/openapi.json). Ctrl-C ends it.")
    config = uvicorn.Config(
        create_app(service),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        backlog=1024,
        limit_concurrency=4 * service.settings.waiting,
    )
    try:
        uvicorn.Server(config).run()
    except SystemExit as error:
        raise GramianError(
            f"The server could not start at {shown}:{port}: is the port taken? Choose another --port."
        ) from error
