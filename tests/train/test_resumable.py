"""Generation that is killed between any two steps ends with the same tokens, and costs what was not yet written down."""

import random

import pytest
import tiny

from spoutnik.engine import sampler
from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.train.loop import Checkpoints
from spoutnik.train.resumable import ResumableLLM


class Killed(BaseException):
    pass


def engine(config=tiny.QWEN, **options) -> LLM:
    return LLM(tiny.model(config), eos_token_ids=[1], **options)


def prompts(count: int) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(2, 64) for _ in range(rng.randrange(3, 40))] for _ in range(count)]


def tokens(outputs) -> list:
    return [(c.index, c.token_ids, c.finish_reason) for output in outputs for c in output.outputs]


def logprobs(outputs) -> list[float]:
    return [value for output in outputs for c in output.outputs for value in c.logprobs]


@pytest.mark.parametrize("config", [tiny.QWEN, tiny.DEEPSEEK], ids=["dense", "mla"])
@pytest.mark.parametrize("few", [True, False])
def test_killed_at_any_step_it_ends_with_the_same_tokens(tmp_path, config, few, kernels):
    options = {"max_num_seqs": 5, "max_num_batched_tokens": 32} if few else {}
    params, asked = SamplingParams(n=3, temperature=1.0, top_p=0.9, max_tokens=40), prompts(6)
    whole = engine(config, **options).generate(asked, params, seed=7)
    rng, kills = random.Random(f"{few}"), 0
    for _ in range(60):
        left = (2, 3)[kills] if kills < 2 else rng.randrange(4, 40)  # a call of the native kernels makes many tokens

        def step(new: int, ended: int) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Killed

        llm = ResumableLLM(engine(config, **options), Checkpoints(tmp_path, 0.0))
        try:
            resumed = llm.generate(asked, params, seed=7, on_progress=step)
            break
        except Killed:
            kills += 1
    assert kills > 1 and tokens(resumed) == tokens(whole)
    if sampler.library() is not None:  # the native kernels
        assert logprobs(resumed) == logprobs(whole)
    else:  # torch's products round otherwise for other shapes
        assert logprobs(resumed) == pytest.approx(logprobs(whole), abs=1e-4)


def test_what_is_done_is_not_generated_again_and_other_calls_have_files_of_their_own(tmp_path):
    params, asked = SamplingParams(n=2, max_tokens=12), prompts(3)
    first = ResumableLLM(engine(), Checkpoints(tmp_path, 1e9)).generate(asked, params, seed=1)
    heard = []
    again = ResumableLLM(engine(), Checkpoints(tmp_path, 1e9))
    assert tokens(again.generate(asked, params, seed=1, on_progress=lambda n, ended: heard.append((n, ended)))) == tokens(first)
    assert heard == [(sum(len(c.token_ids) for o in first for c in o.outputs), 6)] and again.llm.core.stats.steps == 0
    again.generate(asked, params, seed=2)
    again.generate(asked[:2], params, seed=1)
    assert again.llm.core.stats.steps > 0 and len(list(tmp_path.glob("*.safetensors"))) == 3


def test_the_time_of_earlier_processes_is_counted(tmp_path):
    params = SamplingParams(max_tokens=8)
    first = ResumableLLM(engine(), Checkpoints(tmp_path, 0.0))
    first.generate(prompts(2), params, seed=0)
    second = ResumableLLM(engine(), Checkpoints(tmp_path, 0.0))
    assert first.spent.seconds == 0 < second.spent.seconds
    second.generate(prompts(2), params, seed=1)
    assert ResumableLLM(engine(), Checkpoints(tmp_path, 0.0)).spent.seconds > second.spent.seconds
