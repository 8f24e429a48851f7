"""`spoutnik adapt`: from a checkpoint and a file to an adapter, a table of before and after, and a recipe of it."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import published
import pytest
import torch
import yaml
from small_recipe import Listening
from transformers import AutoModelForCausalLM

from spoutnik.commands.progress import SilentDisplay
from spoutnik.errors import RunError, UserError
from spoutnik.files import read_json
from spoutnik.model.adapter_file import attach_adapter, read_adapter
from spoutnik.model.adapter_merge import survival
from spoutnik.model.lora import LoraConfig, add_lora, merged_copy
from spoutnik.model.weights import load_model
from spoutnik.recipe import adaptation, adapters, plan, work
from spoutnik.recipe.adapt_data import held_out_share, read_adapt_data
from spoutnik.recipe.adapt_options import AdaptOptions
from spoutnik.recipe.adapt_recipe import write_recipe
from spoutnik.recipe.adapt_report import cut_replies
from spoutnik.recipe.adaptation import adapt, prepare
from spoutnik.recipe.estimate import Speed
from spoutnik.recipe.forgetting import measure_forgetting, read_general
from spoutnik.recipe.run import run_recipe
from spoutnik.recipe.schema import load_recipe
from spoutnik.tasks.own import read_task
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.data.split import is_held_out
from spoutnik.train.sft import trace_document

SIDES = [{"prompt": f"How many sides have {n} triangles?", "answer": str(3 * n)} for n in range(1, 25)]
TRAINING = {"epochs": 12.0, "learning_rate": 2e-2, "rank": 8, "held_out_share": 0.25, "max_tokens": 12}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module", autouse=True)
def enough_memory():
    """Whatever else runs on the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptation, "available_memory", lambda: 64 * 10 ** 9)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return published.write(tmp_path_factory.mktemp("base") / "start")


@pytest.fixture
def asked(base, tmp_path):
    """Makes options for the small checkpoint and rows of data; the run's folder is tmp_path/"run"."""
    def make(rows=SIDES, **changes) -> AdaptOptions:
        write(tmp_path / "my.jsonl", rows)
        return AdaptOptions(str(base), tmp_path / "my.jsonl", **TRAINING | changes)

    return make


def prepared(options, out, said=None):
    return prepare(options, out, said.append if said is not None else lambda sentence: None)


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory):
    """A finished adaptation: its folder, what was said, the result."""
    folder, said = tmp_path_factory.mktemp("adapted"), []
    options = AdaptOptions(str(base), write(folder / "my.jsonl", SIDES), **TRAINING)
    ready = prepared(options, folder / "run", said)
    return folder, said, ready, adapt(ready, SilentDisplay(), accept=True)


def test_the_table_has_what_was_learned_and_what_was_forgotten(finished):
    _, said, ready, result = finished
    right, replies, general, kl = result.rows
    assert right.count == ready.data.held_out_problems == replies.count > 2 and right.unit == "%"
    assert replies.after < replies.before and replies.difference == pytest.approx(replies.after - replies.before)
    assert replies.low <= replies.difference <= replies.high
    assert general.count == kl.count == len(ready.general.pieces) and kl.before == 0 < kl.after
    assert any("recognized as prompt/answer" in sentence for sentence in said)
    assert any("Method: sft. Verifier: 'math', since" in sentence for sentence in said)


def test_the_held_out_part_is_on_one_side_alone(finished):
    folder, _, ready, result = finished
    rows = [json.loads(line) for line in (folder / "run" / "data" / "problems.jsonl").read_text().splitlines()]
    held_out = {row["prompt"] for row in rows if row["split"] == "held_out"}
    assert held_out == {row["prompt"] for row in ready.data.held_out.rows}
    assert not held_out & {row["prompt"] for row in ready.data.traces.rows}
    assert {sample["prompt"] for sample in result.artifact.samples} == held_out


def test_the_report_says_the_same_and_how_to_go_on(finished):
    folder, said, _, result = finished
    text = result.report.read_text()
    for row in result.rows:
        assert f"| {' | '.join(row.cells())} |" in text
    assert "replies of the model as it was were cut at 12 tokens" in text  # it says anything
    assert cut_replies(result.artifact.samples, "of the adapted model", 12) in text
    assert said[0] in text and result.commands["talk to it"] in text and "adapter: {rank: 8" in text
    assert (result.artifact.folder / "adapter" / "adapter_model.safetensors").exists()
    assert result.commands["talk to it"].endswith(str(result.artifact.folder / "adapter"))


def test_the_adapter_with_its_base_is_the_model_that_was_evaluated(finished, base):
    *_, result = finished
    model = load_model(base)
    adapter = read_adapter(result.artifact.folder / "adapter")
    assert adapter.base == base.name  # what PEFT reads as the name of its base
    attach_adapter(model, adapter, "adapter")
    evaluated = load_model(result.artifact.folder, None).state_dict()  # in bfloat16, where the processor multiplies that
    expected = merged_copy(model, evaluated["embed_tokens.weight"].dtype).state_dict()
    assert evaluated.keys() == expected.keys() and all(torch.equal(evaluated[name], expected[name]) for name in expected)


def test_its_recipe_does_the_same_elsewhere(finished, tmp_path):
    folder, *_, result = finished
    path = folder / "run" / "recipe.yaml"
    assert set(load_recipe(path).stages) == {"adapted"}
    again = run_recipe(path, tmp_path / "again", SilentDisplay(), accept=["adapted"]).artifacts[0]
    assert again.content == result.artifact.content


def test_the_same_command_again_makes_nothing_anew(finished):
    folder, _, ready, result = finished
    listening = Listening()
    again = adapt(prepared(ready.options, folder / "run"), listening)
    assert again.rows == result.rows and "adapted: already made, nothing to do" in listening.said
    assert not any("Measuring" in sentence for sentence in listening.said)


@pytest.mark.parametrize("change, message", [
    pytest.param(lambda run, options: options.update(rank=4), "--rank was 8, now it is 4", id="option"),
    pytest.param(lambda run, options: options.update(epochs=None), "--epochs was 12.0, now it is not given", id="default"),
    pytest.param(lambda run, options: write(options["data"], SIDES[:20]), "another content of --data", id="data"),
    pytest.param(lambda run, options: (run / "recipe.yaml").write_text("name: mine\n"), "was changed by hand", id="recipe"),
    pytest.param(lambda run, options: (run / "recipe.yaml").unlink(), "was changed by hand", id="no recipe"),
    pytest.param(lambda run, options: (run / "adapt.json").unlink(), "did not begin", id="another run"),
])
def test_another_command_in_the_same_folder_is_refused(finished, tmp_path, change, message):
    folder, _, ready, _ = finished
    shutil.copytree(folder, tmp_path / "copy")
    options = vars(ready.options) | {"data": tmp_path / "copy" / "my.jsonl"}
    record = read_json(tmp_path / "copy" / "run" / "adapt.json")
    record["command"]["data"] = str(options["data"])
    (tmp_path / "copy" / "run" / "adapt.json").write_text(json.dumps(record))
    change(tmp_path / "copy" / "run", options)
    with pytest.raises(UserError, match=message):
        prepared(AdaptOptions(**options), tmp_path / "copy" / "run")


def test_a_killed_run_ends_with_the_same_adapter(finished, tmp_path, monkeypatch):
    folder, _, ready, result = finished
    monkeypatch.setattr("spoutnik.train.loop.HOURLY_BYTES", float("inf"))
    options = ready.options
    ready = prepared(options, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        adapt(ready, Listening(stop=("adapted", 5)), accept=True)
    assert not (tmp_path / "run" / "report.md").exists()
    again = adapt(prepared(options, tmp_path / "run"), SilentDisplay(), accept=True)
    name = "adapter/adapter_model.safetensors"
    assert again.artifact.manifest["files"][name] == result.artifact.manifest["files"][name]


def test_forgetting_is_what_transformers_computes(base, tmp_path):
    moved = shutil.copytree(base, tmp_path / "moved")
    theirs = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (base, moved)]
    with torch.no_grad():
        theirs[1].model.layers[0].mlp.down_proj.weight.mul_(3)
    theirs[1].save_pretrained(moved)
    (tmp_path / "general.txt").write_text("What is 3 + 4? It is seven.\n\nHow many sides have 2 triangles? They have six.\n")
    texts = read_general(tmp_path / "general.txt", Tokenizer.load(base), 256)
    result = measure_forgetting(load_model(base), load_model(moved), texts)
    for place, piece in enumerate(texts.pieces):
        ids = torch.tensor([piece.ids])
        with torch.no_grad():
            old, new = (model(ids).logits[0, piece.loss_from - 1:-1].log_softmax(-1) for model in theirs)
        targets = ids[0, piece.loss_from:, None]
        expected = [-old.gather(1, targets).mean(), -new.gather(1, targets).mean(), (old.exp() * (old - new)).sum(-1).mean()]
        measured = [result.before[place], result.after[place], result.kl[place]]
        torch.testing.assert_close(torch.tensor(measured), torch.stack(expected), atol=1e-5, rtol=1e-4)
    assert len(texts.pieces) == 2 and min(result.kl) > 1e-4


WORDS = [{"question": f"What is the color of thing {n}?", "answer": ("Red", "deep blue")[n % 2]} for n in range(40)]
LONG = [{"prompt": f"Explain {n}.", "answer": f"It is so because {'of this and ' * 20}{n}."} for n in range(40)]
PROBLEMS = [{"prompt": f"How many wheels have {n} carts?", "answer": str(2 * n), "verifier": "numeric"} for n in range(1, 40)]
PAIRS = [{"prompt": f"Why {n}?", "chosen": "So.", "rejected": f"No {n}."} for n in range(40)]
THUMBS = [{"prompt": f"Why {n}?", "completion": "So.", "label": True} for n in range(40)]


@pytest.mark.parametrize("rows, method, kind", [
    pytest.param(SIDES, "sft", "math", id="numbers"), pytest.param(WORDS, "sft", "exact", id="words"),
    pytest.param(LONG, "sft", "none", id="long answers"), pytest.param(PROBLEMS, "grpo", "rows", id="problems"),
])
def test_method_and_verifier_follow_from_the_data(tmp_path, rows, method, kind):
    data = read_adapt_data(write(tmp_path / "my.jsonl", rows), None, None, {}, "last", None)
    assert (data.method, data.verifier.kind) == (method, kind) and bool(data.problems) == (kind != "none")


def test_problems_are_kept_as_they_are_but_for_their_split(tmp_path):
    rows = [{"prompt": f"Say nothing, {n}.", "answer": None, "verifier": "json", "schema": {"type": "null"}} for n in range(30)]
    rows[0] |= {"split": "held_out"}
    data = read_adapt_data(write(tmp_path / "my.jsonl", rows), None, None, {}, "last", None)
    assert [{key: value for key, value in row.items() if key != "split"} for row in data.problems] == [
        {key: value for key, value in row.items() if key != "split"} for row in rows]
    task = read_task(write(tmp_path / "problems.jsonl", data.problems))
    assert data.problems[0]["split"] == "held_out" and len(task.problems("held_out")) == data.held_out_problems > 4


def test_few_rows_hold_out_more():
    rows = [{"prompt": f"What is {n} + {n}?"} for n in range(1000)]
    assert held_out_share(rows) == 0.1
    for count in (10, 40, 100):
        some, share = rows[:count], held_out_share(rows[:count])
        held_out = sum(is_held_out(row, share) for row in some)
        assert count // 5 <= held_out <= count // 2


@pytest.mark.parametrize("rows, changes, message", [
    pytest.param(PAIRS, {"method": "sft"}, "fits --method dpo or kto.*completion=chosen", id="pairs for sft"),
    pytest.param(THUMBS, {"method": "grpo"}, "thumbs up and down.*needs questions with answers", id="thumbs for grpo"),
    pytest.param(SIDES, {"method": "dpo"}, "holds single replies .*They fit --method sft", id="replies for dpo"),
    pytest.param([row | {"verifier": "regex"} for row in PROBLEMS], {"method": "sft"},
                 "only answers of .* They fit --method grpo", id="patterns for sft"),
    pytest.param(PROBLEMS, {"method": "dpo"}, "They fit --method grpo, or sft", id="problems for dpo"),
    pytest.param(PROBLEMS, {"verifier": "math"}, "name their verifiers themselves", id="two verifiers"),
    pytest.param(LONG, {"method": "grpo", "epochs": None}, "40 of 40 answers .*verify\\(prompt, answer, gold\\)",
                 id="grpo without a verifier"),
    pytest.param(SIDES, {"method": "grpo", "verifier": "none", "epochs": None}, "rewards by a verifier", id="grpo with none"),
    pytest.param(SIDES, {"method": "grpo"}, "--epochs: is of the other methods", id="epochs of grpo"),
    pytest.param(SIDES, {"steps": 3}, "--steps: is of --method grpo", id="steps of sft"),
    pytest.param(SIDES, {"exempt": "no reason"}, "--exempt: is of --method grpo", id="exempt of sft"),
    pytest.param(SIDES, {"exempt": " "}, "--exempt: is empty", id="exempt without a reason"),
    pytest.param(SIDES, {"method": "ppo"}, "--method ppo: must be sft, grpo", id="unknown method"),
    pytest.param(SIDES, {"verifier": "mth"}, "no such verifier. Did you mean 'math'", id="unknown verifier"),
    pytest.param(SIDES, {"verifier": "none.py"}, "none.py: there is no such file", id="no verifier file"),
    pytest.param(SIDES, {"verifier": "countdown", "method": "grpo", "epochs": None}, "poses its own problems", id="task"),
    pytest.param(SIDES[:1] * 9, {}, "leaves nothing to train on", id="one question"),
    pytest.param(SIDES, {"held_out_share": 1.0}, "--held-out-share 1: must be above 0", id="all held out"),
    pytest.param(SIDES, {"full": True}, "has no --rank", id="rank of a whole model"),
    pytest.param(SIDES, {"rank": 64}, r"^--rank 64: .*Give at most 16\.$", id="rank too large"),
    pytest.param(LONG, {}, "--max-tokens 12: is of replies that are sampled, and here none are", id="nothing sampled"),
    pytest.param(PAIRS, {}, "--max-tokens 12: .*here none are .verifier: none: the loss", id="pairs sample nothing"),
    pytest.param(SIDES, {"max_tokens": 400}, "--max-tokens 400.*256 positions", id="no positions"),
    pytest.param(SIDES, {"no_anchor": True, "anchor": Path("general.txt")}, "Leave one of them out", id="anchor and none"),
    pytest.param(SIDES, {"anchor": Path("a.txt"), "general": Path("a.txt")}, "is the text of --anchor", id="same text"),
    pytest.param(SIDES, {"anchor": Path("none.txt")}, "--anchor none.txt: no such file", id="no anchor file"),
    pytest.param(SIDES, {"epochs": 0.0}, r"^--epochs 0\.0: .* greater than 0\. Correct", id="no epochs"),
    pytest.param([*SIDES, {"prompt": "broken"}], {}, "line 25: the key 'answer' is missing", id="broken row"),
    pytest.param([*SIDES, *PAIRS], {}, "line 25: .*preference pairs", id="mixed shapes"),
    pytest.param([row | {"prompt": f"{row['prompt']} {'x' * 400}"} for row in SIDES], {"method": "grpo", "epochs": None},
                 "Not asked: 24 questions .* None is left", id="questions too long"),
])
def test_what_cannot_be_is_a_sentence_and_writes_nothing(asked, tmp_path, rows, changes, message):
    with pytest.raises(UserError, match=f"(?s){message}") as raised:
        prepared(asked(rows, **changes), tmp_path / "run")
    assert "spoutnik-adapt-" not in str(raised.value)  # no temporary path
    assert not (tmp_path / "run").exists()


def test_the_plan_counts_what_a_short_run_mostly_does(asked, tmp_path, monkeypatch):
    """On a machine that computes in no time: loading, packing, reading the weights for each step of both evaluations, keeping
    the result; and, where reading takes time, all that is read before and after."""
    still = {"train": float("inf"), "generate": float("inf"), "step": {"adamw": 0.0}, "peak_memory_bytes": 0}
    monkeypatch.setattr(plan, "opening_seconds", lambda config: 10.0)
    monkeypatch.setattr(plan, "keeping_seconds", lambda config, adapter: 100.0 if adapter else 0.0)
    monkeypatch.setattr(plan, "estimated_speed", lambda *arguments: Speed(**still, decode_step=0.5))
    monkeypatch.setattr(plan, "least_step_seconds", lambda config, dtype: 0.0)
    assert prepared(asked(), tmp_path / "run").seconds == 100 + 2 * (10 + 12 * 0.5)  # replies of 12 tokens
    assert prepared(asked(verifier="none", max_tokens=None), tmp_path / "run").seconds == 100
    monkeypatch.setattr(plan, "estimated_speed", lambda *arguments: Speed(**still, read=1.0))
    ready = prepared(asked(verifier="none", max_tokens=None), tmp_path / "run")
    own = work._own_tokens(written(ready, tmp_path / "recipe"), "adapted")
    assert min(own.held_out, own.compared, own.train) > 0
    tokenizer = Tokenizer.load(Path(ready.options.model))
    assert own.train == sum(len(trace_document(row, tokenizer).ids) for row in ready.data.traces.rows)
    assert ready.seconds == 100 + 2 * (own.held_out + own.compared) + 2 * (own.held_out + ready.general.tokens)


def test_each_step_of_a_small_model_takes_its_time_however_few_its_tokens(asked, tmp_path, monkeypatch):
    """A step has a pass of its own, and with the anchor another, and the teacher's without a gradient."""
    still = Speed(float("inf"), float("inf"), {"adamw": 0.0}, 0)
    for name, value in (("opening_seconds", 0.0), ("keeping_seconds", 0.0), ("estimated_speed", still)):
        monkeypatch.setattr(plan, name, lambda *arguments, value=value: value)
    monkeypatch.setattr(plan, "least_step_seconds", lambda config, dtype: 3.0)
    ready = prepared(asked(verifier="none", max_tokens=None), tmp_path / "run")
    steps = work.stage_work(written(ready, tmp_path / "recipe"), "adapted").steps
    assert steps > 1 and ready.seconds == pytest.approx(steps * (3 + 4))


def test_the_tokens_of_many_traces_follow_from_some(base):
    tokenizer = Tokenizer.load(base)
    rows = [{"prompt": "How many?" * (1 + n % 7), "thought": "", "answer": str(n)} for n in range(2 * work._COUNTED + 5)]
    counted = sum(len(trace_document(row, tokenizer).ids) for row in rows)
    assert sum(work.trace_lengths(rows, tokenizer)) == pytest.approx(counted, rel=0.02)
    assert work.trace_lengths(rows[:3], tokenizer) == [len(trace_document(row, tokenizer).ids) for row in rows[:3]]
    assert work.trace_lengths([], tokenizer) == []


def test_what_survives_rounding_is_measured_once(base, monkeypatch):
    """It reads every adapted weight: of 135 million, 0.7 core-seconds each time."""
    model = add_lora(load_model(base), LoraConfig(2, 4.0), torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter, 0, 0.5, generator=torch.Generator().manual_seed(1))
    measured = []
    monkeypatch.setattr(adapters, "survival", lambda *given: measured.append(survival(*given)) or measured[-1])
    assert adapters.saved_dtype(model, torch.bfloat16) == (torch.bfloat16, measured[0])
    assert adapters.saved_dtype(model, torch.float32) == (torch.float32, measured[1])
    assert len(measured) == 2 and 0.5 < measured[0].share < 1.5 and measured[1].share == pytest.approx(1, abs=1e-3)


def written(ready, folder):
    """The recipe, from a place as deep as where it is meant for."""
    write_recipe(ready.recipe, ready.data, folder)
    return load_recipe(folder / "recipe.yaml")


def test_a_folder_behind_a_link_has_a_recipe_that_finds_its_files(asked, tmp_path):
    (tmp_path / "far" / "deeper").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deeper")
    out = tmp_path / "link" / "run"
    ready = prepared(asked(), out)
    write_recipe(ready.recipe, ready.data, out)
    recipe = load_recipe(out / "recipe.yaml")
    assert recipe.stages["adapted"].file.exists() and Path(recipe.checkpoints["base"]).exists()


def test_a_general_text_that_is_longer_than_what_is_measured_is_told(asked, tmp_path):
    path, sentences = tmp_path / "general.txt", []
    path.write_text("\n\n".join(f"What is {number} + 4? It is what you get for {number} and four." for number in range(70)))
    ready = prepared(asked(general=path), tmp_path / "run", sentences)
    assert len(ready.general.pieces) == 64
    assert any("general.txt: its first 64 pieces of at most 256 tokens are what forgetting is" in each for each in sentences)


@pytest.mark.parametrize("general, message", [
    pytest.param("", "holds no text", id="empty"), pytest.param(None, "there is no such file", id="missing"),
    pytest.param(b"\xff\xfeabc", "UTF-8", id="not UTF-8")])
def test_a_general_text_that_cannot_be_read_is_refused(asked, tmp_path, general, message):
    path = tmp_path / "general.txt"
    if general is not None:
        path.write_bytes(general if isinstance(general, bytes) else general.encode())
    with pytest.raises(UserError, match=message):
        prepared(asked(general=path), tmp_path / "run")


def test_a_model_that_does_not_fit_is_refused_with_the_numbers(asked, tmp_path, monkeypatch):
    needed = prepared(asked(), tmp_path / "run").memory
    monkeypatch.setattr(adaptation, "available_memory", lambda: needed - 10 ** 6)
    with pytest.raises(UserError, match=r"takes about .*MB of memory, and .* are free. What helps: .*--micro-batch-tokens 512"):
        prepared(asked(), tmp_path / "run")
    with pytest.raises(UserError, match="without --full"):
        prepared(asked(full=True, rank=None), tmp_path / "run")


VERIFY = "def verify(prompt, answer, gold):\n    {}\n"


def test_a_python_verifier_grades_and_one_that_raises_is_refused_first(asked, tmp_path):
    path, said = tmp_path / "verify.py", []
    path.write_text(VERIFY.format("return answer.strip() == gold + '!'"))
    data = prepared(asked(verifier=str(path)), tmp_path / "run", said).data
    assert data.verifier.kind == "script" and data.problems
    assert any("gives 0 to the data's own answers" in sentence for sentence in said)
    path.write_text(VERIFY.format("return 1 / 0"))
    with pytest.raises(RunError, match=rf"^{re.escape(str(path))}, line 2: verify\(\), .* raises ZeroDivisionError"):
        prepared(asked(verifier=str(path)), tmp_path / "run")
    path.write_text(VERIFY.format("return True") + "def problems():\n    return []\n")
    with pytest.raises(UserError, match="poses problems of its own"):
        prepared(asked(verifier=str(path)), tmp_path / "run")


@pytest.mark.parametrize("part, long, names", [("train", range(1, 25), "can learn none of the rows to train on"),
                                               ("held_out", range(20, 25), "none of the held-out rows can be measured")])
def test_rows_that_are_all_too_long_are_refused_before_the_model_is_asked(asked, tmp_path, part, long, names):
    rows = [row | {"split": "held_out" if number >= 20 else "train"} | ({"answer": "seven " * 300} if number in long else {})
            for number, row in enumerate(SIDES, 1)]
    with pytest.raises(UserError, match=names):
        prepared(asked(rows), tmp_path / "run")


def test_reinforcement_learning_from_a_python_verifier(asked, tmp_path):
    path = tmp_path / "verify.py"
    path.write_text(VERIFY.format("return answer.strip() == gold"))
    options = asked(method="grpo", verifier=str(path), epochs=None, steps=2, learning_rate=1e-3, max_tokens=8)
    ready = prepared(options, tmp_path / "run")
    recipe = yaml.safe_load(ready.recipe)
    assert recipe["tasks"] == ["data/problems.py"] and recipe["dtype"] == "float32"
    listening = Listening()
    result = adapt(ready, listening, accept=True)
    assert any("answers none of" in sentence and "--method sft first" in sentence for sentence in listening.said)
    assert [row.unit for row in result.rows] == ["%", "nats", "nats"] and len(result.artifact.log) == 2
    assert (tmp_path / "run" / "data" / "problems.py").read_bytes() == path.read_bytes()


def test_a_verifier_that_pays_for_anything_is_refused_before_anything_is_written_and_can_be_mended_or_exempted(asked, tmp_path):
    path = tmp_path / "verify.py"
    path.write_text(VERIFY.format("return len(answer) > 0"))
    options = asked(method="grpo", verifier=str(path), epochs=None, steps=1, learning_rate=1e-3, max_tokens=8)
    with pytest.raises(UserError, match='not fit to train on') as raised:
        prepared(options, tmp_path / "run")
    sentence = str(raised.value)
    assert sentence.startswith(f"--verifier {path}: not fit") and sentence.endswith('say why: --exempt "the reason".')
    assert not (tmp_path / "run").exists()
    ready = prepared(replace(options, exempt="to see it hacked"), tmp_path / "exempted")
    assert yaml.safe_load(ready.recipe)["exempt"] == {"problems.py": "to see it hacked"}
    listening = Listening()
    adapt(ready, listening, accept=True)
    assert any("problems.py is exempted (to see it hacked)" in sentence for sentence in listening.said)
    path.write_text(VERIFY.format("return answer.strip() == gold"))
    assert "exempt" not in prepared(options, tmp_path / "run").recipe


def test_answers_whose_verifier_pays_for_anything_are_named_by_their_file(asked, tmp_path):
    options = asked([row | {"answer": "three"} for row in SIDES], method="grpo", epochs=None)
    with pytest.raises(UserError, match=r"my.jsonl: the verifier exact of its answers: not fit to train on\. constants: "):
        prepared(options, tmp_path / "run")
    rows = [row | {"answer": "three", "verifier": "exact"} for row in SIDES]
    with pytest.raises(UserError, match=r"my.jsonl: the verifiers of its rows: not fit .* `spoutnik audit .*my.jsonl` shows"):
        prepared(asked(rows, method="grpo", epochs=None), tmp_path / "run")


@pytest.mark.parametrize("rows, method, names", [
    pytest.param([{"prompt": f"What is {n} + 1?", "chosen": str(n + 1), "rejected": f"Perhaps {n}."} for n in range(24)], "dpo",
                 ["better reply", "better replies", "worse replies", "general", "KL"], id="pairs"),
    pytest.param([{"prompt": f"What is {n // 2} + 1?", "completion": "It may be." if n % 2 else str(n // 2 + 1),
                   "label": n % 2 == 0} for n in range(48)], "kto", ["better replies", "worse replies", "general", "KL"],
                 id="thumbs")])
def test_opinions_are_learned_from(asked, tmp_path, rows, method, names):
    ready = prepared(asked(rows, max_tokens=None, epochs=8.0, learning_rate=1e-2), tmp_path / "run")
    stage = yaml.safe_load(ready.recipe)["stages"]["adapted"]
    assert stage["kind"] == method == ready.data.method and stage["anchor"]["weight"] == 1.0
    result = adapt(ready, SilentDisplay(), accept=True)
    assert [name in row.what for name, row in zip(names, result.rows, strict=True)] == [True] * len(names)
    better, worse = [row for row in result.rows if row.what.startswith("loss,")][:2]
    assert worse.difference - better.difference > 0 and (better.better, worse.better) == (-1, 1)


def test_replies_that_were_cut_are_told():
    samples = [{"finished": number % 4 > 0} for number in range(40)]
    sentence = cut_replies(samples, "of the base", 64)
    assert sentence.startswith("10 of 40 replies of the base were cut at 64 tokens") and "--max-tokens" in sentence
    assert cut_replies([{"finished": number > 3} for number in range(40)], "", 64) == "" == cut_replies([], "", 64)


def test_a_catalog_task_is_asked_before_and_after(asked, tmp_path):
    ready = prepared(asked(verifier="arithmetic"), tmp_path / "run")
    assert yaml.safe_load(ready.recipe)["tasks"] == ["arithmetic"] and not ready.data.problems
