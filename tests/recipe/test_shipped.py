"""What ships with the package: the very artifacts of the nano recipe, whose models answer what their cards suggest."""

import random
from pathlib import Path

import pytest

import spoutnik
from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.files import read_json
from spoutnik.generation.catalog import default_model, list_models
from spoutnik.generation.model_card import read_model_card
from spoutnik.recipe.artifacts import find, stage_key
from spoutnik.recipe.extension import manifest_contents
from spoutnik.recipe.run import stage_settings
from spoutnik.recipe.schema import load_recipe
from spoutnik.tasks import FAMILIES, LANGUAGES, accuracy_reward
from spoutnik.tasks.examples import examples
from spoutnik.text.thought import read_reply
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.prompt_style import conversation_ids

PREBUILT = Path(spoutnik.__file__).parent / "prebuilt"
RECIPE = Path(__file__).parents[2] / "recipes" / "nano.yaml"
BASES = sorted(PREBUILT.glob("*-*"))
MODELS = sorted((PREBUILT / "nano").glob("*-*"))


@pytest.mark.parametrize("folder", [*BASES, *MODELS], ids=lambda folder: folder.name)
def test_a_shipped_artifact_is_whole_and_the_recipe_s_own(folder):
    manifest, recipe = read_json(folder / "manifest.json"), load_recipe(RECIPE)
    stage = manifest["stage"]
    assert find(folder, stage, manifest["key"]) is not None
    assert folder.name == f"{stage}-{manifest['key'][:12]}"
    contents = manifest_contents(manifest)
    settings = stage_settings(recipe, recipe.stages[stage], str(RECIPE))
    assert stage_key(manifest["kind"], settings, manifest["seed"], contents) == manifest["key"]
    made = {read_json(path / "manifest.json")["stage"]: read_json(path / "manifest.json")["content"] for path in BASES}
    assert all(made[source["stage"]] == source["content"] for source in manifest["inputs"].values() if source["stage"] in made)


@pytest.mark.parametrize("folder", [*BASES, *MODELS], ids=lambda folder: folder.name)
def test_every_shipped_model_brings_a_card(folder):
    card = read_model_card(folder)
    converses = folder in MODELS
    assert all(card.description[language].endswith(".") for language in LANGUAGES)
    assert all(bool(card.examples[language]) == converses for language in LANGUAGES)
    assert ("continues a text" in card.description["en"]) != converses


@pytest.fixture(scope="module", params=MODELS, ids=lambda folder: folder.name)
def shipped(request):
    tokenizer = Tokenizer.load(request.param)
    return request.param, LLM(request.param, tokenizer), tokenizer


def shares(shipped, questions: list[tuple[tuple, str, str]], seed: int = 0) -> list[float]:
    """The share of right answers to each (history, question, right answer), sampled as in chat."""
    folder, llm, tokenizer = shipped
    defaults = read_json(folder / "generation_config.json")
    params = SamplingParams(n=20, temperature=defaults["temperature"], top_p=defaults["top_p"], max_tokens=400)
    prompts = [conversation_ids(history, question, tokenizer) for history, question, _ in questions]
    outputs = llm.generate(prompts, params, seed=seed)
    return [sum(read_reply(c.reply_ids, tokenizer, c.finished).answer == answer for c in output.outputs) / 20
            for output, (_, _, answer) in zip(outputs, questions, strict=True)]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_card_s_examples_are_answered_right_nine_times_in_ten(shipped, seed):
    folder, llm, tokenizer = shipped
    card = read_model_card(folder)
    problems = [p for language in LANGUAGES for name in FAMILIES for p in examples(name, language)
                if p.prompt in card.examples[language]]
    assert len(problems) == sum(map(len, card.examples.values()))
    defaults = read_json(folder / "generation_config.json")
    params = SamplingParams(n=20, temperature=defaults["temperature"], top_p=defaults["top_p"], max_tokens=400)
    outputs = llm.generate([conversation_ids((), p.prompt, tokenizer) for p in problems], params, seed=seed)
    right = {problem.prompt: sum(accuracy_reward(problem, read_reply(c.reply_ids, tokenizer, c.finished).answer)
                                 for c in output.outputs) / 20 for problem, output in zip(problems, outputs, strict=True)}
    assert all(share >= 0.9 for share in right.values()), right


QUESTIONS = [  # as visitors type them, and none of them on a card
    ("What's 8 + 5?", "13"), ("how much is 12-7", "5"), ("6 x 7", "42"), ("3 times 4", "12"), ("Compute 45 + 38.", "83"),
    ("What is 9 plus 6 ?", "15"), ("What is 50 - 23?", "27"), ("What is the sum of 14 and 9?", "23"),
    ("What is 100 - 1?", "99"), ("Can you compute 33 + 44?", "77"), ("What is 7 * 8?", "56"), ("What is two plus two?", "4"),
    ("Combien font 23 + 19 ?", "42"), ("combien fait 12-7", "5"), ("Combien font 6 fois 7 ?", "42"), ("Calcule 45 + 38", "83"),
    ("Que vaut 15 - 8 ?", "7"), ("3 x 4 ?", "12"), ("Combien font 9 plus 6 ?", "15"), ("Peux-tu calculer 50 - 23 ?", "27"),
    ("Count the letter r in strawberry", "3"), ('How many times does the letter r appear in "strawberry"?', "3"),
    ("How many r's in strawberry", "3"), ("How many s's are in mississippi?", "4"), ("How many a's are in banana?", "3"),
    ("How many letters are in strawberry?", "10"), ("Combien de r dans strawberry ?", "3"), ("Compte les a dans banane.", "2"),
    ("Combien de fois la lettre r apparaît-elle dans framboise ?", "1"), ("Combien de s y a-t-il dans saucisson ?", "3"),
]


def test_visitors_questions_of_the_same_kinds_are_answered_right(shipped):
    asked = [((), question, answer) for question, answer in QUESTIONS]
    right = dict(zip([question for question, _ in QUESTIONS], shares(shipped, asked), strict=True))
    assert sum(right.values()) / len(right) >= 0.9, right
    assert sum(share >= 0.5 for share in right.values()) >= len(right) - 2, right


def test_a_later_question_is_answered_with_its_own_numbers(shipped):
    pairs = [("What is {} + {}?", "And {} + {}?"), ("Combien font {} + {} ?", "Et {} + {} ?"),
             ("What is {} + {}?", "What is {} + {}?"), ("Combien font {} + {} ?", "Combien font {} + {} ?")]
    rng, asked = random.Random(0), []
    for first, second in pairs * 4:
        a, b, c, d = (rng.randint(3, 40) for _ in range(4))
        asked.append((((first.format(a, b), str(a + b)),), second.format(c, d), str(c + d)))
    right = shares(shipped, asked)
    assert sum(right) / len(right) >= 0.9, dict(zip([question for _, question, _ in asked], right, strict=True))


def test_without_arguments_the_last_model_is_served_and_its_student_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [served.id for served in list_models(None)] == ["nano", "nano:distilled"]
    assert [served.id for served in list_models(None, "distilled")] == ["nano:distilled"]
    assert [served.max_model_len for served in list_models(None)] == [2048, 2048]
    assert default_model() == list_models(None)[0].folder and default_model("distilled").name.startswith("distilled-")
