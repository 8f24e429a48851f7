"""The models that are evaluated: one that our engine runs, one behind an endpoint."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import asked
import pytest
from asked import SUMS
from endpoint_server import completion, endpoint_server, failure

from spoutnik.commands.progress import SilentDisplay
from spoutnik.endpoint import Endpoint
from spoutnik.errors import RunError, UserError
from spoutnik.evals import statistics
from spoutnik.evals.asking import AskingSettings
from spoutnik.evals.benches import Bench
from spoutnik.evals.evaluate import Evaluation
from spoutnik.evals.models import NO_REPLY, EndpointModel, LocalModel, Question, endpoint_model
from spoutnik.evals.samples import read_samples
from spoutnik.files import write_json
from spoutnik.tasks.own import read_task
from spoutnik.tasks.prompt_styles import style_of

SETTINGS = AskingSettings(samples=2, max_tokens=12)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Of the bootstrap's: its own tests are elsewhere."""
    monkeypatch.setattr(statistics, "RESAMPLES", 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return asked.model_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def model(folder):
    return LocalModel(folder)


def questions(count, style=None):
    style = style or style_of("chat")
    return [Question(style.prompt(SUMS.problem(number, 2)), seed) for number in range(count) for seed in (7, 8)]


def replies(model, asked_questions, style=None, settings=SETTINGS):
    got, tokens = {}, []
    model.ask(asked_questions, style or style_of("chat"), settings, got.__setitem__, tokens.append)
    return [got[number] for number in range(len(asked_questions))], sum(tokens)


def test_a_reply_depends_on_its_question_alone_and_not_on_what_else_is_asked(model):
    everything, tokens = replies(model, questions(3))
    assert tokens == sum(reply.tokens for reply in everything) > 0
    assert len({(reply.thought, reply.answer) for reply in everything}) > 3
    some = [questions(3)[number] for number in (4, 1)]
    assert replies(model, some)[0] == [everything[4], everything[1]]


def test_plain_styles_are_read_as_text(model):
    few = style_of("few-shot", [("What is 1 + 2?", "3")])
    got, _ = replies(model, questions(2, few), few)
    assert all(not reply.thought and reply.well_formed <= reply.finished for reply in got)


def test_a_prompt_that_leaves_no_room_counts_as_wrong_and_the_others_are_asked(model):
    long = SUMS.problem(1, 2)
    long = type(long)(SUMS, 1, "en", "What is " + "1 + " * 200 + "2?", "3", {})
    chat = style_of("chat")
    got, _ = replies(model, [Question(chat.prompt(long), 0), *questions(1)])
    assert got[0] == NO_REPLY and got[1].tokens > 0


def test_the_limit_is_r1s_within_the_models_positions(model):
    assert model.limit(AskingSettings()) == 128 and model.limit(SETTINGS) == 12
    got, _ = replies(model, questions(2), settings=AskingSettings(temperature=0))
    prompt = len(model.ids(questions(1)[0].prompt))
    assert all(reply.tokens == 128 - prompt for reply in got if not reply.finished)


def test_the_facts_tell_models_and_precisions_apart(folder, model, tmp_path):
    other = LocalModel(asked.model_folder(tmp_path / "other", seed=1), dtype="float32")
    same = LocalModel(folder, dtype="float32")
    assert other.facts() != same.facts() == LocalModel(folder, dtype="float32").facts()
    assert LocalModel(folder, dtype="bfloat16").facts() != same.facts()
    assert "What is 0 + 2?" in model.rendered(questions(1)[0].prompt)


def test_a_base_is_not_asked_through_a_template_that_it_never_saw(tmp_path):
    base = asked.model_folder(tmp_path / "base")
    write_json(base / "manifest.json", {"kind": "pretrain", "settings": {}})
    model = LocalModel(base)
    with pytest.raises(UserError, match="never seen its chat template.*--style few-shot.*forum"):
        model.check(style_of("chat"), chosen=False)
    assert "its score says little" in model.check(style_of("chat"), chosen=True)
    assert model.check(style_of("forum"), chosen=True) is None
    (base / "manifest.json").unlink()
    (base / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="--style chat needs a chat template, and this model has none"):
        LocalModel(base).check(style_of("chat"), chosen=True)


KILLED = """
    import os, signal, sys
    sys.path[:0] = [{evals!r}, {tests!r}]
    from pathlib import Path
    from test_models import evaluate
    from spoutnik.evals.samples import SampleStore
    append, left = SampleStore.append, [3]
    def killed(self, sample):
        append(self, sample)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
    SampleStore.append = killed
    evaluate(Path({folder!r}), Path({out!r}))
"""


def evaluate(folder: Path, out: Path) -> dict:
    return Evaluation(LocalModel(folder), SETTINGS, out).run([asked.sums(4)], SilentDisplay())[0]


def test_killed_and_begun_again_it_ends_with_the_same_bytes(folder, tmp_path):
    script = textwrap.dedent(KILLED).format(evals=str(Path(__file__).parent), tests=str(Path(__file__).parents[1]),
                                            folder=str(folder), out=str(tmp_path / "killed"))
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, timeout=120)
    assert process.returncode == -signal.SIGKILL, process.stderr
    kept = (tmp_path / "killed" / "sums" / "samples.jsonl").read_text().splitlines()
    assert len(kept) == 3
    evaluate(folder, tmp_path / "killed")
    evaluate(folder, tmp_path / "whole")
    killed, whole = ((tmp_path / name / "sums" / "samples.jsonl").read_bytes() for name in ("killed", "whole"))
    assert killed == whole and set(kept) <= set(whole.decode().splitlines())


async def no_pause(seconds: float) -> None:
    pass


def over(server, **changes) -> EndpointModel:
    return EndpointModel(Endpoint(server.url, "m", sleep=no_pause, **{"retries": 2} | changes), concurrency=3)


def ask_endpoint(server, out, count=4, **changes) -> dict:
    return Evaluation(over(server, **changes), asked.settings(max_tokens=50), out).run([asked.sums(count)], SilentDisplay())[0]


def answer(body: dict):
    return completion(asked.right(body["messages"][-1]["content"]), reasoning_content="so")


def test_an_endpoint_is_asked_by_r1s_protocol_several_at_one_time(tmp_path):
    with endpoint_server(answer) as server:
        result = ask_endpoint(server, tmp_path)
    assert result["scores"]["sums pass@1"]["mean"] == 1.0
    bodies = [body for _, body in server.requests]
    assert len(bodies) == 8 and {(b["temperature"], b["top_p"], b["max_tokens"]) for b in bodies} == {(0.6, 0.95, 50)}
    assert len({b["seed"] for b in bodies}) == 8 and all(len(b["messages"]) == 1 for b in bodies)
    sample = read_samples(tmp_path / "sums" / "samples.jsonl")[0]
    assert sample.thought == "so" and sample.tokens == 7 and 0 < sample.thought_tokens < 7


def test_an_examined_endpoint_may_be_graded_by_a_judge_behind_another(tmp_path):
    def verdict(body):
        text = body["messages"][1]["content"]
        return completion(f"VERDICT {re.search(r'VERDICT (.+?): ', text)[1]}: {'correct' if 'A tall' in text else 'incorrect'}")

    with endpoint_server(lambda body: completion(f"A {body['messages'][0]['content']}")) as model, \
            endpoint_server(verdict) as judge:
        row = {"verifier": "judge", "rubric": "Any.", "endpoint": judge.url, "model": "m", "split": "held_out"}
        path = tmp_path / "judged.jsonl"
        path.write_text("".join(json.dumps(row | {"prompt": f"{word} tale?"}) + "\n" for word in ("tall", "short")))
        task = read_task(path)
        bench = Bench("judged", list(task.problems("held_out")), "tales")
        result = Evaluation(over(model), asked.settings(max_tokens=50), tmp_path / "out").run([bench], SilentDisplay())[0]
    assert result["scores"]["judged pass@1"]["mean"] == 0.5 and result["shares"].get("verifier_errors", 0) == 0
    assert all(sample.verifier_error is None for sample in read_samples(tmp_path / "out" / "judged" / "samples.jsonl"))


def test_an_endpoint_that_is_busy_breaks_off_or_sends_garbage_is_asked_again(tmp_path):
    troubles = iter([failure(429, "slow down", Retry_After="1"), failure(503, "loading")])

    def respond(body):
        return next(troubles, None) or answer(body)

    with endpoint_server(respond) as server:
        assert ask_endpoint(server, tmp_path)["scores"]["sums pass@1"]["mean"] == 1.0
    assert len(server.requests) == 10


def test_an_endpoint_that_fails_is_a_sentence_and_what_came_is_not_paid_twice(tmp_path):
    left = [3]  # answers before it breaks

    def respond(body):
        left[0] -= 1
        return answer(body) if left[0] >= 0 else failure(500, "broken")

    with endpoint_server(respond) as server:
        with pytest.raises(RunError, match="HTTP 500.*broken"):
            ask_endpoint(server, tmp_path)
        kept, before = len(read_samples(tmp_path / "sums" / "samples.jsonl")), len(server.requests)
        left[0] = 100
        assert ask_endpoint(server, tmp_path)["complete"]
    assert kept >= 1 and len(server.requests) - before == 8 - kept


def test_an_endpoint_that_is_down_is_a_sentence(tmp_path):
    with endpoint_server(answer) as server:
        pass
    with pytest.raises(RunError, match="no connection.*Start the endpoint"):
        ask_endpoint(server, tmp_path)


@pytest.mark.parametrize("reply, finished, correct", [
    (lambda right: completion(f"<think>so</think>{right}"), True, 1.0), (lambda right: completion(right, "length"), False, 0.0),
    (lambda right: completion(None, "length", reasoning_content="on and on"), False, 0.0),
    (lambda right: completion("<think>never closed " + right), True, 0.0), (lambda right: completion("\x00"), True, 0.0)])
def test_forms_of_an_endpoints_reply(tmp_path, reply, finished, correct):
    with endpoint_server(lambda body: reply(asked.right(body["messages"][-1]["content"]))) as server:
        ask_endpoint(server, tmp_path, 1)
    sample = read_samples(tmp_path / "sums" / "samples.jsonl")[0]
    assert (sample.finished, sample.correct) == (finished, correct)


def test_an_endpoint_takes_examples_as_turns_and_no_plain_text(tmp_path):
    with endpoint_server(answer) as server:
        model = over(server)
        Evaluation(model, asked.settings(samples=1), tmp_path, "few-shot").run([asked.sums(5)], SilentDisplay())
        assert [m["role"] for m in server.requests[0][1]["messages"]] == ["user", "assistant"] * 4 + ["user"]
        with pytest.raises(UserError, match="--style forum: is plain text, and an endpoint takes conversations"):
            model.check(style_of("forum"), True)
    with pytest.raises(UserError, match="--model NAME"):
        endpoint_model(server.url, {"model": None, "key_variable": None}, 8)
