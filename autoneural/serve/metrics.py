"""Figures for Prometheus: counts and times, never names or texts of clients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from autoneural.serve.models import Models
from autoneural.serve.worker import Finished

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self, models: Models) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_State(models))
        model = ("model",)
        counts = {
            "prompt": "Prompt tokens",
            "cached": "Prompt tokens that were not computed again",
            "completion": "Tokens of answers",
        }
        self._tokens = {
            name: Counter(f"autoneural_{name}_tokens", text, model, registry=self._registry)
            for name, text in counts.items()
        }
        self._images = Counter(
            "autoneural_images_encoded", "Pictures encoded", model, registry=self._registry
        )
        self._requests = Counter(
            "autoneural_requests",
            "Requests for answers, by how they ended: ok, gone (the client left), or a status",
            ("model", "end"),
            registry=self._registry,
        )
        self._first = Histogram(
            "autoneural_time_to_first_token_seconds",
            "From the arrival of a request to its first token",
            model,
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._rate = Histogram(
            "autoneural_decode_tokens_per_second",
            "Speed of decoding, per answer",
            model,
            buckets=_RATES,
            registry=self._registry,
        )

    def ended(self, model: str, end: str) -> None:
        """A request for answers is over."""
        self._requests.labels(model, end).inc()

    def answered(self, model: str, finished: Sequence[Finished]) -> None:
        """Count the answers of a request."""
        for each in finished:
            result = each.result
            self._tokens["prompt"].labels(model).inc(result.usage.prompt_tokens)
            self._tokens["cached"].labels(model).inc(result.usage.cached_tokens)
            self._tokens["completion"].labels(model).inc(result.usage.completion_tokens)
            self._images.labels(model).inc(result.timings.image_n)
            rate = result.timings.to_dict()["predicted_per_second"]
            if rate is not None:
                self._rate.labels(model).observe(rate)
        if finished and finished[0].result.timings.ttft_ms is not None:
            self._first.labels(model).observe(finished[0].result.timings.ttft_ms / 1e3)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self._registry)


class _State(Collector):
    """What holds right now, read when it is asked for."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """One gauge per kind of state, one sample per model."""
        states = {
            "requests_in_flight": ("Waiting, computed or being sent", lambda s: s.requests),
            "requests_waiting": ("Waiting for their turn", lambda s: s.worker.waiting),
            "busy": ("1 while an answer is computed", lambda s: s.worker.busy),
            "loaded": ("1 while the model is in memory", lambda s: s.worker.loaded),
            "memory_bytes": (
                "What the model counts as of --memory-budget while it is in memory",
                lambda s: s.worker.size * s.worker.loaded,
            ),
        }
        for name, (text, value) in states.items():
            gauge = GaugeMetricFamily(f"autoneural_{name}", text, labels=["model"])
            for served in self._models:
                gauge.add_metric([served.name], float(value(served)))
            yield gauge
