"""What Prometheus is told agrees with what happened."""

import asyncio

import httpx
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.generation.completion import CompletionPlan, Completions
from spoutnik.generation.options import GenerationOptions, plan_chat
from spoutnik.serve import metrics

QUESTION = "What is 12 + 30, and what is 7 + 5, and what is the sum of them?"


def figures(text):
    """name and labels -> value"""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name.removeprefix("spoutnik:"), *sorted(sample.labels.values())): sample.value for sample in samples}


async def after(service, *plans):
    """What is told after these replies."""
    app = FastAPI()
    metrics.install(app, service)
    app.get("/v1/models/{name}")(lambda name: name)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
        served = await service.model(None)
        generated = prompts = 0
        for options in plans:
            plan = plan_chat(served.llm, [{"role": "user", "content": QUESTION}], options)
            prompts += len(plan.prompt)
            async with service.generate(served, plan) as handle:
                async for _ in handle:
                    pass
            generated += sum(choice.generated for choice in handle.job.choices)
        for path in ("/v1/models/a", "/v1/models/b", "/nowhere"):
            await http.get(path)
        raw = CompletionPlan([[5, 6, 7]], SamplingParams(max_tokens=4), 0)
        async with service.generate(served, raw, job=Completions) as handle:
            async for _ in handle:
                pass
        generated += sum(choice.generated for choice in handle.job.choices)
        answer = await http.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        await service.close(0)
    return figures(answer.text), generated, prompts


def test_replies_requests_and_engines_are_counted(make_service):
    cut = GenerationOptions(SamplingParams(seed=1), max_tokens=40, max_thinking_tokens=16, detect_loops=False)
    two = GenerationOptions(SamplingParams(seed=2, n=2), max_tokens=20, enable_thinking=False)
    values, generated, prompts = asyncio.run(after(make_service(), cut, two))
    assert values["generation_tokens_total", "tiny"] == generated
    assert values["prompt_tokens_total", "tiny"] == prompts + 3 and values["prompt_tokens_cached_total", "tiny"] > 0
    assert values["reasoning_tokens_total", "tiny"] >= 16 and values["warnings_total", "thought_cut", "tiny"] == 1
    assert values["warnings_total", "circles", "tiny"] == 0
    assert sum(value for (name, *_), value in values.items() if name == "request_success_total") == 4
    assert values["time_to_first_token_seconds_count", "tiny"] == values["e2e_request_latency_seconds_count", "tiny"] == 3
    assert values["http_requests_total", "/v1/models/{name}", "200"] == 2
    assert values["http_requests_total", "404", "other"] == 1
    assert values["replies_live",] == values["num_requests_running", "tiny"] == values["num_requests_waiting", "tiny"] == 0
    assert values["kv_cache_blocks_used", "tiny"] == 0 < values["kv_cache_blocks", "tiny"]
    assert 0 < values["engine_step_seconds_total", "tiny"] <= values["engine_busy_seconds_total", "tiny"]
    assert values["process_resident_memory_bytes",] > 1e6


def test_before_a_model_is_read_there_is_nothing_to_tell_of_it(make_service):
    service = make_service()
    assert [sample for family in metrics.EngineCollector(service).collect() for sample in family.samples if sample.labels] == []
