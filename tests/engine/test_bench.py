"""`spoutnik bench` on tiny models: what it reports fits together, and what it refuses."""

import json
import math

import pytest
import tiny
from cli import spoutnik

from spoutnik.engine.bench import Exactness, bench
from spoutnik.errors import UserError
from spoutnik.model.weights import save_model
from spoutnik.native.bandwidth import read_bandwidth

QUICK = {"batches": (1, 2), "prompt": 32, "tokens": 8, "rounds": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    save_model(folder, tiny.model(tiny.QWEN))
    return folder


def test_reports_rates_memory_and_the_share_of_the_memory_s_speed(folder):
    result = bench(folder, **QUICK)
    assert result.exactness is None and result.prompt_tokens == 32 and set(result.decode_tokens_per_second) == {1, 2}
    assert min(result.prompt_tokens_per_second, *result.decode_tokens_per_second.values()) > 0
    assert result.prompt_tokens_per_second * result.first_token_seconds == pytest.approx(32)
    assert 0 < result.weight_bytes_per_token < result.weight_bytes < result.peak_memory
    assert result.share == pytest.approx(
        result.decode_tokens_per_second[1] * result.weight_bytes_per_token / result.read_bandwidth)


def test_lengths_shrink_to_the_model_s(folder):
    result = bench(folder, batches=(1,), prompt=10_000, tokens=10_000, rounds=1)
    assert result.prompt_tokens == tiny.QWEN["max_position_embeddings"] // 2


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_what_quantisation_costs_is_measured_on_what_the_model_writes(folder, quantize):
    result = bench(folder, quantize=quantize, **QUICK)
    cost = result.exactness
    assert isinstance(cost, Exactness) and cost.tokens >= 100 and "itself" not in cost.text
    assert math.log(cost.quantised_perplexity / cost.perplexity) == pytest.approx(cost.cost, abs=1e-6)
    assert 1 < cost.perplexity <= 2 * tiny.QWEN["vocab_size"] and cost.cost < 1
    assert result.weight_bytes < bench(folder, **QUICK).weight_bytes


def test_the_same_text_costs_the_same_each_time(folder):
    first, second = (bench(folder, quantize="int4", **QUICK).exactness for _ in range(2))
    assert first == second


def test_a_text_without_quantisation_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="--text"):
        bench(folder, text=tmp_path / "text.txt", **QUICK)


def test_the_command_prints_a_table_or_json_and_judges_a_text(run, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("What is 3 + 4 ? 3 plus 4 is 7. " * 20)
    command = ("bench", str(run), "--batch", "1", "--prompt", "16", "--tokens", "4", "--rounds", "1")
    shown = spoutnik(*command)
    assert shown.returncode == 0 and "tokens/s" in shown.stdout and "GB/s" in shown.stdout, shown.stderr
    shown = spoutnik(*command, "--quantize", "int8", "--text", str(text), "--json")
    assert shown.returncode == 0, shown.stderr
    result = json.loads(shown.stdout)
    assert result["quantize"] == "int8" and result["exactness"]["text"] == str(text)
    assert set(result["decode_tokens_per_second"]) == {"1"}
    for wrong, sentence in ((tmp_path / "absent.txt", "cannot be read"), (tmp_path / "short.txt", "too few tokens")):
        (tmp_path / "short.txt").write_text("a")
        shown = spoutnik(*command, "--quantize", "int8", "--text", str(wrong))
        assert shown.returncode == 2 and sentence in shown.stderr and "Traceback" not in shown.stderr, shown.stderr


def test_read_bandwidth_is_that_of_a_memory():
    assert 1e8 < read_bandwidth(64 << 20, 2) < 1e13


def test_read_bandwidth_without_a_compiler(monkeypatch):
    monkeypatch.setattr("spoutnik.native.bandwidth.library", lambda: None)
    assert 1e8 < read_bandwidth(64 << 20, 2) < 1e13
