"""Readers of benchmarks on files made by hand: what is asked, what is gold, what is graded right."""

import base64
import json
import pickle
import random
import re
import zlib

import pytest

from spoutnik.errors import RunError, UserError
from spoutnik.tasks.benchmarks import BENCHMARKS, hub, read_benchmark, subset
from spoutnik.tasks.benchmarks.bbh import NAMES
from spoutnik.tasks.benchmarks.revisions import REVISIONS
from spoutnik.tasks.benchmarks.table import SOURCES


def folder_with(tmp_path, name, rows):
    """A folder with one file of rows: JSON lines, a list, or a text as it is."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = rows if isinstance(rows, str) else json.dumps(rows) if name.endswith(".json") else \
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, "utf-8")
    return tmp_path


MATHS = [  # name, file, rows, gold answers, a right answer to the first, a wrong one
    ("gsm8k", "gsm8k/test.jsonl", [{"question": "Ducks?", "answer": "16-4=<<16-4=12>>12\n#### 1,200"}], ["1200"],
     "So \\boxed{1,200}.", "\\boxed{1201}"),
    ("math500", "math/math500_test.jsonl", [{"problem": "Half?", "solution": "", "answer": "\\frac{1}{2}", "subject": "Algebra",
                                             "level": 2, "unique_id": "test/algebra/1.json"}], ["\\frac{1}{2}"],
     "\\boxed{0.5}", "\\boxed{2}"),
    ("math", "math/test.jsonl", [{"problem": "Half?", "level": "Level 5", "type": "Algebra",
                                  "solution": "First \\boxed{3}, so $\\boxed{\\frac{1}{2}}$."}], ["\\frac{1}{2}"],
     "\\boxed{\\dfrac12}", "\\boxed{3}"),
    ("aime24", "aime24/aime_2024.jsonl", [{"id": 60, "problem": "Find m+n.", "answer": "033"},
                                          {"ID": "2024-I-2", "Problem": "Find it.", "Answer": 204},
                                          {"problem": "Then it.", "solution": "\\boxed{025}"}], ["33", "204", "25"],
     "\\boxed{33}", "\\boxed{34}"),
    ("aime25", "aime25/test.jsonl", [{"id": "0", "problem": "Bases?", "answer": "70"}], ["70"], "\\boxed{070}", "\\boxed{7}"),
    ("svamp", "svamp/svamp.jsonl", [{"Body": "Ann has 5 pens", "Question": "How many?", "Answer": 5.0, "Type": "Addition",
                                     "ID": "chal-1"}], ["5"], "\\boxed{5}", "\\boxed{6}"),
    ("cmath", "cmath/cmath_test.jsonl", [{"grade": 3, "question": "一共多少？", "golden": "1/4", "num_digits": 1}], ["1/4"],
     "答案是 $\\boxed{\\frac{1}{4}}$。", "\\boxed{4}"),
    ("mgsm-fr", "mgsm/mgsm_fr.tsv", "Combien ?\t2,125\nEt puis ?\t18\n", ["2125", "18"], "\\boxed{2 125}", "\\boxed{2,125}"),
    ("mgsm-de", "mgsm/mgsm_de.tsv", "Wie viele?\t2,125\n", ["2125"], "\\boxed{2.125}", "\\boxed{2,125}"),
]


@pytest.mark.parametrize("name, file, rows, golds, right, wrong", MATHS, ids=[row[0] for row in MATHS])
def test_mathematics_is_asked_as_r1_asks_it_and_graded_on_the_box(tmp_path, name, file, rows, golds, right, wrong):
    task = read_benchmark(name, folder_with(tmp_path, file, rows))
    problems = task.problems()
    assert [problem.answer for problem in problems] == golds
    assert all("\\boxed{}" in problem.prompt.splitlines()[-1] for problem in problems)
    assert task.verify(problems[0], right) == 1.0 and task.verify(problems[0], wrong) == 0.0 == task.verify(problems[0], "")
    assert all(problem.task is task and problem.language == task.languages[0] for problem in problems)
    json.dumps([problem.data for problem in problems])


def test_r1s_prompt_for_mathematics_to_the_letter(tmp_path):
    folder = folder_with(tmp_path, "test.jsonl", [{"question": "How many? ", "answer": "#### 3"}])
    problem = read_benchmark("gsm8k", folder).problems()[0]
    assert problem.data["question"] == "How many?"
    assert problem.prompt == "How many?\nPlease reason step by step, and put your final answer within \\boxed{}."


def test_levels_subjects_and_ids_are_the_file_s(tmp_path):
    rows = MATHS[1][2] + [MATHS[1][2][0] | {"unique_id": "test/geometry/2.json", "subject": "Geometry", "level": "Level 5"}]
    problems = read_benchmark("math500", folder_with(tmp_path, "math500.jsonl", rows)).problems()
    assert [(p.level, p.data["stratum"], p.data["id"]) for p in problems] == [
        (2, "Algebra", "math500/test/algebra/1.json"), (5, "Geometry", "math500/test/geometry/2.json")]


def test_ids_are_stable_and_distinct(tmp_path):
    rows = [{"question": text, "answer": "#### 3"} for text in ("a?", "b?", "a?")]
    ids = [p.data["id"] for p in read_benchmark("gsm8k", folder_with(tmp_path, "test.jsonl", rows)).problems()]
    turned = [p.data["id"] for p in read_benchmark("gsm8k", folder_with(tmp_path, "test.jsonl", rows[::-1])).problems()]
    assert len(set(ids)) == 3 and ids[2] == ids[0] + "-2" and set(turned) == set(ids)


def test_a_subset_is_stable_and_part_of_larger_ones(tmp_path):
    rows = [{"question": f"{number}?", "answer": "#### 3"} for number in range(60)]
    problems = read_benchmark("gsm8k", folder_with(tmp_path, "test.jsonl", rows)).problems()
    few, more = subset(problems, 10), subset(problems[:40] + problems[40:], 30)
    assert [p.prompt for p in few] == [p.prompt for p in problems if p in few] and all(p in more for p in few)
    assert few != problems[:10] and subset(problems, 100) == problems


def test_training_problems_come_from_their_own_file(tmp_path):
    folder_with(tmp_path, "gsm8k/train.jsonl", [{"question": "x?", "answer": "#### 4"}])
    task = read_benchmark("gsm8k", folder_with(tmp_path, "gsm8k/test.jsonl", [{"question": "y?", "answer": "#### 5"}]))
    assert [p.answer for p in task.problems("train")] == ["4"] and [p.answer for p in task.problems()] == ["5"]
    assert task.sample(random.Random(0), "held_out").answer == "5"
    alone = read_benchmark("gsm8k", tmp_path / "gsm8k" / "test.jsonl")
    with pytest.raises(UserError, match="held out"):
        alone.sample(random.Random(0))


MMLU = [
    ("mmlu/test__anatomy_test.csv", "question,choice0,choice1,choice2,choice3,answer\nWhat?,one,\"two, too\",three,four,1\n"),
    ("anatomy_test.csv", "What?,one,\"two, too\",three,four,B\n"),
    ("mmlu.jsonl", [{"question": "What?", "choices": ["one", "two, too", "three", "four"], "answer": 1, "subject": "anatomy"}]),
    ("mmlu.jsonl", [{"question": "What?", "A": "one", "B": "two, too", "C": "three", "D": "four", "answer": "B",
                     "subject": "anatomy"}]),
]


@pytest.mark.parametrize("file, rows", MMLU)
def test_mmlu_is_read_in_each_of_its_layouts(tmp_path, file, rows):
    task = read_benchmark("mmlu", folder_with(tmp_path, file, rows))
    problem = task.problems()[0]
    assert problem.answer == "B" and problem.data["stratum"] == "anatomy"
    assert problem.data["options"] == ["one", "two, too", "three", "four"]
    assert problem.prompt.startswith("Answer the following multiple choice question.") and "'Answer: $LETTER'" in problem.prompt
    assert task.verify(problem, "Hm.\nAnswer: B") == 1.0 and task.verify(problem, "Answer: A") == 0.0


GPQA = {"Question": "Which spin?", "Correct Answer": "one half ", "Incorrect Answer 1": "one", "Incorrect Answer 2": "two",
        "Incorrect Answer 3": "zero", "Record ID": "rec1", "High-level domain": "Physics"}


def test_gpqa_is_shuffled_by_a_seed_of_the_problem(tmp_path):
    rows = [GPQA | {"Question": f"Which spin {number}?", "Record ID": f"rec{number}"} for number in range(40)]
    problems = read_benchmark("gpqa", folder_with(tmp_path, "gpqa_diamond.jsonl", rows)).problems()
    again = read_benchmark("gpqa", folder_with(tmp_path, "gpqa_diamond.jsonl", rows[::-1])).problems()[::-1]
    assert [p.answer for p in problems] == [p.answer for p in again]
    assert {p.answer for p in problems} == set("ABCD")
    assert all(p.data["options"]["ABCD".index(p.answer)] == "one half" for p in problems)
    assert "'ANSWER: $LETTER'" in problems[0].prompt and problems[0].data["stratum"] == "Physics"
    assert problems[0].task.verify(problems[0], f"ANSWER: {problems[0].answer}") == 1.0


@pytest.mark.parametrize("file, rows", [
    ("mc_task.json", [{"question": "Seeds?", "mc1_targets": {"Nothing happens": 1, "Melons grow": 0, "You die": 0}}]),
    ("truthfulqa.jsonl", [{"question": "Seeds?", "mc1_targets": {"choices": ["Nothing happens", "Melons grow", "You die"],
                                                                 "labels": [1, 0, 0]}}]),
    ("TruthfulQA.csv", "Type,Question,Best Answer,Correct Answers,Incorrect Answers,Category\n"
                       "x,Seeds?,Nothing happens,a; b,Melons grow; You die,Myths\n"),
])
def test_truthfulqa_has_one_right_option(tmp_path, file, rows):
    problem = read_benchmark("truthfulqa", folder_with(tmp_path, file, rows)).problems()[0]
    assert sorted(problem.data["options"]) == ["Melons grow", "Nothing happens", "You die"]
    assert problem.data["options"]["ABC".index(problem.answer)] == "Nothing happens"


BBH = [  # task, input, target, right answers, wrong answers
    ("boolean_expressions", "not ( True ) is", "False", ["Answer: False", "so it is\nAnswer: **false**."],
     ["Answer: True", ""]),
    ("snarks", "Which?\nOptions:\n(A) this\n(B) that", "(B)", ["Answer: (B)", "Answer: B", "answer: B."], ["Answer: (A)"]),
    ("multistep_arithmetic_two", "((1 - 36)) =", "-35", ["Answer: -35", "\\boxed{-35}", "Answer: x = −35"],
     ["Answer: 35", "Answer: -3"]),
    ("word_sorting", "Sort the following words alphabetically: List: b a c", "a b c", ["Answer: a b c", "Answer: a, b, c."],
     ["Answer: b a c", "Answer: a b"]),
    ("dyck_languages", "Input: { [ <", "> ] }", ["Answer: > ] }", "Answer: `>]}`"], ["Answer: ] > }", "Answer: > ]"]),
    ("sports_understanding", "Plausible?", "yes", ["Answer: yes", "Answer: Yes."], ["Answer: no"]),
    ("formal_fallacies", "Valid?\nOptions:\n- valid\n- invalid", "invalid", ["Answer: invalid"], ["Answer: valid"]),
    ("movie_recommendation", "Find\nOptions:\n(A) Monsters\n(B) Inc", "Monsters, Inc", ["Answer: Monsters, Inc"],
     ["Answer: A"]),
]


@pytest.mark.parametrize("name, question, target, right, wrong", BBH, ids=[row[0] for row in BBH])
def test_bbh_compares_each_kind_of_answer_in_its_own_form(tmp_path, name, question, target, right, wrong):
    folder_with(tmp_path, f"bbh/{name}.json", {"canary": "x", "examples": [{"input": question, "target": target}]})
    for bench in (f"bbh-{name}", "bbh"):
        task = read_benchmark(bench, tmp_path)
        problem = task.problems()[0]
        assert problem.data["stratum"] == name and problem.answer == target
        assert [task.verify(problem, answer) for answer in right] == [1.0] * len(right)
        assert [task.verify(problem, answer) for answer in wrong] == [0.0] * len(wrong)


def test_humaneval_runs_the_function_from_the_answer(tmp_path):
    row = {"task_id": "HumanEval/7", "prompt": "def add(a, b):\n    \"\"\"The sum.\"\"\"\n", "entry_point": "add",
           "canonical_solution": "    return a + b\n", "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n"}
    task = read_benchmark("humaneval", folder_with(tmp_path, "HumanEval.jsonl", [row]))
    problem = task.problems()[0]
    assert problem.data["id"] == "humaneval/7" and "```python\ndef add(a, b):" in problem.prompt
    assert task.verify(problem, "```python\ndef add(a, b):\n    return b + a\n```") == 1.0
    assert task.verify(problem, "```python\nimport sys\ndef add(a, b):\n    sys.exit(0)\n```") == 0.0
    assert task.verify(problem, "I cannot.") == 0.0


def test_mbpp_keeps_to_the_test_split_and_shows_the_asserts(tmp_path):
    row = {"text": "Write a function to add.", "code": "def add(a, b):\n    return a + b", "test_setup_code": "",
           "test_list": ["assert add(1, 2) == 3"]}
    rows = [row | {"task_id": number} for number in (2, 11, 600)]
    task = read_benchmark("mbpp", folder_with(tmp_path, "mbpp.jsonl", rows))
    assert [p.data["id"] for p in task.problems()] == ["mbpp/11"]
    assert "assert add(1, 2) == 3" in task.problems()[0].prompt
    assert task.verify(task.problems()[0], "```python\ndef add(x, y):\n    return x + y\n```") == 1.0


def test_livecodebench_unpacks_its_hidden_tests(tmp_path):
    hidden = json.dumps([{"input": "3\n", "output": "6\n", "testtype": "stdin"}])
    packed = base64.b64encode(zlib.compress(pickle.dumps(hidden))).decode()
    row = {"question_id": "abc1", "question_content": "Double it.", "starter_code": "", "difficulty": "easy", "metadata": "{}",
           "public_test_cases": json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}]),
           "private_test_cases": packed}
    task = read_benchmark("livecodebench", folder_with(tmp_path, "test.jsonl", [row]))
    problem = task.problems()[0]
    assert "standard input" in problem.prompt and problem.data["stratum"] == "easy"
    assert task.verify(problem, "```python\nprint(2 * int(input()))\n```") == 1.0
    assert task.verify(problem, "```python\nprint(2)\n```") == 0.0


def test_ifeval_is_right_when_all_instructions_are_obeyed(tmp_path):
    row = {"key": 1, "prompt": "Write. No commas, all lower case.",
           "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"], "kwargs": [{}, {}]}
    task = read_benchmark("ifeval", folder_with(tmp_path, "input_data.jsonl", [row]))
    problem = task.problems()[0]
    assert task.verify(problem, "this is a text in english") == 1.0
    assert task.verify(problem, "this is, a text in english") == 0.0 == task.verify(problem, "")
    with pytest.raises(UserError, match="line 1: .*no_coma"):
        read_benchmark("ifeval", folder_with(tmp_path, "input_data.jsonl", [
            row | {"instruction_id_list": ["punctuation:no_coma"], "kwargs": [{}]}]))


HOSTILE = ["", " ", "\0", "\u202e5", "Answer:", "Answer: ", "\\boxed{", "\\boxed{" * 300, "}" * 500, "=" * 20_000 + "5",
           "Answer: " + "1," * 20_000, "answer is " * 5_000, "9" * 100_000, "\ud800", "x" * 1_000_000]


@pytest.mark.parametrize("name, file, rows", [
    (*MATHS[0][:3],), (*MATHS[1][:3],), (*MATHS[3][:3],), ("mmlu", *MMLU[2]), ("gpqa", "gpqa.jsonl", [GPQA]),
    ("ifeval", "ifeval.jsonl", [{"prompt": "Write.", "instruction_id_list": ["detectable_format:title"], "kwargs": [{}]}]),
    *((f"bbh-{name}", f"{name}.json", [{"input": question, "target": target}]) for name, question, target, *_ in BBH)])
def test_no_answer_raises_or_is_right_by_accident(tmp_path, name, file, rows):
    task = read_benchmark(name, folder_with(tmp_path, file, rows))
    problem = task.problems()[0]
    assert [task.verify(problem, answer) for answer in HOSTILE] == [0.0] * len(HOSTILE)
    for answer in HOSTILE:
        task.extract(problem, answer)


def test_votes_count_answers_together_that_say_the_same(tmp_path):
    maths = read_benchmark("gsm8k", folder_with(tmp_path, *MATHS[0][1:3]))
    assert maths.same("1/2", "0.5") and not maths.same("1/2", "2")
    other = read_benchmark("mmlu", folder_with(tmp_path, *MMLU[2]))
    assert other.same("A ", "A") and not other.same("A", "B")


WRONG = [
    ("gsm8k", "test.jsonl", [{"question": "q", "answer": "#### 3"}, {"question": "q", "answer": "three"}], "line 2: .*####"),
    ("gsm8k", "test.jsonl", [{"question": "q"}], "line 1: the field 'answer' is missing"),
    ("gsm8k", "test.jsonl", [{"question": "q", "answer": 3}], "line 1: the field 'answer' is '3'"),
    ("gsm8k", "test.jsonl", "", "there is no problem in it"),
    ("math", "test.jsonl", [{"problem": "q", "solution": ""}], "line 1: the field 'solution'"),
    ("aime24", "test.jsonl", [{"problem": "q", "answer": 1000}], "no integer from 0 to 999"),
    ("math", "test.jsonl", [{"problem": "q", "solution": "So it is $5$."}], "no .boxed.answer."),
    ("aime24", "test.jsonl", [{"problem": "q", "answer": "5 or 12"}], "no integer from 0 to 999"),
    ("mgsm-fr", "mgsm_fr.tsv", "a\tb\tc\n", "line 1: has 3 columns"),
    ("mmlu", "test.jsonl", [{"question": "q", "choices": ["a", "b"], "answer": 2}], "line 1: the answer '2'"),
    ("mmlu", "x_test.csv", "a,b,c\n", "line 1: has 3 columns"),
    ("mmlu", "test.jsonl", [{"question": "q", "answer": 2}], "the options are missing"),
    ("gpqa", "test.jsonl", [{"Question": "q", "Correct Answer": "a"}], "Incorrect Answer 1"),
    ("truthfulqa", "mc_task.json", [{"question": "q", "mc1_targets": {"a": 0, "b": 0}}], "0 options are right"),
    ("truthfulqa", "mc_task.json", [{"question": "q", "mc1_targets": [1]}], "a mapping of options"),
    ("bbh-snarks", "snarks.json", {"examples": [{"input": "q\n(A) x\n(B) y", "target": "(C)"}]},
     "none of the question's options"),
    ("humaneval", "test.jsonl", [{"task_id": "HumanEval/0", "prompt": "def f(", "test": "x", "entry_point": "f"}], "line 1: "),
    ("mbpp", "mbpp.jsonl", [{"task_id": 11, "text": "t", "test_list": []}], "line 1: "),
    ("livecodebench", "test.jsonl", [{"question_id": "1", "question_content": "q"}], "public_test_cases"),
    ("ifeval", "input_data.jsonl", [{"prompt": "p", "instruction_id_list": [], "kwargs": []}], "instruction_id_list"),
]


@pytest.mark.parametrize("name, file, rows, sentence", WRONG)
def test_a_broken_file_is_a_sentence_with_file_and_place(tmp_path, name, file, rows, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        read_benchmark(name, folder_with(tmp_path, file, rows))
    assert file in str(error.value)


def test_missing_files_and_names_are_sentences(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'gsm8k'"):
        read_benchmark("gsm8", tmp_path)
    with pytest.raises(UserError, match="no such file or folder"):
        read_benchmark("gsm8k", tmp_path / "nowhere")
    with pytest.raises(UserError, match="no file of gsm8k.*test.jsonl"):
        read_benchmark("gsm8k", tmp_path)
    with pytest.raises(UserError, match="judge"):
        read_benchmark("mt_bench", tmp_path)


def test_every_name_of_the_issue_can_be_read():
    wanted = {"gsm8k", "math500", "math", "aime24", "aime25", "mmlu", "gpqa", "humaneval", "mbpp", "livecodebench", "ifeval",
              "mgsm-fr", "bbh", "truthfulqa", "svamp", "cmath", "mt_bench", *(f"bbh-{name}" for name in NAMES)}
    assert wanted <= set(BENCHMARKS) and len(NAMES) == 27


class FakeHub:
    """Stands for the package `datasets`."""

    def __init__(self, rows):
        self.rows, self.asked = rows, []

    def load_dataset(self, repository, config, split, revision):
        self.asked.append((repository, config, split, revision))
        if isinstance(self.rows, Exception):
            raise self.rows
        return self.rows


def test_the_hub_s_rows_are_read_like_a_file_s(monkeypatch):
    fake = FakeHub([{"question": "What?", "choices": ["a", "b", "c", "d"], "answer": 3, "subject": "law"}])
    monkeypatch.setattr(hub, "datasets_library", lambda what: fake)
    benchmark = read_benchmark("mmlu", None)
    assert fake.asked == [("cais/mmlu", "all", "test", REVISIONS["cais/mmlu"])]
    assert benchmark.problems()[0].answer == "D" and benchmark.notes == (
        "mmlu: cais/mmlu of the hub, c30699e8356da336a370243923dbaf21066bb9fe.",)


def test_bbh_from_the_hub_knows_its_tasks(monkeypatch):
    monkeypatch.setattr(hub, "datasets_library", lambda what: FakeHub([{"input": "Plausible?", "target": "yes"}]))
    assert [p.data["stratum"] for p in read_benchmark("bbh", None).problems()] == list(NAMES)


def test_a_hub_out_of_reach_or_without_its_package_is_a_sentence(monkeypatch):
    monkeypatch.setattr(hub, "datasets_library", lambda what: FakeHub(ConnectionError("offline\nmore")))
    with pytest.raises(RunError, match="gsm8k: openai/gsm8k cannot be read from the hub .offline more.*--data"):
        read_benchmark("gsm8k", None)
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(UserError, match=r"gsm8k.*openai/gsm8k.*spoutnik\[datasets\]"):
        read_benchmark("gsm8k", None)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_source_says_where_the_hub_has_it(name):
    source = SOURCES[name]
    assert source.hub.repository.count("/") == 1 and source.files and source.about and source.folders
    unknown = name == "cmath" or name.startswith("mgsm")
    assert unknown or re.fullmatch("[0-9a-f]{40}", REVISIONS[source.hub.repository])


def test_a_percentage_that_is_asked_for_may_have_its_sign(tmp_path):
    """GSM8K's golds never have it, MATH's have it in half of such problems."""
    rows = [{"question": question, "answer": "#### 20"} for question in ("What percent of them are red?", "How many are red?")]
    task = read_benchmark("gsm8k", folder_with(tmp_path, "test.jsonl", rows))
    asking, other = task.problems()
    assert task.verify(asking, r"\boxed{20\%}") == task.verify(asking, r"\boxed{20}") == 1.0
    assert task.extract(asking, r"\boxed{20\%}") == task.extract(asking, r"\boxed{20}")
    assert task.verify(asking, r"\boxed{0.2}") == task.verify(asking, r"\boxed{21\%}") == 0.0
    assert task.verify(other, r"\boxed{20\%}") == 0.0
