"""Duplicates and contamination on texts made by hand."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from spoutnik.tasks.hygiene import HygieneReport, clean, contamination, duplicates, words_of

EGGS = "Janet has sixteen ducks that lay one egg each day, and she sells what remains at the market for two dollars an egg."
TRAIN = "A train leaves the station at noon and travels sixty miles an hour until it reaches the next town after three hours."
SHORT = "What is the sum of the first ten primes?"  # nine words
TINY = "Compute sin 60."
ZH_LONG = "一列火车中午从车站出发，以每小时六十公里的速度行驶，三小时后到达下一个城市。"


def words(rng: random.Random, count: int) -> str:
    return " ".join("".join(rng.choice("abcdefghij") for _ in range(6)) for _ in range(count))


def test_exact_duplicates_differ_by_case_and_spaces_alone():
    report = duplicates([EGGS, TRAIN, EGGS.upper(), "  " + TRAIN.replace(" ", "\n"), "", ""])
    assert report.exact == {2: 0, 3: 1} and report.near == {}
    assert report.sentence() == "6 texts: 2 exact and 0 near duplicates of earlier ones"


def test_signs_tell_problems_apart():
    report = duplicates(["Solve x + 1 = 5.", "Solve x - 1 = 5."])
    assert not report.exact and not report.near


def test_near_duplicates_have_a_jaccard_similarity_of_08():
    rng = random.Random(0)
    text = words(rng, 60)
    one, many = text.split(), text.split()
    one[30] = "changed"  # 3 of 58 shingles differ: 55 / 61
    for place in range(0, 60, 6):
        many[place] = f"changed{place}"
    report = duplicates([text, " ".join(one), " ".join(many), words(rng, 60)])
    assert report.near == {1: 0} and report.exact == {}
    assert duplicates([text, " ".join(one)], near=False).near == {}
    assert duplicates([text, " ".join(one)], jaccard=0.95).near == {}


def test_near_duplicates_are_all_those_of_all_pairs():
    rng = random.Random(1)
    texts = []
    for _ in range(25):
        base = words(rng, 30).split()
        for changed in (0, 1, 2, 4):
            variant = list(base)
            for place in rng.sample(range(30), changed):
                variant[place] = words(rng, 1)
            texts.append(" ".join(variant))

    def similarity(a: str, b: str) -> float:
        first, second = (set(zip(*(text.split()[i:] for i in range(3)))) for text in (a, b))
        return len(first & second) / len(first | second)

    kept, near = [], {}
    for number, text in enumerate(texts):
        earlier = [other for other in kept if similarity(text, texts[other]) >= 0.8]
        if earlier:
            near[number] = earlier[0]
        else:
            kept.append(number)
    report = duplicates(texts)
    assert report.near | report.exact == near and len(near) >= 10


def test_ten_words_in_a_row_are_contamination_and_nine_are_not():
    ten, nine = (" ".join(TRAIN.split()[2:2 + count]) for count in (10, 9))
    report = contamination([f"Consider this: {ten.upper()}!", f"Consider this: {nine}.", EGGS], {"trains": [SHORT, TRAIN]})
    assert report.texts == {0} and report.by_benchmark == {"trains": 1}
    assert report.overlaps[0].problem == 1 and report.overlaps[0].words == ten
    assert "1 with trains" in report.sentence() and "text 1 and problem 2 of trains" in report.sentence()


def test_ngrams_of_another_size():
    text = " ".join(TRAIN.split()[2:14])
    assert contamination([text], {"b": [TRAIN]}, size=12).texts == {0}
    assert contamination([text], {"b": [TRAIN]}, size=13).texts == set()


def test_short_problems_are_compared_whole():
    texts = [SHORT, f"Please answer: {SHORT} Thank you.", "What is the sum of the first nine primes?", TINY,
             f"{TINY} Then add 3."]
    report = contamination(texts, {"short": [SHORT, TINY]})
    assert report.texts == {0, 1, 3}  # three words within a text are no evidence


def test_chinese_without_spaces():
    report = contamination([f"请解答：{ZH_LONG[:26]}。", ZH_LONG[:12] + "很快。", "今天天气很好。"], {"zh": [ZH_LONG]})
    assert report.texts == {0}
    assert duplicates([ZH_LONG, ZH_LONG.replace("，", "， ")]).exact == {1: 0}
    assert words_of("火车 Train 42") == ["火", "车", "train", "42"]


def test_every_benchmark_is_counted():
    report = contamination([TRAIN, EGGS], {"a": [TRAIN], "b": ["", EGGS, TRAIN], "c": [SHORT]})
    assert report.by_benchmark == {"a": 1, "b": 2}
    assert contamination([], {"a": [TRAIN]}).texts == set()
    assert "none shares" in contamination([EGGS], {"a": [TRAIN]}).sentence()


def test_clean_drops_and_counts():
    kept, report = clean([EGGS, EGGS.lower(), TRAIN, SHORT, "Something of one's own."], {"bench": [TRAIN, SHORT]})
    assert kept == [0, 4]
    assert report == HygieneReport(5, 2, exact_duplicates=1, contaminated=2, by_benchmark={"bench": 2})
    assert report.as_dict() == {"read": 5, "kept": 2, "exact_duplicates": 1, "near_duplicates": 0, "contaminated": 2,
                                "by_benchmark": {"bench": 2}}
    assert report.sentence() == "5 texts read, 2 kept, 1 exact duplicates, 2 contaminated (bench 2)"


TEXTS = st.lists(st.text(alphabet=st.sampled_from("ab c火か\x00\ud800é.$\u200f"), max_size=60), max_size=8)


@settings(max_examples=60, deadline=None)
@given(TEXTS, TEXTS)
def test_any_texts_are_counted(texts, problems):
    kept, report = clean(texts, {"bench": problems})
    assert report.read == len(texts) == report.kept + report.exact_duplicates + report.near_duplicates + report.contaminated
    assert kept == sorted(set(kept)) and len(kept) == report.kept
    problem_words = [words_of(problem) for problem in problems]
    assert not any(words_of(texts[number]) in problem_words for number in kept if words_of(texts[number]))
