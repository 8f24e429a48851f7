"""vLLM inside of a rollout worker, on its GPUs: written from vLLM's documentation, and not run yet (no GPU was at hand).

The weights come as to our own engine, checked by the same checksums, and go through a file in shared memory into vLLM's own
`load_weights`. vLLM's tokens depend on its batches and its version, so a run with it does not repeat to the byte. Its
probabilities differ from the trainer's by rounding, which each step measures (`mismatch_kl`), as it would show weights that
vLLM loaded wrongly.
"""

import importlib
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch

from spoutnik.engine.outputs import CompletionOutput
from spoutnik.engine.sampler import row_seed
from spoutnik.errors import RunError
from spoutnik.files import write_json
from spoutnik.model.lora import merged_copy
from spoutnik.model.weights import load_tensors, published_parts, published_tensors, save_tensors
from spoutnik.scale.policy import Policy, build_policy
from spoutnik.scale.rollout_worker import Work
from spoutnik.scale.weight_updates import ReceivedWeights

_SHARED = Path("/dev/shm")


class LoadsPolicy:
    """What vLLM's own workers can do besides (its `worker_extension_cls`): each reads the weights and takes its part."""

    def load_policy(self, file: str) -> None:
        self.model_runner.model.load_weights(weights=load_tensors(Path(file)).items())


class VLLMEngine:
    """A `WorkerEngine`. gpus: over which the model is divided (tensor parallelism)."""

    def __init__(self, policy: Policy, gpus: int):
        try:
            vllm = importlib.import_module("vllm")
        except ImportError as error:
            raise RunError("scale.rollout_engine: vllm is not installed on a worker's machine. Install it there (pip install "
                           "'spoutnik[vllm]'), or leave rollout_engine out.") from error
        self.policy, self._vllm, self._numbers = policy, vllm, count()
        self._folder = tempfile.TemporaryDirectory(dir=_SHARED if _SHARED.is_dir() else None)
        write_json(Path(self._folder.name) / "config.json", policy.config.published())
        self._llm = vllm.LLM(model=self._folder.name, load_format="dummy", skip_tokenizer_init=True, tensor_parallel_size=gpus,
                             dtype=str(policy.dtype).removeprefix("torch."), logprobs_mode="processed_logprobs",
                             worker_extension_cls=f"{__name__}.{LoadsPolicy.__name__}", disable_log_stats=True)

    def load(self, weights: ReceivedWeights) -> None:
        file = Path(self._folder.name) / "policy.safetensors"
        save_tensors(file, self._published(weights))
        self._llm.collective_rpc("load_policy", args=(str(file),))
        self._llm.reset_prefix_cache()  # what it holds is of the weights before
        file.unlink()

    def _published(self, weights: ReceivedWeights) -> dict[str, torch.Tensor]:
        """By the names of published checkpoints, adapters summed with their base."""
        config = self.policy.config
        if self.policy.scales:
            return dict(published_tensors(merged_copy(build_policy(self.policy, weights.tensors), self.policy.dtype)))
        return {published: tensor[index] for name, tensor in weights.tensors.items() if not name.startswith("mtp.")
                for published, index in published_parts(name, config)}

    def sample(self, work: Work, on_step: Callable[[], None]) -> list[list[CompletionOutput]]:
        """Step by step, so that a worker that hangs is told from one that works long."""
        engine, requests = self._llm.llm_engine, {}
        for number, prompt in zip(work.numbers, work.prompts):
            requests[name := f"rollout-{next(self._numbers)}"] = number
            engine.add_request(name, {"prompt_token_ids": prompt}, self._params(work, number))
        done = {}
        while engine.has_unfinished_requests():
            done |= {requests[output.request_id]: output.outputs for output in engine.step() if output.finished}
            on_step()
        return [[_completion(each) for each in sorted(done[number], key=lambda each: each.index)] for number in work.numbers]

    def _params(self, work: Work, number: int) -> object:
        params = work.params
        return self._vllm.SamplingParams(
            n=params.n, temperature=params.temperature, top_p=params.top_p, max_tokens=params.max_tokens, logprobs=0,
            seed=row_seed(work.seed, number, 0), stop_token_ids=list(self.policy.end_ids), detokenize=False,
            output_kind=self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY)


def _completion(output: object) -> CompletionOutput:
    ids = list(output.token_ids)
    logprobs = [at[token].logprob for token, at in zip(ids, output.logprobs)]
    return CompletionOutput(output.index, "", ids, logprobs, finish_reason=output.finish_reason)
