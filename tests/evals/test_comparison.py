"""Two evaluations compared: paired, refused with the reason where they cannot be."""

import json

import numpy as np
import pytest
from saved_samples import row, rows_of, save

from spoutnik.errors import UserError
from spoutnik.evals.comparison import compare
from spoutnik.evals.results import compare_folders
from spoutnik.evals.saved import read_evaluation
from spoutnik.evals.statistics import holm, sign_flip_test


def test_differences_are_paired_by_problem(tmp_path):
    a = save(tmp_path / "a", rows_of([[1, 0], [0, 0], [1, 1], [0, 0]]), "base")
    b = save(tmp_path / "b", rows_of([[1, 1], [1, 0], [1, 1], [0, 0]])[::-1], "tuned")
    result = compare(a, b)
    assert (result.mean_a, result.mean_b, result.difference) == (0.375, 0.625, 0.25) and result.problems == 4
    assert result.p_value == sign_flip_test([0.5, 0.5, 0, 0]) == 0.5 and not result.differs and result.not_worse is None
    assert result.sentences[0].startswith("tuned 62.5%, base 37.5% on the same 4 problems: +25.0 points")
    assert "no difference is shown" in result.sentences[0]


def test_a_difference_that_is_there_is_seen_only_with_pairs(tmp_path):
    easy = [[1, 1, 1, 1]] * 60 + [[0, 0, 0, 0]] * 60
    better = [[1, 1, 1, 1]] * 60 + [[1, 0, 0, 0]] * 40 + [[0, 0, 0, 0]] * 20
    result = compare(save(tmp_path / "a", rows_of(easy), "a"), save(tmp_path / "b", rows_of(better), "b"), 0.02)
    assert result.differs and result.low > 0 and result.not_worse and not result.equivalent
    assert "b is better" in result.sentences[0] and "Not worse by 2 points: shown" in result.sentences[1]


def test_the_same_samples_are_equivalent_and_fewer_problems_show_nothing(tmp_path):
    many, few = rows_of([[1, 0]] * 200), rows_of([[1, 0]] * 5)
    same = compare(save(tmp_path / "a", many), save(tmp_path / "b", many), 0.05)
    assert same.equivalent and same.not_worse and not same.differs and same.p_value == 1.0
    assert "Equivalent within 5 points: shown" in same.sentences[1] and str(tmp_path / "a") in same.sentences[0]
    small = compare(save(tmp_path / "c", few), save(tmp_path / "d", few), 0.05)
    assert not small.not_worse and "not shown" in small.sentences[1]


@pytest.mark.parametrize("margin", [0, 2, -0.1])
def test_a_margin_that_is_no_share_is_refused(tmp_path, margin):
    folder = save(tmp_path / "a", rows_of([[1]]))
    with pytest.raises(UserError, match="--margin"):
        compare(folder, folder, margin)


def test_other_settings_are_named_and_refused(tmp_path):
    a = save(tmp_path / "a", rows_of([[1]]), libraries={"torch": "2.1", "sympy": "1"}, spoutnik="1.0")
    b = save(tmp_path / "b", rows_of([[1]]), libraries={"torch": "2.2", "sympy": "1"}, spoutnik="1.1")
    with pytest.raises(UserError) as error:
        compare(a, b)
    assert "libraries.torch: '2.1' and '2.2'" in str(error.value) and "spoutnik: '1.0' and '1.1'" in str(error.value)
    assert "sympy" not in str(error.value)


def test_the_model_may_differ(tmp_path):
    a = save(tmp_path / "a", rows_of([[1]]), "x", model={"sha": 1})
    b = save(tmp_path / "b", rows_of([[1]]), "y", model={"sha": 2, "rendered_prompt": "z"})
    assert compare(a, b).problems == 1


def test_other_problems_are_counted_and_refused(tmp_path):
    a, b = save(tmp_path / "a", rows_of([[1], [1], [0]])), save(tmp_path / "b", rows_of([[1]]))
    with pytest.raises(UserError, match=r"2 are in the first alone and 0 in the second alone \(p1\)"):
        compare(a, b)


def test_several_comparisons_are_corrected_together(tmp_path):
    reference = save(tmp_path / "r", rows_of([[0]] * 8))
    others = [save(tmp_path / f"o{n}", rows_of([[1]] * n + [[0]] * (8 - n)), f"o{n}") for n in (8, 7, 1)]
    results, _ = compare_folders(reference, others)
    assert [result.p_value for result in results] == [2 / 256, 2 / 128, 1.0]
    assert [result.p_adjusted for result in results] == [6 / 256, 4 / 128, 1.0]
    assert "corrected for several comparisons" in results[0].sentences[0]


def test_what_is_not_worse_is_corrected_as_well(tmp_path):
    rng = np.random.default_rng(0)
    reference = save(tmp_path / "r", rows_of([[1], [0]] * 60))
    others = [save(tmp_path / f"o{n}", rows_of([[int(rng.random() < 0.95 if i % 2 == 0 else rng.random() < 0.05)]
                                                for i in range(120)]), f"o{n}") for n in range(3)]
    alone = [compare(reference, other, margin=0.04) for other in others]
    together, _ = compare_folders(reference, others, margin=0.04)
    for name in ("p_not_worse", "p_equivalent"):
        assert [getattr(each, name) for each in together] == pytest.approx(holm([getattr(each, name) for each in alone]))
    assert any(one.not_worse and not all_.not_worse for one, all_ in zip(alone, together))


def test_uneven_numbers_of_samples_are_told(tmp_path):
    a, b = save(tmp_path / "a", rows_of([[1, 1]]), "x"), save(tmp_path / "b", rows_of([[1]]), "y")
    assert any("x has 2 samples of a problem and y 1" in sentence for sentence in compare(a, b).sentences)


def test_the_first_of_two_lines_counts_and_a_cut_last_line_does_not(tmp_path):
    rows = rows_of([[1, 0]]) + [row("p0", 0, 0.0)]
    saved = read_evaluation(save(tmp_path / "a", rows, end='{"task": "gsm8k", "pro'))
    assert [each["correct"] for each in saved.rows] == [1, 0]
    assert "last line is cut" in saved.notes[0] and "1 samples stand there more than once" in saved.notes[1]


@pytest.mark.parametrize("text, sentence", [
    ('{"task": "gsm8k"}\n', "line 1: 'problem' of the sample is 'None'"),
    ('{"cut\n' + json.dumps(row("p", 0, 1.0)) + "\n", "line 1: not valid JSON"),
    ('{"cut\n', "line 1: not valid JSON"),
    (json.dumps(row("p", 0, 1.5)) + "\n", "line 1: 'correct' is 1.5"),
    (json.dumps(row("p", 0, float("nan"))) + "\n", "line 1: 'correct' is nan"),
    (json.dumps(row("p", True, 1.0)) + "\n", "'sample' of the sample is 'True'"),
    ("3\n", "line 1: is no sample"),
    ("", "has no samples"),
])
def test_broken_samples_are_sentences(tmp_path, text, sentence):
    folder = save(tmp_path / "a", [])
    (folder / "samples.jsonl").write_text(text, "utf-8")
    with pytest.raises(UserError, match=sentence):
        read_evaluation(folder)


def test_a_folder_without_an_evaluation_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="has no samples.jsonl"):
        read_evaluation(tmp_path)
    folder = save(tmp_path / "a", rows_of([[1]]))
    (folder / "evaluation.json").write_text("{}", "utf-8")
    with pytest.raises(UserError, match="identity"):
        read_evaluation(folder)
