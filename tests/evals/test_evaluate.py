"""An evaluation from problems to scores: nothing asked twice, nothing lost, nothing mixed that was made otherwise."""

import json

import asked
import pytest
from asked import SUMS, Scripted, sums

from spoutnik.commands.progress import SilentDisplay
from spoutnik.errors import RunError, UserError
from spoutnik.evals import benches, statistics
from spoutnik.evals.benches import Bench, find_bench, reworded_bench
from spoutnik.evals.evaluate import Evaluation
from spoutnik.evals.samples import ModelReply, read_samples
from spoutnik.tasks.catalog import find_tasks


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Of the bootstrap's: its own tests are elsewhere."""
    monkeypatch.setattr(statistics, "RESAMPLES", 20)


class Listening(SilentDisplay):
    def __init__(self):
        self.texts = []

    def log(self, text):
        self.texts.append(text)


def evaluate(out, bench=None, model=None, style=None, ks=(), display=None, **settings):
    model = model or Scripted()
    return Evaluation(model, asked.settings(**settings), out, style, ks).run([bench or sums(4)], display or Listening())[0]


def samples_of(out, name="sums"):
    return (out / name / "samples.jsonl").read_bytes()


def test_every_problem_gets_its_samples_and_pass_at_1_is_their_mean(tmp_path):
    wrong_on = {"What is 1 + 2?"}
    model = Scripted(lambda text, seed: "0" if text in wrong_on else asked.right(text))
    result = evaluate(tmp_path, model=model)
    assert result["scores"]["sums pass@1"]["mean"] == 0.75 and result["complete"]
    assert result["scores"]["sums pass@1"]["low"] < 0.75 < result["scores"]["sums pass@1"]["high"]
    assert len(model.asked) == 8 and len(set(model.asked)) == 8  # each sample has random numbers of its own
    samples = read_samples(tmp_path / "sums" / "samples.jsonl")
    assert [(each.prompt[8], each.sample) for each in samples] == [(str(n), s) for s in range(2) for n in range(4)]
    assert samples[0].stratum == "small" and samples[0].gold == "2" and samples[0].thought == "so"
    assert json.loads((tmp_path / "sums" / "evaluation.json").read_text()) == result


def test_what_was_interrupted_goes_on_with_what_is_missing_and_ends_with_the_same_bytes(tmp_path):
    evaluate(tmp_path / "whole")
    interrupted = Scripted(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "parts", model=interrupted)
    assert len(samples_of(tmp_path / "parts").splitlines()) == 3
    rest = Scripted()
    evaluate(tmp_path / "parts", model=rest)
    assert len(rest.asked) == 5 and not set(rest.asked) & set(interrupted.asked)
    assert samples_of(tmp_path / "parts") == samples_of(tmp_path / "whole")


def test_a_finished_evaluation_asks_nothing_and_a_larger_one_only_what_is_new(tmp_path):
    first = evaluate(tmp_path)
    again, display = Scripted(), Listening()
    assert evaluate(tmp_path, model=again, display=display)["scores"] == first["scores"] and not again.asked
    assert "sums: all samples are there already." in display.texts
    larger = Scripted()
    assert evaluate(tmp_path, sums(5), model=larger, samples=3)["scores"]["sums pass@1"]["samples"] == 15
    assert len(larger.asked) == 7
    smaller = evaluate(tmp_path)
    assert smaller["hash"] == first["hash"] and smaller["scores"] == first["scores"]
    assert len(samples_of(tmp_path).splitlines()) == 15  # what was paid for stays


@pytest.mark.parametrize("change, told", [
    ({"temperature": 0.0}, "temperature = 0.6, and now it is 0.0"), ({"model": Scripted(facts="second")}, "model.content"),
    ({"style": "forum"}, "style = \"chat\""), ({"max_tokens": 50}, "max_tokens"), ({"seed": 1}, "seed = 0"),
    ({"bench": Bench("sums", [SUMS.problem(n, 2) for n in range(4)], "other sums")}, "data")])
def test_samples_that_were_made_otherwise_are_not_mixed(tmp_path, change, told):
    evaluate(tmp_path)
    before = samples_of(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path}/sums: these samples were made with .*{told}.*--out"):
        evaluate(tmp_path, **change)
    assert samples_of(tmp_path) == before


def test_the_hash_tells_evaluations_apart(tmp_path):
    changes = [{}, {"temperature": 0.0}, {"style": "forum"}, {"style": "textbook"}, {"model": Scripted(facts="second")},
               {"bench": sums(3)}, {"samples": 3}, {"top_p": 1.0}, {"max_tokens": 50}]
    hashes = [evaluate(tmp_path / str(number), **change)["hash"] for number, change in enumerate(changes)]
    assert len(set(hashes)) == len(changes)
    assert evaluate(tmp_path / "again")["hash"] == hashes[0]


def test_a_verifier_that_fails_costs_its_answer_and_nothing_else(tmp_path):
    model = Scripted(lambda text, seed: "crash" if text == "What is 1 + 2?" else asked.right(text))
    result = evaluate(tmp_path, model=model)
    assert result["scores"]["sums pass@1"]["mean"] == 0.75
    assert any("the verifier failed on 25.00% of the replies" in text for text in result["warnings"])
    errors = [each.verifier_error for each in read_samples(tmp_path / "sums" / "samples.jsonl")]
    assert errors.count("ZeroDivisionError: no such luck") == 2


def test_a_grade_that_is_none_counts_as_a_failure_of_the_verifier(tmp_path):
    class Odd(asked.Sums):
        def verify(self, problem, answer):
            return float("nan")

    result = evaluate(tmp_path, Bench("odd", [Odd().problem(1, 2)], "odd"))
    assert result["scores"]["odd pass@1"]["mean"] == 0.0 and result["shares"]["verifier_errors"] == 1.0


def test_replies_that_were_cut_or_hold_no_answer_are_told(tmp_path):
    cut = ModelReply("on and on", "", False, False, 100, 100)
    model = Scripted(lambda text, seed: {"0": cut, "1": ""}.get(text[8], asked.right(text)))
    result = evaluate(tmp_path, model=model)
    assert result["shares"]["truncated"] == 0.25 and result["shares"]["without_answer"] == 0.5
    assert any("25.0% of the replies were cut at the limit of 100 tokens" in text for text in result["warnings"])
    assert any("50.0% of the replies hold no answer" in text for text in result["warnings"])
    assert evaluate(tmp_path / "clean")["warnings"] == []


def test_an_ill_formed_reply_is_wrong_though_it_states_the_answer(tmp_path):
    model = Scripted(lambda text, seed: ModelReply("", asked.right(text), False, False, 9, 0))
    assert evaluate(tmp_path, model=model)["scores"]["sums pass@1"]["mean"] == 0.0


def test_the_time_is_predicted_from_the_first_replies(tmp_path):
    display, model = Listening(), Scripted()
    evaluate(tmp_path, sums(8), model=model, display=display)
    assert any(text.startswith("16 replies to ask for. 2 of them came in") for text in display.texts)
    assert len(model.asked) == len(set(model.asked)) == 16


def test_few_shot_without_training_problems_shows_the_first_ones_and_does_not_ask_them(tmp_path):
    display, model = Listening(), Scripted()
    result = evaluate(tmp_path, sums(6), model=model, style="few-shot", display=display)
    assert result["problems"] == 2 and any("its first 4 problems are the examples" in text for text in display.texts)
    text = model.asked[-1][0]
    assert text.startswith("Question: What is 0 + 2?\nAnswer: 2\n\nQuestion: What is 1 + 2?\nAnswer: 3\n\n")
    with pytest.raises(UserError, match="--style few-shot: sums"):
        evaluate(tmp_path / "few", sums(3), style="few-shot")


def test_two_processes_do_not_write_into_one_folder(tmp_path):
    class Nested(Scripted):
        def ask(self, *arguments):
            evaluate(tmp_path)

    with pytest.raises(RunError, match="evaluates into this folder"):
        evaluate(tmp_path, model=Nested())


def test_samples_without_a_word_on_how_they_were_made_are_not_added_to(tmp_path):
    evaluate(tmp_path)
    (tmp_path / "sums" / "evaluation.json").unlink()
    with pytest.raises(UserError, match="no evaluation.json that says how they were made"):
        evaluate(tmp_path)


def test_held_out_problems_are_those_of_the_models_families_each_once():
    bench = find_bench("held-out", None, 6, 0, find_tasks(["arithmetic", "letters"]))
    assert {problem.family for problem in bench.problems} == {"arithmetic", "letters"} and bench.by_family
    prompts = [problem.prompt for problem in bench.problems]
    assert len(prompts) == len(set(prompts)) <= 12


def test_a_gym_set_is_scored_by_its_scorer_and_by_our_verifier(tmp_path):
    bench = find_bench("gym-chain_sum", None, 3, 0, [])
    golds = {problem.prompt: problem.answer for problem in bench.problems}
    result = evaluate(tmp_path, bench, Scripted(lambda text, seed: golds[text]))
    assert {name: score["mean"] for name, score in result["scores"].items()} == {
        "gym-chain_sum pass@1 by reasoning-gym's scorer": 1.0, "pass@1 by our verifier": 1.0}


def test_an_unknown_bench_is_a_sentence_with_the_nearest_name():
    with pytest.raises(UserError, match="--bench gsm8: unknown. Did you mean 'gsm8k'"):
        find_bench("gsm8", None, None, 0, [])


@pytest.mark.parametrize("text, told", [("", "no problem"), ("{broken\n", "line 1")])
def test_a_file_without_problems_or_with_broken_lines_is_refused(tmp_path, text, told):
    (tmp_path / "test.jsonl").write_text(text)
    with pytest.raises(UserError, match=told):
        find_bench("gsm8k", tmp_path / "test.jsonl", None, 0, [])


def test_the_first_problems_are_taken_and_it_is_told(tmp_path):
    rows = [json.dumps({"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"}) for n in (0, 1, 0, 2, 3)]
    (tmp_path / "test.jsonl").write_text("\n".join(rows))
    bench = find_bench("gsm8k", tmp_path / "test.jsonl", 3, 0, [])
    assert [problem.answer for problem in bench.problems] == ["1", "2"]
    assert bench.notes == ("gsm8k: 1 of 3 problems stand there twice and are asked once.",
                           "gsm8k: the first 3 of 5 problems.")


def test_what_a_rewording_changes_is_told_with_its_interval(tmp_path):
    bench = sums(12)
    other = reworded_bench(bench, "frame")
    originals = {problem.prompt for problem in bench.problems}
    model = Scripted(lambda text, seed: asked.right(text) if text in originals else "0")  # led astray by any other words
    results = Evaluation(model, asked.settings(), tmp_path).run([bench, other], Listening())
    assert other.name == "sums-frame" and "Source: " in other.notes[0]
    told = results[1]["sensitivity"]
    assert told["changed"]["mean"] == 1.0 and told["comparison"]["difference"] == -1.0 and "FRAMES" in told["source"]
    assert "sensitivity" not in results[0]
    assert json.loads((tmp_path / "sums-frame" / "evaluation.json").read_text())["sensitivity"]["changed"]["mean"] == 1.0


def test_a_verifier_that_cannot_work_here_says_so_before_anything_is_asked(tmp_path):
    class Confined(asked.Sums):
        def verify(self, problem, answer):
            raise UserError("Code is not run: no sandbox.")

    model = Scripted()
    with pytest.raises(UserError, match="no sandbox"):
        evaluate(tmp_path, Bench("code", [Confined().problem(1, 2)], "code"), model)
    assert not model.asked and not list(tmp_path.glob("*/samples.jsonl"))


def test_of_a_task_of_ones_own_the_held_out_problems_are_asked_or_all(monkeypatch):
    class Own(asked.Sums):
        def problems(self, split="held_out"):
            return [self.problem(number, 1) for number in ((1, 2) if split == "held_out" else (3, 4, 5))]

    monkeypatch.setattr(benches, "find_task", lambda name: Own())
    bench = find_bench("my.jsonl", None, None, 0, [])
    assert len(bench.problems) == 2 and len(bench.training) == 3
    assert bench.notes == ("my.jsonl: 2 of 5 problems are of the split held_out; --split all asks all of them.",)
    every = find_bench("my.jsonl", None, None, 0, [], "all")
    assert len(every.problems) == 5 and not every.notes and not every.training and every.data != bench.data
