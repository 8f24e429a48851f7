"""What the tests of sharded training do on every rank. All is imported once, then forked.

    python sharded_work.py OUT          the jobs of `JOBS`, one after another, then the runs of `RECIPES`

Rank 0 leaves the result of a job in OUT/NAME-SIZE.json; files lie in OUT/FOLDER.
"""

import hashlib
import json
import os
import random
import signal
import sys
import traceback
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import torch
import torch.distributed as dist
from scale import worlds
from small_recipe import prepared
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from spoutnik.files import write_jsonl
from spoutnik.model.lora import LoraConfig, add_lora
from spoutnik.model.parts import save_divided
from spoutnik.model.transformer import Transformer
from spoutnik.scale.sharding import Sharding, ShardOptions, shard
from spoutnik.train import language_model
from spoutnik.train.batches import Document
from spoutnik.train.loop import Checkpoints, Cost
from spoutnik.train.optimizer import Optimizer
from spoutnik.train.settings import LanguageModelSettings
from spoutnik.world import World, started_in, together

STEPS, FEW = 20, 6
LONG = ("llama", "v3")  # cases of STEPS steps; the others have FEW
PARTS = 4  # micro-batches of a step at least, whoever computes them
# name -> what is trained: the model, its optimizer, LoRA, gradient checkpointing
CASES = {
    "llama": (tiny.LLAMA, "adamw", None, False),
    "qwen3 tied": (tiny.QWEN3 | {"tie_word_embeddings": True}, "muon", None, False),
    "v3": (tiny.DEEPSEEK, "muon", None, False),
    "v2 recomputed": (tiny.V2, "adamw", None, True),
    "llama lora": (tiny.LLAMA, "adamw", LoraConfig(4, 8.0, use_dora=True), False),
    "v3 lora": (tiny.DEEPSEEK, "muon", LoraConfig(4, 8.0, experts=True), True),
}


def documents(step: int) -> list[Document]:
    rng = random.Random(step)
    return [Document([rng.randrange(2, 64) for _ in range(rng.randrange(5, 30))]) for _ in range(7)]


def network(case: str, dtype: torch.dtype = torch.float32) -> Transformer:
    values, _, lora, _ = CASES[case]
    model = tiny.model(values)
    model.compute_dtype = dtype
    return model if lora is None else add_lora(model, lora, torch.Generator().manual_seed(5))


class Training:
    """Steps of a case on a model, divided or not, which can be interrupted."""

    def __init__(self, case: str, model: Transformer):
        _, optimizer, _, recomputed = CASES[case]
        self.model, self.optimizer = model, Optimizer(model, optimizer, 0.01, 0.1, 1.0)
        for group in self.optimizer.parts["adamw"].param_groups:
            group["eps"] = 1e-5  # else a gradient that is 0 but for its rounding moves a weight by the whole learning rate
        self.settings = LanguageModelSettings(learning_rate=0.01, micro_batch_tokens=60, gradient_checkpointing=recomputed)
        self.rows: list[tuple[float, float]] = []
        self.metrics: dict[str, float] = {}

    def run(self, start: int, stop: int) -> list[tuple[float, float]]:
        """(loss, gradient norm) of each step."""
        for step in range(start, stop):
            with patch.object(language_model, "parts", lambda device: PARTS):
                gradient, _ = language_model.language_model_gradient(self.model, documents(step), self.optimizer.parameters,
                                                                     self.settings, step)
            norm = self.optimizer.step(gradient.gradients, 1.0)
            for name, load in gradient.loads.items():
                if self.model.routers[name].biased:
                    self.model.routers[name].move_bias(load, 0.01)
            self.metrics = gradient.metrics
            self.rows.append((gradient.metrics["loss"], norm))
        return self.rows


def alone(case: str, dtype: torch.dtype = torch.float32) -> tuple[list[tuple[float, float]], Transformer]:
    training = Training(case, network(case, dtype))
    return training.run(0, STEPS), training.model


def fingerprint(state: dict[str, Tensor]) -> str:
    return hashlib.sha256(b"".join(state[name].contiguous().numpy().tobytes() for name in sorted(state))).hexdigest()


def divided(model: Transformer, **options) -> Sharding:
    return shard(model, ShardOptions(**options), init_device_mesh("cpu", (dist.get_world_size(),)))


def training_of_all_kinds(folder: Path) -> dict:
    """Losses and norms by case, and by experts' processes; what an expert-parallel step tells of loads."""
    result, size = {}, dist.get_world_size()
    for case in LONG if size > 2 else CASES:
        model = network(case)
        divided(model)
        result[case] = Training(case, model).run(0, STEPS if case in LONG else FEW)
    for ranks, case in [(size, "v3"), (2, "v2 recomputed"), *([(2, "v3 lora")] if size == 2 else [])]:
        model = network(case)
        divided(model, expert_parallel=ranks)
        training = Training(case, model)
        result[f"{case}, experts on {ranks}"] = training.run(0, STEPS if (size, case) == (2, "v3") else FEW)
        result[f"{case}, load on {ranks}"] = training.metrics["max_rank_load"]
    if size == 2:
        model = network("v3", torch.bfloat16)
        sharding = divided(model, expert_parallel=2, parameters=torch.bfloat16)
        training = Training("v3", model)
        result["v3 in bfloat16"] = training.run(0, FEW)
        result["types"] = sorted({str(part.rows.dtype) for part in sharding.parts().values()}
                                 | {str(tensor.dtype) for tensor in training.optimizer.tensors().values()})
    return result


def ordered_sums(folder: Path) -> dict:
    """Fingerprints of weights and losses after a reproducible training."""
    result = {}
    for case in ("llama", "v3"):
        with together(4):
            model = network(case)
            sharding = divided(model)
            rows = Training(case, model).run(0, FEW)
            result[case] = [fingerprint(sharding.whole().state_dict()), rows]
    return result


def save_in_the_middle(folder: Path) -> dict:
    """Half of a training, a checkpoint, an export, and the other half."""
    result = {}
    for case, options in {"v3": {"expert_parallel": 2}, "llama": {}, "llama lora": {}}.items():
        model = network(case)
        divided(model, **options)
        training = Training(case, model)
        training.run(0, FEW // 2)
        Checkpoints(folder / case).save(FEW // 2, model, training.optimizer, [], Cost())
        if "lora" not in case:
            save_divided(folder / case, model)
        result[case] = training.run(FEW // 2, FEW)
    return result


def go_on(folder: Path) -> dict:
    """The other half, from the checkpoint in `folder`, on as many processes as there are now."""
    result = {}
    for case in ("v3", "llama", "llama lora"):
        model = network(case)
        divided(model)
        training = Training(case, model)
        step, _, _ = Checkpoints(folder / case).load(model, training.optimizer)
        result[case] = training.run(step, FEW)
    return result


JOBS = [("training_of_all_kinds", 2, "kinds-2"), ("training_of_all_kinds", 4, "kinds-4"), ("ordered_sums", 1, "sums-1"),
        ("ordered_sums", 2, "sums-2"), ("ordered_sums", 4, "sums-4"), ("save_in_the_middle", 2, "saved"), ("go_on", 4, "saved")]


# Runs of the recipe by this name, and by how many processes.
RECIPES = [("ordered", 1), ("ordered", 2), ("experts", 2)]
ACCEPTED = ("base", "mine", "adapted", "judge", "rl", "distilled", "pairs", "thumbs")
PAIRS = [{"prompt": f"What is {i} + 1?", "chosen": str(i + 1), "rejected": str(i + 2)} for i in range(12)]
THUMBS = [{"prompt": pair["prompt"], "completion": pair[role], "label": role == "chosen"} for pair in PAIRS
          for role in ("chosen", "rejected")]


def recipe(name: str, folder: Path) -> Path:
    """All kinds of training at once: a base with experts, traces, an adapter, a reward model, rewards, preferences."""
    scale = {"ordered": {"shard": True, "virtual_shards": 4},
             "experts": {"shard": True, "expert_parallel": 2, "parameters": "bfloat16", "reproducible": False}}[name]

    def change(values: dict) -> None:
        stages = values["stages"]
        values |= {"scale": scale, "validation": {"problems": 2, "looks": 1}}
        values["models"]["student"] = {key: value for key, value in tiny.DEEPSEEK.items() if key != "vocab_size"} | {
            "num_hidden_layers": 2, "max_position_embeddings": 256}
        stages["mine"] |= {"anchor": {"snippets": 2, "tokens": 8}}
        stages["mine"]["settings"]["epochs"] = 8
        stages["adapted"] = {"kind": "sft", "from": "mine", "file": "traces.jsonl", "adapter": {"rank": 2, "experts": True},
                             "settings": {"epochs": 1, "tokens_per_step": 64, "learning_rate": 1.0e-2, "optimizer": "adamw"}}
        stages["judge"] = {"kind": "reward_model", "from": "mine",
                           "settings": {"steps": 2, "tokens_per_step": 512, "learning_rate": 1.0e-2}}
        stages["rl"] = {"kind": "grpo", "from": "mine", "reward_model": "judge", "settings": {
            "steps": 2, "prompts_per_step": 4, "group_size": 4, "max_tokens": 16, "learning_rate": 1.0e-2,
            "kl_coefficient": 0.1, "general_share": 0.5, "general_from": 0.0}}
        short = {"epochs": 1, "tokens_per_step": 256, "learning_rate": 1.0e-3}
        of_file = {"from": "mine", "held_out_share": 0.3, "settings": short}
        stages["distilled"] = {"kind": "distill", "file": "traces.jsonl"} | of_file
        stages["pairs"] = {"kind": "dpo", "file": "pairs.jsonl", "anchor": {"snippets": 2, "tokens": 8}} | of_file
        stages["thumbs"] = {"kind": "kto", "file": "thumbs.jsonl", "adapter": {"rank": 2}} | of_file

    path = prepared(folder, change)
    for file, rows in (("pairs", PAIRS), ("thumbs", THUMBS)):
        write_jsonl(folder / f"{file}.jsonl", rows)
    return path


def on_rank(job: str, rank: int, size: int, out: Path, folder: str) -> None:
    signal.alarm(300)  # nobody waits for it then
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(str(out / f"{job}-{size}.store"), size), rank=rank, world_size=size)
    with started_in(World(rank, size, 1)), together():
        result = globals()[job](out / folder)
    if rank == 0:
        (out / f"{job}-{size}.json").write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


def main(out: Path) -> int:
    """The exit status: 1 where a process of a job failed, after which no other is begun."""
    for job, size, folder in JOBS:
        (out / folder).mkdir(exist_ok=True)
        children = []
        for rank in range(size):
            if not (pid := os.fork()):
                status = 1
                try:
                    on_rank(job, rank, size, out, folder)
                    status = 0
                except BaseException:
                    print(f"{job}, rank {rank} of {size}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
                finally:
                    os._exit(status)
            children.append(pid)
        while children:
            pid, status = os.wait()
            children.remove(pid)
            if status:
                for other in children:  # which would wait for it
                    os.kill(other, signal.SIGKILL)
                return 1
    cases = []
    for name, size in RECIPES:
        run = f"{name}-{size}"
        arguments = ["run", str(recipe(name, out / run)), "--out", str(out / run / "run")]
        accepted = ACCEPTED if name == "ordered" else ACCEPTED[:3]
        if accepted != ACCEPTED:
            arguments += ["--until", accepted[-1]]
        cases.append({"name": run, "size": size, "work": "command",
                      "arguments": [*arguments, *(f"--accept={stage}" for stage in accepted)]})
    worlds.main(out, cases)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
