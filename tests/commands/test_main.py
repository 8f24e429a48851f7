"""The command line as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli import spoutnik

from spoutnik import __version__

TINY = Path(__file__).parents[1] / "recipe" / "tiny.yaml"


def test_help_needs_no_torch_and_every_command_shows_an_example():
    probe = "import sys, spoutnik.commands.main; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe]).returncode == 0
    for command in ("run", "chat", "serve", "arena", "keys add", "keys list", "keys revoke", "history show", "history export",
                    "history wipe", "eval", "inspect", "plan", "export", "bench", "adapt"):
        shown = spoutnik(*command.split(), "--help")
        assert shown.returncode == 0 and "Example: spoutnik" in shown.stdout and "--json" in shown.stdout


def test_the_version_needs_no_torch():
    probe = ("import sys; from spoutnik.commands.main import app; app(['--version'], standalone_mode=False); "
             "sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)")
    shown = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert shown.returncode == 0 and shown.stdout == f"spoutnik {__version__}\n"
    assert spoutnik("--version").stdout == shown.stdout  # python -m spoutnik


def test_several_processes_are_for_run_alone(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    shown = spoutnik("models")
    assert shown.returncode == 2 and "'models' is work for one process, and torchrun has started 2." in shown.stderr
    shown = spoutnik("run", str(TINY))
    assert shown.returncode == 2 and "RANK is not set, but WORLD_SIZE = 2." in shown.stderr


def test_inspect_shows_a_model_or_the_machine():
    shown = spoutnik("inspect", "--machine", "--json")
    assert shown.returncode == 0, shown.stderr
    facts = json.loads(shown.stdout)
    assert facts["cores"] >= 1 and facts["memory_bytes"] >= facts["available_memory_bytes"] > 0 and facts["torch_threads"] >= 1
    assert facts["auto_dtype"] in ("bfloat16", "float32") and facts["kernels"].startswith(("native", "plain"))
    text = spoutnik("inspect", "--machine").stdout
    for part in (facts["cpu"], facts["kernels"], f"auto means {facts['auto_dtype']}", facts["training_dtype"], " available"):
        assert part in text
    for arguments in ((), ("deepseek-r1", "--machine")):
        shown = spoutnik("inspect", *arguments)
        assert shown.returncode == 2 and "name a model, or give --machine" in shown.stderr and "Traceback" not in shown.stderr


def test_plain_kernels_say_why(monkeypatch):
    monkeypatch.setenv("SPOUTNIK_NATIVE", "0")
    assert "SPOUTNIK_NATIVE=0" in json.loads(spoutnik("inspect", "--machine", "--json").stdout)["kernels"]


def test_chat_answers_one_prompt_as_json_and_repeats_itself_by_seed(run):
    arguments = ("chat", str(run), "--prompt", "What is 3 + 4 ?", "--max-tokens", "12", "--json")
    first, second = (spoutnik(*arguments) for _ in range(2))
    assert first.returncode == 0, first.stderr
    reply = json.loads(first.stdout)
    assert reply == json.loads(second.stdout) and reply["tokens"] <= 12 and reply["finish_reason"] in ("stop", "length")
    assert "cold_start" in reply["model"]


def test_a_conversation_goes_on_and_ends_on_an_empty_line(run):
    shown = spoutnik("chat", str(run), "--stage", "cold_start", "--max-tokens", "8", text="What is 1 + 1 ?\n/new\nHi\n\n")
    assert shown.returncode == 0 and "Traceback" not in shown.stderr, shown.stderr


@pytest.mark.parametrize("arguments, said", [
    (("--temperature", "99"), "temperature = 99"),
    (("--stage", "lunch"), "no such model")])
def test_chat_refuses_with_a_sentence(run, arguments, said):
    shown = spoutnik("chat", str(run), "--prompt", "Hi", *arguments)
    assert shown.returncode == 2 and said in shown.stderr and "Traceback" not in shown.stderr


def test_eval_on_held_out_and_on_a_gsm8k_file(run, tmp_path):
    data = tmp_path / "test.jsonl"
    data.write_text(json.dumps({"question": "One and one?", "answer": "1+1\n#### 2"}) + "\n")
    asked = ("eval", str(run), "--bench", "gsm8k", "--data", str(data), "--out", str(tmp_path / "evals"))
    shown = spoutnik(*asked, "--samples", "2", "--max-tokens", "8", "--json")
    assert shown.returncode == 0, shown.stderr
    result = json.loads(shown.stdout)
    assert result["scores"]["gsm8k pass@1"]["problems"] == 1 and result["samples"] == 2
    data.write_text('{"question": "q", "answer": "#### 2"}\n{broken\n')
    shown = spoutnik(*asked)
    assert shown.returncode == 2 and f"{data}, line 2" in shown.stderr and "Traceback" not in shown.stderr
    shown = spoutnik("eval", str(run), "--bench", "held-out", "--temperature", "9")
    assert shown.returncode == 2 and "temperature = 9" in shown.stderr and "Traceback" not in shown.stderr, shown.stderr
    data.write_text('{"question": "q", "answer": 2}\n')
    shown = spoutnik(*asked)
    assert shown.returncode == 2 and f"{data}, line 1" in shown.stderr and "Traceback" not in shown.stderr, shown.stderr
    shown = spoutnik("eval", str(run), "--bench", "gym-countdown", "--limit", "2", "--samples", "1", "--max-tokens", "8",
                     "--out", str(tmp_path / "evals"))
    assert shown.returncode == 0 and "reasoning-gym's scorer" in shown.stdout, shown.stderr


def test_dry_run_prints_the_plan_and_makes_nothing(tmp_path):
    shown = spoutnik("run", str(TINY), "--out", str(tmp_path / "run"), "--dry-run", "--json")
    assert shown.returncode == 0, shown.stderr
    plan = json.loads(shown.stdout)
    assert len(plan["stages"]) == 10 and all(s["status"] == "to make" and s["seconds"] > 0 for s in plan["stages"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("question, answer", [("What is 3 + 4?", "7"), ("Combien font 3 + 4 ?", "7")])
def test_chat_without_a_model_asks_the_one_that_ships_with_the_package(question, answer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reply = subprocess.run([sys.executable, "-m", "spoutnik", "chat", "--prompt", question, "--json"], capture_output=True,
                           text=True, timeout=120)
    assert reply.returncode == 0, reply.stderr
    told = json.loads(reply.stdout)
    assert answer in told["answer"] and told["thought"] and "prebuilt/nano" in told["model"]
