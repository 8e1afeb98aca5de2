"""What the server counts for Prometheus; no ids of users are in it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Telemetry"]

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Telemetry:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "gramian_requests", "Requests by route and status.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "gramian_request_seconds", "Time to the answer.", ["route"], buckets=SECONDS, registry=self.registry
        )
        self.batch = Histogram(
            "gramian_batch_users",
            "Users whose lists were computed together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self.kept = Counter("gramian_feedback_ratings", "Ratings that were kept.", registry=self.registry)
        self.reloads = Counter(
            "gramian_reloads", "Reloads of the model by outcome.", ["outcome"], registry=self.registry
        )
        self.loaded = Gauge("gramian_model_loaded_seconds", "When the model was read.", registry=self.registry)
        self.ready = Gauge("gramian_ready", "Whether the server is ready.", registry=self.registry)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Everything in Prometheus's text format."""
        return generate_latest(self.registry)
