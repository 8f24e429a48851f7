"""Seconds of GRPO from the same weights to the same held-out accuracy on Countdown: Spoutnik against TRL's GRPOTrainer.

Both sides begin with a student after its cold start (time_to_accuracy.yaml, two minutes; or --start), draw prompts from the
same pool, sample groups of equal size to the same length, get the same rewards (right and well-formed: 1) from the same
verifier, and take AdamW steps (without decay, at a constant learning rate, for TRL also others: --peer-lr) on the same loss
(DAPO's, advantages not divided by their deviation). Every few steps the weights of now answer held-out problems greedily in
our engine; that time does not count, nor does what comes before the first step. TRL runs with the settings that were fastest
of all we tried, and with its own defaults for batch size and attention, as in grpo_vs_trl.py; it is given up at --give-up
times our seconds. The limit is the time of the matrix products of our steps. Needs the peers' environment: `make peers`.

    python benchmarks/time_to_accuracy.py [--target 0.43] [--only ours] [--peer-lr 1e-4 3e-4]
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "1024")

import torch
from common import machine, print_result
from grpo_vs_trl import DTYPE, PEER_PYTHON, PRECISION, limit_seconds

from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.loading import load_tokenizer
from spoutnik.model.transformer import Transformer
from spoutnik.model.weights import load_model
from spoutnik.parallel import cores
from spoutnik.tasks import FAMILIES, Problem, accuracy_reward
from spoutnik.text.thought import read_reply
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.grpo import policy_batches, policy_gradient
from spoutnik.train.grpo_settings import GRPOSettings
from spoutnik.train.prompt_style import conversation_ids
from spoutnik.train.rewards import Rollouts
from spoutnik.train.rollouts import rollout_llm, sample_problems

HERE = Path(__file__).parent
RECIPE = HERE / "time_to_accuracy.yaml"
Judge = Callable[[list[list[int]], list[list[int]]], list[float]]  # ids of prompts and completions to rewards


@dataclass
class Course:
    """Of one side's training: per look the step, the seconds of training until then, and the held-out accuracy."""

    target: float
    looks: list[tuple[int, float, float]] = field(default_factory=list)
    completion_tokens: int = 0

    @property
    def arrived(self) -> bool:
        return bool(self.looks) and self.looks[-1][2] >= self.target

    def seconds_to_target(self) -> float | None:
        """Of the first look that reached it."""
        return self.looks[-1][1] if self.arrived else None


class Verifier:
    """Grades completions by ids alone: of a prompt's ids it knows the problem."""

    def __init__(self, tokenizer: Tokenizer, problems: list[Problem]):
        self.tokenizer = tokenizer
        self.prompts = [conversation_ids((), problem.prompt, tokenizer) for problem in problems]
        self.problems = {tuple(ids): problem for ids, problem in zip(self.prompts, problems)}

    def __call__(self, prompts: list[list[int]], completions: list[list[int]]) -> list[float]:
        return [self._reward(self.problems[tuple(prompt)], ids) for prompt, ids in zip(prompts, completions, strict=True)]

    def _reward(self, problem: Problem, ids: list[int]) -> float:
        finished = bool(ids) and ids[-1] == self.tokenizer.eos_id
        reply = read_reply(ids[:-1] if finished else ids, self.tokenizer, finished)
        return accuracy_reward(problem, reply.answer) if reply.well_formed else 0.0

    def accuracy(self, model: Transformer, max_tokens: int) -> float:
        """Greedily, one reply to each problem."""
        params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
        outputs = rollout_llm(model, self.tokenizer).generate(self.prompts, params)
        rewards = self(self.prompts, [output.outputs[0].token_ids for output in outputs])
        return sum(rewards) / len(rewards)


def run_ours(folder: Path, pool: Verifier, held_out: Verifier, options: argparse.Namespace) -> Course:
    model, course = load_model(folder, compute_dtype=DTYPE), Course(options.target)
    settings = GRPOSettings(steps=options.steps, learning_rate=options.lr, optimizer="adamw", weight_decay=0.0,
                            prompts_per_step=options.prompts, group_size=options.group, max_tokens=options.max_tokens,
                            share_prompts=True)
    optimizer, seconds = settings.make_optimizer(model), 0.0
    order = random.Random(0).sample(pool.prompts, len(pool.prompts))
    for step in range(1, options.steps + 1):
        began = time.perf_counter()
        prompts = [order[(step * options.prompts + i) % len(order)] for i in range(options.prompts)]
        params = SamplingParams(n=options.group, temperature=1.0, top_p=1.0, max_tokens=options.max_tokens)
        groups = [output.outputs for output in rollout_llm(model, pool.tokenizer).generate(prompts, params, seed=step)]
        rewards = [pool([prompt] * options.group, [c.token_ids for c in group]) for prompt, group in zip(prompts, groups)]
        batches, _ = policy_batches(Rollouts(prompts, groups, torch.tensor(rewards), {}), settings)
        optimizer.step(policy_gradient(model, batches, optimizer.parameters, settings).gradients, 1.0)
        seconds += time.perf_counter() - began
        course.completion_tokens += sum(len(c.token_ids) for group in groups for c in group)
        if step % options.look_every == 0:
            look(course, "ours", step, seconds, held_out.accuracy(model, options.max_tokens))
            if course.arrived:
                break
    return course


def look(course: Course, who: str, step: int, seconds: float, accuracy: float) -> None:
    course.looks.append((step, seconds, accuracy))
    print(f"{who}: step {step}, {seconds:.1f} s, {accuracy:.1%} of the held-out problems", flush=True)


def run_trl(folder: Path, pool: Verifier, held_out: Verifier, options: argparse.Namespace, who: str, rate: float,
            most: float, **choices) -> Course:
    """Answers what TRL's process asks. most: seconds of training, after which it is given up. choices: what is TRL's to
    choose."""
    course = Course(options.target)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OMP")}
    with (tempfile.TemporaryDirectory() as look_dir, tempfile.TemporaryFile("w+") as errors,
          subprocess.Popen([PEER_PYTHON, HERE / "peers" / "trl_grpo.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                           stderr=errors, text=True, env=clean) as peer):
        tell(peer, {"prompts": pool.prompts, "model_dir": str(folder), "judged": True, "look_every": options.look_every,
                    "look_dir": look_dir, "group_size": options.group, "prompts_per_step": options.prompts,
                    "max_completion_length": options.max_tokens, "steps": options.steps, "warmup_steps": 0,
                    "learning_rate": rate, "eos_id": pool.tokenizer.eos_id, "scale_rewards": "none",
                    "threads": cores(), "precision": PRECISION, **choices})
        for line in peer.stdout:
            said = json.loads(line) if line.startswith('{"') else {}  # its trainer prints Python's dicts
            if "judge" in said:
                tell(peer, pool(**said["judge"]))
                course.completion_tokens += sum(map(len, said["judge"]["completions"]))
            elif "look" in said:
                model = load_model(Path(look_dir), compute_dtype=DTYPE)
                look(course, who, said["look"], said["seconds"], held_out.accuracy(model, options.max_tokens))
                tell(peer, not course.arrived and said["seconds"] < most)
        if peer.wait():
            errors.seek(0)
            sys.exit(f"TRL's side failed (is the peers' environment there? make peers):\n{errors.read()[-2000:]}")
    return course


def tell(peer: subprocess.Popen, what: object) -> None:
    peer.stdin.write(json.dumps(what) + "\n")
    peer.stdin.flush()


def cold_start(run: Path) -> Path:
    """The artifact that both sides begin with."""
    subprocess.run([sys.executable, "-m", "spoutnik", "run", RECIPE, "--out", run], check=True, stdout=subprocess.DEVNULL)
    return next(run.glob("artifacts/cold_start-*"))


def main() -> None:
    options = arguments()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        artifact = options.start or cold_start(Path(name) / "run")
        tokenizer, rng = load_tokenizer(artifact), random.Random("time to accuracy")
        task = [FAMILIES["countdown"]]
        pool = Verifier(tokenizer, sample_problems(rng, task, options.prompts * options.steps, "train"))
        held_out = Verifier(tokenizer, sample_problems(rng, task, options.held_out, "held_out"))
        print(f"at the start: {held_out.accuracy(load_model(artifact), options.max_tokens):.1%} of {options.held_out} held-out "
              "problems", flush=True)
        folder = Path(name) / "student"
        subprocess.run([sys.executable, "-m", "spoutnik", "export", artifact, "--format", "hf", "--out", folder], check=True,
                       stdout=subprocess.DEVNULL)
        courses = {"ours": run_ours(folder, pool, held_out, options)}
        if not courses["ours"].arrived:
            sys.exit(f"--target {options.target:.0%} was not reached in {options.steps} steps: nothing to compare. Lower "
                     "it, or give more --steps or another --lr.")
        completions = options.prompts * options.group
        tokens = courses["ours"].completion_tokens
        prompt_tokens = completions * sum(map(len, pool.prompts)) / len(pool.prompts)
        steps = courses["ours"].looks[-1][0]
        limit = sum(limit_seconds(folder, completions, tokens / steps, prompt_tokens)) * steps
        most = options.give_up * courses["ours"].seconds_to_target()
        for who, choices in {"at_its_best": {}, "defaults": {"micro_batch": 8, "attention": "sdpa"}}.items():
            for rate in (options.peer_lr or [options.lr]) if who in options.only else ():
                name_of = f"{who}_lr_{rate:g}"
                courses[name_of] = run_trl(folder, pool, held_out, options, name_of, rate, most, **choices)
    ours = courses.pop("ours")
    own = {"ours": ours.seconds_to_target(), "limit": limit, "unit": "s", "target": options.target,
           "learning_rate": options.lr, "looks": ours.looks}
    print_result([own | {"name": f"time_to_accuracy_vs_trl_{who}", "peer": course.seconds_to_target(),
                         "peer_at_least": course.looks[-1][1] / own["ours"], "peers_looks": course.looks}
                  for who, course in courses.items()] or own | {"name": "time_to_accuracy"})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=float, default=0.43, help="held-out accuracy")
    parser.add_argument("--steps", type=int, default=100, help="at most")
    parser.add_argument("--look-every", type=int, default=5)
    parser.add_argument("--held-out", type=int, default=1000, metavar="PROBLEMS")
    parser.add_argument("--prompts", type=int, default=64, help="of a step")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=224)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--peer-lr", type=float, nargs="+", metavar="RATE", help="TRL's, one after the other [default: ours]")
    parser.add_argument("--give-up", type=float, default=10.0, metavar="TIMES", help="TRL is ended after so many times ours")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="a model to begin with, instead")
    parser.add_argument("--only", nargs="*", choices=["ours", "at_its_best", "defaults"],
                        default=["ours", "at_its_best", "defaults"], help="ours is always run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
