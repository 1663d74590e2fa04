"""What /metrics tells Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

OUTCOMES = {
    400: "refused",
    404: "refused",
    408: "refused",
    413: "refused",
    415: "refused",
    429: "full",
    499: "hung_up",
    503: "stopping",
    504: "late",
}
"""HTTP status -> outcome of a request."""
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The figures of one server, in a registry of its own, so that servers in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        name = "mlx_ddtree"
        registry = self.registry
        self.requests = Counter(
            f"{name}_requests",
            "Requests by outcome: ok, refused (4xx), full (429), late, hung_up, stopping, error",
            ("endpoint", "outcome"),
            registry=registry,
        )
        self.running = Gauge(f"{name}_requests_running", "Requests being decoded", registry=registry)
        self.waiting = Gauge(f"{name}_requests_waiting", "Requests in the queue", registry=registry)
        self.prompt_tokens = Counter(f"{name}_prompt_tokens", "Tokens of prompts", registry=registry)
        self.cached_tokens = Counter(
            f"{name}_cached_tokens", "Tokens of prompts that were in a cache", registry=registry
        )
        where = "where its beginning was: memory, place (states that were gone back to), disk, none"
        self.cache_hits = Counter(f"{name}_prompt_cache_hits", f"Prompts by {where}", ("kind",), registry=registry)
        self.cache_hit_tokens = Counter(
            f"{name}_prompt_cache_hit_tokens",
            f"Tokens of prompts that were in a cache, by {where}",
            ("kind",),
            registry=registry,
        )
        self.disk_bytes = Gauge(f"{name}_prompt_cache_disk_bytes", "Files of --prompt-cache-dir", registry=registry)
        self.generated_tokens = Counter(f"{name}_generated_tokens", "Tokens of answers", registry=registry)
        self.rounds = Counter(
            f"{name}_rounds", "Verifications by kind: draft, lookup, forced, plain, tie", ("kind",), registry=registry
        )
        self.sessions = Gauge(f"{name}_prompt_cache_sessions", "Prompt caches kept", registry=registry)
        self.cache_bytes = Gauge(f"{name}_prompt_cache_bytes", "Memory of the prompt caches", registry=registry)
        self.first_token = Histogram(
            f"{name}_time_to_first_token_seconds",
            "From the request to its first token, waiting included",
            buckets=_SECONDS,
            registry=registry,
        )
        self.duration = Histogram(
            f"{name}_request_seconds", "From the request to its end", buckets=_SECONDS, registry=registry
        )

    def count(self, endpoint: str, outcome: str) -> None:
        self.requests.labels(endpoint, outcome).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
