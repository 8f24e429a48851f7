"""The text of mid-training: what visitors ask, in documents long enough to fill a wider context.

Between pre-training and the cold start, as large models are given long documents and finer data. Beside the base's own kinds
of documents there are chapters (many exercises in a row, some leaning on the last), threads (a conversation that answers at
once), spelled words, and an encyclopedia: the facts of the general prompts as statements. Held-out facts are stated too;
what is held out is the question. Echoes, where a recipe wants them, say again whatever was said: a model that has seen few
words copied copies those alone.
"""

import random
from collections.abc import Iterator, Sequence

from spoutnik.tasks.corpus import ANSWER_ONLY, BOOK, DRILLS, FLAWED_SHARE, FORUM, GENERAL, QUICK, TEXTBOOK, forum_trace, write
from spoutnik.tasks.dialogues import Question, conversation, typed
from spoutnik.tasks.drills import SPELLED, drill_document, words_to_spell
from spoutnik.tasks.families.letters import count_letters, word_key
from spoutnik.tasks.families.spell import TEXT as SPELL
from spoutnik.tasks.family import LANGUAGES, Family, sample
from spoutnik.tasks.general import GeneralPrompt, good_answer, sample_general, statement
from spoutnik.tasks.general_text import KINDS, ROWS, TEXT, Wishes, taught_kinds
from spoutnik.tasks.problem import held_out_by_hash
from spoutnik.tasks.vocabulary import any_phrase, any_word
from spoutnik.tasks.wording import as_typed

SPELLING, ECHO, ENCYCLOPEDIA, THREAD, CHAPTER = "spelling", "echo", "encyclopedia", "thread", "chapter"
WEIGHTS = {TEXTBOOK: 0.30, QUICK: 0.06, ANSWER_ONLY: 0.12, DRILLS: 0.08, SPELLING: 0.10, ENCYCLOPEDIA: 0.07, GENERAL: 0.09,
           THREAD: 0.10, CHAPTER: 0.08}  # shares of documents; chapters are long
ECHOED_KINDS = ("wish", "repeat", "greeting")  # their answer holds the subject as it was given
FACT_KINDS = ("capital", "opposite", "colour", "animal", "translate", "list", "count", "repeat")
YOUNG = ("operations", "spell")  # families that the base has not read: twice as frequent


def midtraining_documents(rng: random.Random, families: Sequence[Family], echo_share: float = 0.0,
                          wishes: Wishes = "listed", forum_thought_share: float | None = None) -> Iterator[str]:
    """Endless plain-text documents. Problems and general prompts are of the training split.

    echo_share: of the documents; the others' shares shrink alike. wishes: with any, general prompts are of all kinds that are
        taught. forum_thought_share: see `corpus.forum_trace`; of threads as well.
    """
    may_spell = words_to_spell(families)
    weights = WEIGHTS | {ECHO: echo_share * sum(WEIGHTS.values()) / (1 - echo_share)} if echo_share else WEIGHTS
    general_kinds = KINDS if wishes == "listed" else taught_kinds(wishes)
    tasks = sorted([*families, *(family for family in families if family.name in YOUNG)], key=lambda family: family.name)
    while True:
        kind, language = rng.choices(list(weights), list(weights.values()))[0], rng.choice(LANGUAGES)
        if kind == DRILLS:
            yield drill_document(rng, language, may_spell)
        elif kind == SPELLING:
            yield _spelling(rng, language)
        elif kind == ECHO:
            yield _echoes(rng, language)
        elif kind == ENCYCLOPEDIA:
            yield _encyclopedia(rng, language)
        elif kind == GENERAL:
            yield _entry(typed(sample_general(rng, language, "train", general_kinds), rng), ANSWER_ONLY, rng)
        elif kind == THREAD:
            questions = conversation(rng, tasks, rng.randint(2, 8), language, "train")
            yield "\n".join(_entry(question, ANSWER_ONLY, rng, flaws=0, thought_share=forum_thought_share)
                            for question in questions)
        elif kind == CHAPTER:
            questions = conversation(rng, tasks, rng.choice((rng.randint(2, 10), rng.randint(8, 45))), language, "train")
            worked = rng.random()  # of the exercises; the results of the others are only given
            yield "\n".join(_entry(question, TEXTBOOK, rng, rng.random() < worked) for question in questions)
        else:
            family = rng.choice(tasks)
            question = typed(sample(family, rng, rng.choice(family.levels), language, "train"), rng)
            yield _entry(question, kind, rng, thought_share=forum_thought_share)


def _entry(question: Question, kind: str, rng: random.Random, worked: bool = True,
           flaws: float = FLAWED_SHARE, thought_share: float | None = None) -> str:
    """A question with its answer: carefully worked (textbook), quickly, or at once; those of a forum may be flawed."""
    layout = (BOOK if kind == TEXTBOOK else FORUM)[question.language]
    if isinstance(question, GeneralPrompt):
        return write(layout, question.prompt, "", good_answer(question, rng))
    family = question.task
    if kind == TEXTBOOK:
        trace = family.solve(question, rng, "careful")
        return write(layout, question.prompt, trace.thought if worked else "", trace.answer)
    return write(layout, question.prompt, *forum_trace(question, rng, kind, thought_share, flaws))


def _spelling(rng: random.Random, language: str) -> str:
    """Words of the training split, spelled or with a letter counted."""
    lines, count = [], rng.randint(3, 8)
    while len(lines) < count:
        word = any_word(rng, 3, 13)
        if held_out_by_hash(word_key(word)):
            continue
        if rng.random() < 0.5:
            lines.append(SPELLED[language].format(word=word, letters=", ".join(word)))
        else:
            letter = rng.choice(word)
            lines.append(f"{word}. {SPELL[language]['letter'].format(l=letter)}{count_letters([word], letter, rng, language)}")
    return " ".join(lines)


def _echoes(rng: random.Random, language: str) -> str:
    """Requests to say, to wish or to greet what is mostly no word that the model knows, and their answers."""
    entries = []
    for _ in range(rng.randint(2, 6)):
        phrase = any_phrase(rng, language)
        prompts, answers = TEXT[language][rng.choice(ECHOED_KINDS)]
        prompt = as_typed(rng.choice(prompts).format(q=phrase), language, rng)
        entries.append(write(FORUM[language], prompt, "", rng.choice(answers).format(a=phrase)))
    return "\n".join(entries)


def _encyclopedia(rng: random.Random, language: str) -> str:
    """Statements of one kind, or of several."""
    kind = rng.choice((*FACT_KINDS, None))
    kinds = [kind or rng.choice(FACT_KINDS) for _ in range(rng.randint(3, 10))]
    return " ".join(statement(kind, rng.randrange(len(ROWS[kind])), language, rng) for kind in kinds)
