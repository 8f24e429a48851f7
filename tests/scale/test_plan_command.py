"""`spoutnik plan` as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from spoutnik.commands.plan import plan
from spoutnik.errors import RunError, UserError

RECIPE = str(Path(__file__).parents[1] / "recipe" / "tiny.yaml")
LLAMA_405B = str(Path(__file__).parents[2] / "benchmarks" / "planner_configs" / "llama-3.1-405b.json")


def test_a_model_is_planned_without_torch():
    code = ("import sys; from spoutnik.commands.main import app; app(sys.argv[1:], standalone_mode=False); "
            "sys.exit('torch' in sys.modules)")
    shown = subprocess.run([sys.executable, "-c", code, "plan", "deepseek-v3", "--cluster", "gpus=2048,kind=h800,price=2",
                            "--layout", "pipeline=16,expert=64,schedule=zero-bubble,sharding=optimizer", "--train",
                            "tokens=14.8T,batch=15360,precision=fp8,software=deepseek,mtp=yes", "--json"],
                           capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr
    training = json.loads(shown.stdout)["training"]
    assert training["cost"] == pytest.approx(5.328e6, rel=0.2) and training["binds"] == "compute"  # V3's bill, table 1
    assert training["layout"]["data"] == 128 and training["memory_bytes"]["total"] < 80e9


def test_three_plans_in_words(capsys):
    plan("qwen3-1.7b", cluster="gpus=8,kind=h100,price=2", train="tokens=1B,batch=64", rl="prompts=32,steps=5",
         serve="input=500")
    shown = capsys.readouterr().out
    for part in ("TRAINING", "RL ", "SERVING", "layout", "GPU-hours", "at the given price", "binds", "cache of", "of 8 such"):
        assert part in shown


def test_a_file_with_the_keys_of_a_configuration(capsys):
    plan(LLAMA_405B, cluster="gpus=512,kind=h200", json_=True)
    training = json.loads(capsys.readouterr().out)["training"]
    assert training["tokens"] == 1e12 and training["cost"] is None
    assert training["memory_bytes"]["total"] < 0.92 * 141e9


def test_a_recipe_stage_by_stage(capsys):
    plan(RECIPE, cluster="gpus=64,kind=a100,price=1", json_=True)
    stages = {stage["name"]: stage for stage in json.loads(capsys.readouterr().out)["stages"]}
    assert {stage["kind"] for stage in stages.values()} >= {"pretrain", "sft", "grpo", "reject", "reward_model"}
    for stage in stages.values():
        assert 1 <= stage["gpus"] <= 64 and stage["seconds"] > 0 and stage["memory_bytes"] > 0
        assert stage["cost"] == pytest.approx(stage["gpu_hours"]) and stage["tokens_trained"] + stage["tokens_generated"] > 0
    plan(RECIPE, cluster="gpus=64,kind=a100")
    assert "GPUs: those that a stage's batch can feed" in " ".join(capsys.readouterr().out.split())


def test_a_cluster_of_any_size_is_planned_at_once():
    """GPUs that no batch can feed are not counted down one by one."""
    subprocess.run([sys.executable, "-m", "spoutnik", "plan", RECIPE, "--cluster", "gpus=1000000000000,kind=h100"],
                   capture_output=True, timeout=60, check=True)


def test_what_is_no_model_or_recipe(tmp_path):
    with pytest.raises(UserError, match="--serve: is for a model"):
        plan(RECIPE, cluster="gpus=8,kind=h100", serve="input=5")
    with pytest.raises(UserError, match="Did you mean deepseek-v3"):
        plan("deepseek-v33", cluster="gpus=8,kind=h100")
    with pytest.raises(RunError, match="must hold a JSON object"):
        (tmp_path / "config.json").write_text("[]")
        plan(str(tmp_path / "config.json"), cluster="gpus=8,kind=h100")
    with pytest.raises(UserError, match="no MTP module"):
        plan("qwen3-1.7b", cluster="gpus=8,kind=h100", serve="drafts=yes")
