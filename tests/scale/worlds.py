"""Processes that work on one run, for tests: imported once, then forked, so that ten of them cost little more than one.

    python worlds.py OUT PLAN.json      PLAN: a list of {"name", "size", "work", ...}; all of them run at the same time

Rank R of NAME leaves its results in OUT/NAME-R.json, what it prints in OUT/NAME-R.txt and its exit status in OUT/NAME-R.status.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # as commands/main.py does
sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import torch

from spoutnik.commands import main as command_line
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError
from spoutnik.model.lora import LoraConfig, add_lora
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import save_tensors
from spoutnik.scale.launch import run_together
from spoutnik.tasks import FAMILIES
from spoutnik.tasks.catalog import find_tasks
from spoutnik.train import rewards
from spoutnik.train.dpo import DPOSettings, dpo
from spoutnik.train.grpo import grpo
from spoutnik.train.grpo_settings import GRPOSettings
from spoutnik.train.kto import KTOSettings, kto
from spoutnik.train.loop import Checkpoints, of_all_ranks
from spoutnik.train.preferences import Pair, Thumb
from spoutnik.train.pretrain import PretrainSettings, pretrain
from spoutnik.train.resumable import ResumableLLM
from spoutnik.train.reward_model import RewardModel, RewardModelSettings, score_answers, train_reward_model
from spoutnik.train.rollouts import GradedCompletion, PolicyEngine, Reply, rollout_llm
from spoutnik.train.sft import trace_document
from spoutnik.world import pulse, team, together, world

STEPS = 20


def content(model) -> str:
    return sha256(b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())).hexdigest()


def rows(log: list[dict]) -> list[dict]:
    return [row | {"seconds": 0} for row in log]


def pretrained(folder: Path, shards: int | None) -> tuple[Transformer, list[dict]]:
    """20 steps of a model with experts and a module of multi-token prediction."""
    tokenizer = tiny.tokenizer()
    model = tiny.model(tiny.DEEPSEEK, vocab_size=300, num_hidden_layers=2)
    settings = PretrainSettings(steps=STEPS, tokens_per_step=400, learning_rate=0.02, warmup=2)
    with together(shards):
        log, _ = pretrain(model, tokenizer, list(FAMILIES.values()), settings, 0, "base", Checkpoints(folder, 1e9), tiny.silent)
    return model, log


def even_share(asked, tokenizer, *_, **__) -> list[GradedCompletion]:
    """A judge that likes even token ids: its reward differs inside a group, whatever the model writes."""
    return [GradedCompletion(completion, Reply("", "", False, 0),
                             sum(t % 2 == 0 for t in completion.reply_ids) / max(len(completion.reply_ids), 1), 0.0)
            for _, completion in asked]


def reinforced(folder: Path, adapter: bool) -> tuple[str, list[dict]]:
    tokenizer, judge = tiny.tokenizer(), rewards.grade
    model = tiny.model(tiny.DEEPSEEK, vocab_size=300, max_position_embeddings=512, num_hidden_layers=2)
    if adapter:
        model = add_lora(model, LoraConfig(4, 8.0), torch.Generator().manual_seed(1))
    reference = tiny.model(tiny.DEEPSEEK, vocab_size=300, max_position_embeddings=512, num_hidden_layers=2)
    settings = GRPOSettings(steps=3, prompts_per_step=5, group_size=4, max_tokens=8, learning_rate=0.02, warmup=0,
                            kl_coefficient=0.0 if adapter else 0.1)
    rewards.grade = even_share
    try:
        log, _ = grpo(model, tokenizer, find_tasks(["arithmetic"]), settings, 0, "rl", Checkpoints(folder, 1e9), tiny.silent,
                      reference=reference, engine=PolicyEngine(model, tokenizer))
    finally:
        rewards.grade = judge
    return content(model), rows(log)


def preferred(folder: Path, method: str) -> tuple[str, list[dict]]:
    tokenizer, model = tiny.tokenizer(), tiny.model(tiny.QWEN, vocab_size=300, max_position_embeddings=256)
    documents = [[trace_document({"prompt": f"What is {i}?", "thought": "", "answer": answer}, tokenizer)
                  for answer in (str(i), f"the sum of it is {i}, and the end")] for i in range(6)]
    settings = {"epochs": 1, "tokens_per_step": 300, "learning_rate": 0.01, "micro_batch_tokens": 256}
    if method == "dpo":
        log, _ = dpo(model, [Pair(*pair) for pair in documents], DPOSettings(**settings), 0, "preferred",
                     Checkpoints(folder, 1e9), tiny.silent)
    else:
        thumbs = [Thumb(document, good) for pair in documents for document, good in zip(pair, (True, False))]
        log, _ = kto(model, thumbs, KTOSettings(**settings), 0, "preferred", Checkpoints(folder, 1e9), tiny.silent)
    return content(model), rows(log)


def judged(folder: Path) -> list:
    tokenizer = tiny.tokenizer()
    model = RewardModel(tiny.model(tiny.QWEN, vocab_size=300, max_position_embeddings=256))
    settings = RewardModelSettings(steps=2, tokens_per_step=400, learning_rate=0.01)
    log, _ = train_reward_model(model, tokenizer, settings, 0, "judge", Checkpoints(folder, 1e9), tiny.silent)
    return [content(model), rows(log), score_answers(model, tokenizer, [(f"What is {i}?", str(i)) for i in range(7)])]


def sampled(folder: Path) -> list:
    """Resumable samples of five prompts, three each."""
    tokenizer = tiny.tokenizer()
    llm = ResumableLLM(rollout_llm(tiny.model(tiny.QWEN, vocab_size=300), tokenizer), Checkpoints(folder, 0.0))
    outputs = llm.generate([[5, 6, 7 + i] for i in range(5)], SamplingParams(n=3, max_tokens=9), seed=4)
    return [[(c.token_ids, c.logprobs, c.finish_reason) for c in output.outputs] for output in outputs]


def fixed(folder: Path) -> list:
    model, log = pretrained(folder, 8)
    return [content(model), rows(log)]


def plain(folder: Path) -> dict:
    """Without virtual shards."""
    model, log = pretrained(folder, None)
    if team().is_main:
        save_tensors(folder / "weights.safetensors", model.state_dict())
    return {"losses": [row["loss"] for row in log], "loads": [row["max_load"] for row in log]}


def billed(folder: Path) -> list[int]:
    """Millions of core-seconds that a stage counts in all, after an earlier start had kept one: of training, of sampling."""
    tokenizer, settings = tiny.tokenizer(), PretrainSettings(steps=2, tokens_per_step=200, learning_rate=0.01, warmup=0)
    state = folder / "training" / "checkpoint" / "state.json"
    for start in range(2):
        _, cost = pretrain(tiny.model(tiny.QWEN, vocab_size=300), tokenizer, list(FAMILIES.values()), settings, 0, "base",
                           Checkpoints(folder / "training", 0.0), tiny.silent)
        if start == 0 and world().is_main:
            kept = json.loads(state.read_text())
            state.write_text(json.dumps(kept | {"bill": kept["bill"] | {"core_seconds": 1e6}}))
            save_tensors(folder / "sampling" / "call.safetensors", {"spent": torch.tensor([1.0, 1e6], dtype=torch.float64)})
        world().gather([start])  # nobody reads before that
    spent = ResumableLLM(None, Checkpoints(folder / "sampling")).spent
    return [round(of_all_ranks(each).core_seconds / 1e6) for each in (cost, spent)]


METHODS = {"grpo": lambda folder: reinforced(folder, False), "adapter": lambda folder: reinforced(folder, True),
           "dpo": lambda folder: preferred(folder, "dpo"), "kto": lambda folder: preferred(folder, "kto"),
           "reward_model": judged, "samples": sampled, "billed": billed}


def training(folder: Path, methods: Sequence[str] = tuple(METHODS)) -> dict:
    """What pretraining makes with virtual shards and without, and other methods with them."""
    results = {"fixed": fixed(folder / "fixed"), "plain": plain(folder / "plain")}
    with together(4):
        return results | {name: METHODS[name](folder / name) for name in methods}


def exchanging(case: dict) -> None:
    """Work that goes on until what the case says happens to one rank: `when` pieces of work have been done."""
    for done in range(10_000):
        with together():
            if world().rank == case.get("rank", 1) and done == 20:
                happen(case["happens"])
            pulse.beat()
            if case.get("bare"):  # as sums over divided models are
                torch.distributed.all_reduce(torch.zeros(1))
            else:
                world().gather([done])


def happen(what: str) -> None:
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "error":
        raise RunError("/full/disk: the disk is full while saving. Free some space.")
    elif what == "memory":
        raise MemoryError
    elif what == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif what == "stuck":
        stuck_for_ever()


def stuck_for_ever() -> None:
    while True:
        time.sleep(0.1)


def work(out: Path, case: dict, rank: int) -> int:
    """One process's work; returns its exit status."""
    def do() -> None:
        if case["work"] == "training":
            result = training(out / case["name"], case["methods"])
            (out / f"{case['name']}-{rank}.json").write_text(json.dumps(result))
        elif case["work"] == "same error":
            team().gather([0])
            raise RunError("base: the loss exploded at step 3.")
        else:
            exchanging(case)

    if case["work"] == "command":
        sys.argv = ["spoutnik", *case["arguments"]]
        command_line.main()  # ends the process
        return 0
    identity = {"the recipe's text": "other" if case.get("other") == rank else "same"}
    return run_together(do, do, identity, case.get("timeout", 60.0), out / f"{case['name']}-stacks", lambda text: print(text))


def child(out: Path, case: dict, rank: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(case["size"]), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                   **case.get("environment", {})}
    with open(out / f"{case['name']}-{rank}.txt", "w", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        status = 99
        try:
            status = work(out, case, rank)
        finally:
            sys.stdout.flush()
            os._exit(status)


def free_port() -> int:
    with contextlib.closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def main(out: Path, cases: list[dict]) -> None:
    started = {}
    for case in cases:
        port = free_port()
        for rank in range(case["size"]):
            if case.get("absent") == rank:
                continue
            pid = os.fork()
            if pid == 0:
                child(out, case, rank, port)
            started[pid] = f"{case['name']}-{rank}"
    began = time.monotonic()
    while started:
        pid, status = os.wait()
        name = started.pop(pid)
        (out / f"{name}.status").write_text(f"{os.waitstatus_to_exitcode(status)} {time.monotonic() - began:.1f}")
        case = next(each for each in cases if each["name"] == name.rpartition("-")[0])
        if case.get("happens") == "stopped":  # as a launcher does with what does not end by itself
            for other, its in started.items():
                if its.rpartition("-")[0] == case["name"]:
                    os.kill(other, signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
