"""GET /metrics for Prometheus, in names like vLLM's: counts and times, nothing of what users write."""

import time
from collections.abc import Iterator
from functools import cache

import prometheus_client
from fastapi import FastAPI, Response
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spoutnik.generation.generation import Generation
from spoutnik.generation.service import GenerationHandle, GenerationService

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
PER_TOKEN = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)
WARNINGS = {"thought_cut": "thought_budget", "circles": "repetition", "unclosed": "unclosed_thought"}  # label -> code


def install(app: FastAPI, service: GenerationService) -> None:
    prometheus_client.disable_created_metrics()  # they would double the lines
    registry = CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    registry.register(EngineCollector(service))
    service.on_end.append(GenerationMetrics(registry).observe)
    app.add_middleware(RequestCounter, registry=registry)

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(prometheus_client.generate_latest(registry), media_type=prometheus_client.CONTENT_TYPE_LATEST)


class RequestCounter:
    """Middleware that counts requests by the route's path, so that clients cannot make up new labels."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry):
        self.app = app
        self._count = Counter("spoutnik:http_requests", "Requests answered", ["endpoint", "status"], registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def counting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                endpoint = getattr(scope.get("route"), "path", "") or "other"
                self._count.labels(endpoint, message["status"]).inc()
            await send(message)

        await self.app(scope, receive, counting_send)


class GenerationMetrics:
    """Counters and histograms that are updated when a generation ends."""

    def __init__(self, registry: CollectorRegistry):
        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"spoutnik:{name}", help, ["model_name", *labels], registry=registry)

        def histogram(name: str, help: str, buckets: tuple) -> Histogram:
            return Histogram(f"spoutnik:{name}", help, ["model_name"], registry=registry, buckets=buckets)

        self.finished = counter("request_success", "Replies that ended, by how", "finished_reason")
        self.prompt = counter("prompt_tokens", "Tokens of prompts, those found in the cache among them")
        self.cached = counter("prompt_tokens_cached", "Tokens of prompts that were in the cache")
        self.generated = counter("generation_tokens", "Tokens generated, thought and answer")
        self.thought = counter("reasoning_tokens", "Tokens of thoughts that the model generated")
        self.warnings = counter("warnings", "Thoughts cut at their budget, in circles, or never closed by the model", "kind")
        self.to_first_token = histogram("time_to_first_token_seconds", "From a reply's start to its first text", SECONDS)
        self.per_token = histogram("time_per_output_token_seconds", "Between tokens after the first", PER_TOKEN)
        self.latency = histogram("e2e_request_latency_seconds", "From a reply's start to its end", SECONDS)
        self._labeled = cache(lambda metric, *labels: metric.labels(*labels))  # the library's own look-up is slow

    def observe(self, handle: GenerationHandle) -> None:
        name, choices, seconds = handle.served.id, handle.job.choices, time.perf_counter() - handle.began
        labeled = self._labeled
        for choice in choices:
            labeled(self.finished, name, choice.finish_reason or "abort").inc()
        labeled(self.prompt, name).inc(len(handle.plan.prompt))
        labeled(self.cached, name).inc(handle.cached_tokens)
        labeled(self.generated, name).inc(sum(choice.generated for choice in choices))
        if isinstance(handle.job, Generation):
            labeled(self.thought, name).inc(sum(choice.thought_tokens for choice in choices))
        for kind, code in WARNINGS.items():
            labeled(self.warnings, name, kind).inc(sum(warning.code == code for warning in handle.warnings))
        labeled(self.latency, name).observe(seconds)
        if handle.first_token_seconds is not None:
            labeled(self.to_first_token, name).observe(handle.first_token_seconds)
            longest = max(choice.generated for choice in choices)
            if longest > 1:
                labeled(self.per_token, name).observe((seconds - handle.first_token_seconds) / (longest - 1))


class EngineCollector(Collector):
    """Gauges read when they are asked for, and the engines' own counters."""

    def __init__(self, service: GenerationService):
        self.service = service

    def collect(self) -> Iterator[Metric]:
        active = GaugeMetricFamily("spoutnik:replies_live", "Replies under way or waiting, all models")
        active.add_metric([], len(self.service.active))
        yield active
        ready = [served for served in list(self.service.models.values())
                 if served.engine_thread is not None and served.base is None]  # an adapter has its base's engine
        for name, help, family_type, value in ENGINE_METRICS:
            family = family_type(f"spoutnik:{name}", help, labels=["model_name"])
            for served in ready:
                family.add_metric([served.id], value(served.llm.core, served.engine_thread))
            yield family


ENGINE_METRICS = [
    ("num_requests_running", "Sequences in the batch", GaugeMetricFamily,
     lambda core, _: len(core.scheduler.prefilling) + len(core.scheduler.decoding)),
    ("num_requests_waiting", "Sequences that wait for a place in it", GaugeMetricFamily,
     lambda core, _: len(core.scheduler.waiting)),
    ("kv_cache_blocks_used", "Blocks of the cache in use", GaugeMetricFamily,
     lambda core, _: core.scheduler.pool.num_blocks - core.scheduler.pool.num_free_blocks),
    ("kv_cache_blocks", "Blocks of the cache", GaugeMetricFamily, lambda core, _: core.scheduler.pool.num_blocks),
    ("num_preemptions", "Sequences that gave their blocks back to others", CounterMetricFamily,
     lambda core, _: core.stats.preemptions),
    ("spec_decode_num_draft_tokens", "Tokens drafted", CounterMetricFamily, lambda core, _: core.stats.drafted),
    ("spec_decode_num_accepted_tokens", "Drafts that were right", CounterMetricFamily, lambda core, _: core.stats.accepted),
    ("engine_steps", "Steps of the engine", CounterMetricFamily, lambda core, _: core.stats.steps),
    ("engine_busy_seconds", "Time in which there was work; its rate is the share of time", CounterMetricFamily,
     lambda _, thread: thread.busy_seconds),
    ("engine_step_seconds", "Time in the engine's steps; the rest of the busy time is the server's own", CounterMetricFamily,
     lambda _, thread: thread.step_seconds),
    ("engine_cpu_seconds", "Processor time of the thread that computes", CounterMetricFamily,
     lambda _, thread: thread.cpu_seconds),
    ("engine_step_cpu_seconds", "Processor time of that thread in the engine's steps", CounterMetricFamily,
     lambda _, thread: thread.step_cpu_seconds),
]
