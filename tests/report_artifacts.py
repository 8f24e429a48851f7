"""Hand-made artifacts of a whole run, and its report: for tests of tables and pages."""

import os
from pathlib import Path

from spoutnik.files import write_json, write_jsonl
from spoutnik.recipe.artifacts import Artifact
from spoutnik.recipe.report import write_report

FAMILIES = ["countdown", "arithmetic", "equations", "bases", "letters", "ordering", "liars", "calendar"]
HOSTILE = '<script>alert("x")</script> & \x0e\x1b[31m'
RECIPE = "name: toy  # <b>bold</b>\nstages: {}\n"


def evaluation(accuracy: float, thought_tokens: float = 40.0, spread: float = 0.05, style: str = "chat") -> dict:
    def interval(mean: float, half: float) -> dict:
        return {"mean": mean, "low": max(0.0, mean - half), "high": min(1.0, mean + half), "problems": 48,
                "samples": 96}

    families = {name: interval(min(1.0, accuracy + 0.02 * i), 2 * spread) for i, name in enumerate(FAMILIES)}
    result = {"accuracy": interval(accuracy, spread), "families": families, "thought_tokens": thought_tokens,
              "well_formed": 0.9 + accuracy / 20, "language_consistency": 0.97, "reflections_per_thought": accuracy / 2,
              "tokens": 5000, "bill": {"seconds": 9.0, "core_seconds": 17.0, "tokens_generated": 5000},
              "protocol": {"problems_per_family": 48, "samples": 2, "temperature": 0.6, "top_p": 0.95,
                           "max_tokens": 224, "prompt_style": style}}
    return result if style == "forum" else result | {"helpfulness": 0.5, "dialogues": interval(0.6, spread)}


def samples(stage: str, correct: bool) -> list[dict]:
    return [{"task": family, "problem": f"{family}-{i}", "sample": sample, "level": 1, "language": "fr" if i % 2 else "en",
             "prompt": f"Problem {i} of {family}?", "gold": str(i), "thought": f"{stage} thinks {HOSTILE}\nWait, let me check.",
             "answer": f"{stage} says {i}", "correct": float(correct), "well_formed": True}
            for family in FAMILIES for i in range(4) for sample in range(2)]


def rl_log(steps: int) -> list[dict]:
    return [{"step": s, "seconds": 2.0 * s, "lr": 1e-3, "loss": 0.0, "grad_norm": 0.1, "reward": 0.5 + s / 100,
             "accuracy": 0.3 + (s * 37 % 11 - 5) / 60 + s / 150, "thought_tokens": 40.0 + s,
             "reflections": 0.2 + s / 60, "entropy": 0.4 - s / 300, "mismatch_kl": 1e-4 * (1 + s % 3),
             "zero_variance": 0.3, "truncated": 0.05} for s in range(steps)]


def loss_log(steps: int) -> list[dict]:
    return [{"step": s, "seconds": float(s), "lr": 1e-3, "loss": 1.0 + 5.0 / (1 + s / 20) + (s * 7919 % 13) / 100,
             "grad_norm": 1.0} for s in range(steps)]


def artifact(root: Path, stage: str, kind: str, log: list[dict] = (), judged: dict | None = None, right: bool = False,
             inputs: dict[str, str] | None = None, metrics: dict | None = None) -> Artifact:
    folder = root / "artifacts" / f"{stage}-0123456789ab"
    manifest = {"stage": stage, "key": f"{stage}-key".ljust(64, "0"), "kind": kind,
                "content": f"{stage}-made".ljust(64, "0"), "code_version": "0.1.0+abc", "torch": "2.0", "seed": 3,
                "settings": {}, "metrics": metrics or {},
                "inputs": {role: {"stage": name, "content": f"{name}-made".ljust(64, "0")}
                           for role, name in (inputs or {}).items()},
                "bill": {"seconds": 100.0, "core_seconds": 190.0, "tokens_trained": 12000, "tokens_generated": 345,
                         "tokens_wasted": 67, "peak_memory_bytes": 900 * 2**20},
                "machine": {"cores": 2, "cpu": "Test <CPU>", "system": "Linux"}}
    write_json(folder / "manifest.json", manifest)
    os.utime(folder / "manifest.json", (1.8e9, 1.8e9))
    if log:
        write_jsonl(folder / "log.jsonl", list(log))
    if judged is None:
        return Artifact(stage, folder, manifest)
    apart = root / "evaluations" / folder.name
    write_json(apart / "evaluation.json", judged)
    write_jsonl(apart / "samples.jsonl", samples(stage, right))
    return Artifact(stage, folder, manifest, apart)


def whole_run(root: Path, final: float = 0.74) -> list[Artifact]:
    """The nine stages of recipes/nano.yaml."""
    return [
        artifact(root, "base", "pretrain", loss_log(1200), evaluation(0.20, 30, style="forum")),
        artifact(root, "student_base", "pretrain", loss_log(60), evaluation(0.10, 30, style="forum")),
        artifact(root, "cold_start", "sft", loss_log(90), evaluation(0.37, 42), inputs={"start": "base"}),
        artifact(root, "reasoning_rl", "grpo", rl_log(60), evaluation(0.71, 88), True, {"start": "cold_start"}),
        artifact(root, "rejection", "reject", inputs={"start": "reasoning_rl"},
                 metrics={"sampled": 4096, "kept": 1270, "kept_share": 1270 / 4096}),
        artifact(root, "second_sft", "sft", loss_log(90), evaluation(0.66, 80), True,
                 {"start": "base", "traces": "rejection"}),
        artifact(root, "reward_model", "reward_model", loss_log(30), inputs={"start": "second_sft"},
                 metrics={"held_out_pair_accuracy": 0.953}),
        artifact(root, "all_scenarios_rl", "grpo", rl_log(30), evaluation(final, 84), True,
                 {"start": "second_sft", "reward_model": "reward_model"}),
        artifact(root, "distilled", "distill", loss_log(90), evaluation(0.52, 79), False,
                 {"start": "student_base", "traces": "rejection"}),
    ]


ORIGINS = {"base": "prebuilt", "student_base": "prebuilt", "cold_start": "made now", "reasoning_rl": "made now",
           "rejection": "made now", "second_sft": "made now", "reward_model": "made now",
           "all_scenarios_rl": "made now", "distilled": "made now"}


def report_of(root: Path, artifacts: list[Artifact], name: str = "report.html") -> str:
    write_report(root / name, "toy", RECIPE, artifacts, ORIGINS)
    return (root / name).read_text(encoding="utf-8")
