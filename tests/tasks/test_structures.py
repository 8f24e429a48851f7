"""Held out by structure: no text of training has a problem like a held-out one, whatever its names and numbers."""

import json
import random
import re
from functools import cache
from itertools import islice

import pytest
from tasks_helpers import CASES

from spoutnik.tasks import FAMILIES, Problem, is_held_out, sample
from spoutnik.tasks.catalog import find_tasks
from spoutnik.tasks.corpus import documents
from spoutnik.tasks.families.letters import word_key
from spoutnik.tasks.midtraining import midtraining_documents
from spoutnik.tasks.names import NAMES
from spoutnik.tasks.problem import held_out_by_hash
from spoutnik.train.grpo_settings import GRPOSettings
from spoutnik.train.rollouts import sample_problems
from spoutnik.train.sampling import step_prompts
from spoutnik.train.sft import ColdStartSettings, general_traces, solver_traces

BY_STRUCTURE = dict(zip(FAMILIES, find_tasks(FAMILIES, "structure"), strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_level_has_problems_of_both_splits_that_share_no_structure(case):
    family, rng = BY_STRUCTURE[case[0]], random.Random(0)
    drawn = [family.generate(rng, case[1], rng.choice(family.languages)) for _ in range(300)]
    held_out = {key for problem in drawn if is_held_out(problem) for key in family.structures(problem)}
    trained = {key for problem in drawn if not is_held_out(problem) for key in family.structures(problem)}
    assert held_out and trained
    assert not any(map(held_out_by_hash, trained))
    assert not held_out & trained or case[0] == "letters"  # a problem of several words is held out by one of them
    assert is_held_out(sample(family, rng, case[1], "en", "held_out"))


def twins(name: str) -> list[tuple[dict, dict, bool]]:
    """Problems' data, and whether they are of one structure."""
    return {
        "arithmetic": [({"expression": "12 + 7 * 3 - 5"}, {"expression": "1 + 2 * 40 - 8"}, True),
                       ({"expression": "12 + 7 - 5"}, {"expression": "12 - 5 + 7"}, True),
                       ({"expression": "12 + 7 * 3 - 5"}, {"expression": "12 - 7 * 3 - 5"}, False)],
        "bases": [({"value": 10, "from": 10, "to": 2}, {"value": 10, "from": 2, "to": 10}, True),
                  ({"value": 10, "from": 10, "to": 2}, {"value": 10, "from": 10, "to": 3}, False)],
        "calendar": [({"weekday": 0, "days": 10}, {"weekday": 5, "days": 10}, True),
                     ({"weekday": 0, "days": 31}, {"weekday": 1, "from": [0, 5], "to": [1, 5]}, True),
                     ({"weekday": 0, "days": 10}, {"weekday": 0, "days": -10}, False)],
        "countdown": [({"numbers": [3, 5, 8], "target": 16}, {"numbers": [3, 5, 8], "target": 6}, True),
                      ({"numbers": [3, 5, 8], "target": 16}, {"numbers": [3, 5, 9], "target": 17}, False)],
        "equations": [({"a": 3, "b": 4, "d": 0, "e": 19, "x": 5}, {"a": 2, "b": 20, "d": 5, "e": 5, "x": 5}, True),
                      ({"a": 3, "b": 4, "d": 0, "e": 19, "x": 5}, {"a": 3, "b": 4, "d": 0, "e": 16, "x": 4}, False)],
        "letters": [({"words": ["pear"], "letter": "a"}, {"reverse": "pear"}, True),
                    ({"words": ["pear"], "letter": "a"}, {"words": ["plum"], "letter": "a"}, False)],
        "spell": [({"word": "pear", "shown_letter": "a"}, {"word": "pear", "shown_letter": ""}, True)],
        "operations": [({"operation": [3, "+", 4]}, {"operation": [4, "+", 3]}, True),
                       ({"operation": [7, "-", 4]}, {"operation": [4, "-", 7]}, False)],
        "liars": [({"names": ["Max", "Eva"], "statements": [["is", 1, False], ["count", 0]]},
                   {"names": ["Leo", "Ben"], "statements": [["count", 0], ["is", 0, False]]}, True),
                  ({"names": ["Max", "Eva"], "statements": [["is", 1, False], ["count", 0]]},
                   {"names": ["Max", "Eva"], "statements": [["is", 1, True], ["count", 0]]}, False)],
        "ordering": [({"chain": ["Anna", "Ben", "Leo"], "relation": "height", "rank": 1, "from_top": True,
                       "shown_facts": [[0, False], [1, True]]},
                      {"chain": ["Max", "Eva", "Ben"], "relation": "age", "rank": 1, "from_top": False,
                       "shown_facts": [[1, True], [0, False]]}, True),
                     ({"chain": ["Anna", "Ben", "Leo"], "relation": "height", "rank": 1, "from_top": True,
                       "shown_facts": [[0, False], [1, True]]},
                      {"chain": ["Anna", "Ben", "Leo"], "relation": "height", "rank": 2, "from_top": True,
                       "shown_facts": [[0, False], [1, True]]}, False)],
    }[name]


@pytest.mark.parametrize("name", FAMILIES)
def test_twins_are_of_one_structure_and_others_are_not(name):
    family = BY_STRUCTURE[name]
    for one, other, alike in twins(name):
        keys = [sorted(family.structures(Problem(family, 1, "en", "", "", data))) for data in (one, other)]
        assert (keys[0] == keys[1]) == alike


def test_held_out_by_instance_is_what_it_was():
    problem = Problem(FAMILIES["countdown"], 1, "en", "", "", {"numbers": [3, 5, 8], "target": 16})
    assert is_held_out(problem) == held_out_by_hash('countdown {"numbers":[3,5,8],"target":16}')
    assert find_tasks(["spell"], "structure")[0].split_keys(Problem(FAMILIES["spell"], 1, "en", "", "", {
        "word": "strawberry", "shown_letter": "r"})) == (word_key("strawberry"),)


@cache
def training_texts(held_out: str) -> list[str]:
    """Every question of every kind of training, and the texts around them."""
    tasks = find_tasks(FAMILIES, held_out)
    texts = list(islice(documents(random.Random(1), tasks), 1500))
    texts += islice(midtraining_documents(random.Random(2), tasks), 600)
    traces = solver_traces(ColdStartSettings(traces=600), tasks, 0, 0.3) + general_traces(100, 0, tasks, 0.5)
    problems = sample_problems(random.Random(3), tasks, 600, "train", 0.3)
    settings = GRPOSettings(steps=10, learning_rate=1e-3, general_share=0.3, dialogue_share=0.3)
    problems += step_prompts(settings, tasks, 0, "rl", 7, True)
    for row in traces:
        texts += [f"{question}\n{answer}" for question, answer in row["history"]]
        texts.append(f"{row['prompt']}\n{row['thought']}")
    for problem in problems:
        texts += [*(f"{question}\n{answer}" for question, answer in problem.history), problem.prompt]
    return texts


def nameless(text: str) -> str:
    """A puzzle with the persons numbered as they come."""
    numbers: dict[str, str] = {}
    text = re.sub(r"\b(" + "|".join(NAMES) + r")\b", lambda match: numbers.setdefault(match[0], f"P{len(numbers)}"), text)
    return re.sub(r"\bqu'|\bque ", "que ", text)


def puzzles(text: str) -> set[str]:
    """Of liars and of ordering, from their first statement on: without names, in the language in which they are told."""
    said = re.findall(r"(?:\b[A-Z]\w+ (?:says|dit) ?: [^.]*\. ?){2,3}", text)
    compared = re.findall(r"(?:\b[A-Z]\w+ (?:is|est) [^.?\n]* (?:than|que|qu'\w+) ?\w*\. ){2,4}[^.?\n]*", text)
    return {nameless(puzzle).strip(" ?.") for puzzle in (*said, *compared)}


def spelled(text: str) -> set[str]:
    """Words that the text names and spells, or counts letter by letter: `pear: p, e, a, r` and `p 0, e 0, a 1, r 1`."""
    drilled = {word for word, letters in re.findall(r"(\w+) ?: (\w(?:, \w)+)\.", text) if word == letters.replace(", ", "")}
    counted = {"".join(re.findall(r"[^\W\d]", marks)) for marks in re.findall(r"(?<!\w)\w \d+(?:, \w \d+){2,}", text)}
    return drilled | counted & set(re.findall(r"[^\W\d_]+", text.lower()))


def held_out_puzzles(names: tuple[str, ...]) -> set[str]:
    rng = random.Random(5)
    return {puzzle for name in names for level in (1, 2, 3) for language in ("en", "fr") for _ in range(150)
            for puzzle in puzzles(sample(BY_STRUCTURE[name], rng, level, language, "held_out").prompt)}


def test_no_training_text_has_a_held_out_puzzle_under_other_names():
    wanted = held_out_puzzles(("liars", "ordering"))
    assert len(wanted) > 200
    by_structure, by_instance = (set().union(*map(puzzles, training_texts(split))) for split in ("structure", "instance"))
    assert len(by_structure) > 300 and not by_structure & wanted
    assert len(by_instance & wanted) > 20  # as it was: the like of them was read


def keys_asked(text: str) -> set[str]:
    """Of questions of arithmetic, countdown, equations, bases and calendar, read from the text alone."""
    keys = set()
    for expression in re.findall(r"(?<![\d+*(-])(?<![+*-] )\d+(?: ?[-+*] ?\d+){2,}(?!\d| ?[-+*=(])", text):
        expression = re.sub(r" ?([-+*]) ?", r" \1 ", expression)
        if "*" in expression:
            keys.add(f"arithmetic structure {json.dumps(re.sub('[0-9]+', 'n', expression))}")
    for numbers in re.findall(r"(?:Use|numbers|uses|Utilise|nombres|utilise) (\d+(?:, \d+){2,3})", text):
        keys.add(f"countdown structure {sorted(map(int, numbers.split(', ')))}".replace(", ", ","))
    for pattern, sign in ((r"in (\d+) days|dans (\d+) jours|(\d+) days later|(\d+) jours après", 1),
                          (r"(\d+) days ago|il y a (\d+) jours|(\d+) days earlier|(\d+) jours avant", -1)):
        keys |= {f'calendar structure {{"days":{sign * int("".join(days))}}}' for days in re.findall(pattern, text)}
    for a, sign, b, e in re.findall(r"(?<![\dx+-])(?<![-+] )(\d+)x ?([-+]) ?(\d+) = (-?\d+)(?![\dx])", text):
        rest = int(e) - int(sign + b)
        keys.add(f"equations structure [{a},{rest}]")
    for number, base in re.findall(r"(?:Write|Convert|Écris|Convertis) (\d+) (?:in|to|en) base (\d)", text):
        keys.add(f"bases structure [{number},{base}]")
    return keys


def test_no_question_of_training_has_a_held_out_structure():
    by_structure, by_instance = (set().union(*map(keys_asked, training_texts(split)))
                                 for split in ("structure", "instance"))
    for name in ("arithmetic", "countdown", "calendar", "equations", "bases"):
        asked = {key for key in by_structure if key.startswith(name)}
        assert len(asked) > 30 and not any(map(held_out_by_hash, asked)), name
        assert any(held_out_by_hash(key) for key in by_instance if key.startswith(name)), name


def test_no_training_text_spells_a_held_out_word():
    known = set().union(*(spelled(text) for text in training_texts("structure")))
    held_out = {word for word in known if held_out_by_hash(word_key(word))}
    assert len(known) > 600 and not held_out
    before = set().union(*(spelled(text) for text in training_texts("instance")))
    assert any(held_out_by_hash(word_key(word)) for word in before)
