"""Language consistency: the verdicts on the families' texts as they always were, all other texts in any language."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks_helpers import CASES, problem_of

from spoutnik.tasks import FAMILIES, LANGUAGES
from spoutnik.tasks.identification import UNDETERMINED, identify
from spoutnik.tasks.language import _WORD, VOCABULARY, language_consistency, language_words
from spoutnik.tasks.language_count import count_language
from spoutnik.tasks.prose import prose, sentences

TEXTS = {  # sentences of the kind that thoughts have
    "en": ["Let me think about what the question asks.", "She sells the remaining eggs at the market every morning.",
           "That means each child gets half of the cake.", "We still have to subtract what he spent on the bus."],
    "fr": ["Réfléchissons à ce que demande la question.", "Elle vend les œufs qui restent au marché chaque matin.",
           "Chaque enfant reçoit donc la moitié du gâteau.", "Il faut encore soustraire ce qu'il a dépensé pour le bus."],
    "de": ["Überlegen wir, wonach die Aufgabe fragt.", "Sie verkauft die übrigen Eier jeden Morgen auf dem Markt.",
           "Jedes Kind bekommt also die Hälfte des Kuchens.", "Wir müssen noch abziehen, was er für den Bus bezahlt hat."],
    "es": ["Pensemos en lo que pide la pregunta.", "Ella vende los huevos que quedan en el mercado cada mañana.",
           "Cada niño recibe entonces la mitad del pastel.", "Todavía hay que restar lo que gastó en el autobús."],
    "pt": ["Vamos pensar no que a pergunta pede.", "Ela vende os ovos que sobram na feira todas as manhãs.",
           "Então cada criança recebe metade do bolo.", "Ainda temos de subtrair o que ele gastou no ônibus."],
    "ru": ["Подумаем, о чём спрашивается в задаче.", "Она продаёт оставшиеся яйца на рынке каждое утро.",
           "Значит, каждый ребёнок получит половину торта.", "Нужно ещё вычесть то, что он потратил на автобус."],
    "zh": ["我们想一想题目问的是什么。", "她每天早上在市场上卖掉剩下的鸡蛋。", "所以每个孩子得到半块蛋糕。",
           "还要减去他坐公共汽车花的钱。"],
    "ja": ["問題が何を求めているか考えましょう。", "彼女は残りの卵を毎朝市場で売ります。",
           "つまり子供は一人ずつケーキの半分をもらいます。"],
    "ko": ["문제가 무엇을 묻는지 생각해 봅시다.", "그녀는 매일 아침 시장에서 남은 달걀을 팝니다."],
    "ar": ["لنفكر فيما يطلبه السؤال.", "تبيع البيض المتبقي في السوق كل صباح."],
    "hi": ["चलो सोचते हैं कि सवाल क्या पूछता है।", "वह हर सुबह बाज़ार में बचे हुए अंडे बेचती है।"],
    "th": ["ลองคิดดูว่าโจทย์ถามอะไร", "เธอขายไข่ที่เหลือที่ตลาดทุกเช้า"],
    "tr": ["Sorunun ne istediğini düşünelim.", "Kalan yumurtaları her sabah pazarda satıyor."],
}
FORMULAS = ("$x^2 + 3x = 10$", "\\boxed{\\frac{1}{2}}", "\\[ \\text{total} = 4 \\times 5 \\]", "12 + 7 = 19.",
            "`total = 3 * price`", "```python\ndef cost(count):\n    return 3 * count\n```", "https://example.org/the/answer?is=here",
            "for i in range(3):")


def word_list_rule(text: str, language: str) -> float:
    """What the rule was before there were other languages."""
    words = [word.lower() for word in _WORD.findall(text)]
    target = sum(word in VOCABULARY[language] for word in words)
    other = sum(word in VOCABULARY[each] for word in words for each in LANGUAGES if each != language)
    return target / (target + other) if target + other else 1.0


def families_texts() -> list[str]:
    texts = []
    for case in CASES:
        family = FAMILIES[case[0]]
        for language in LANGUAGES:
            for style in ("quick", "careful"):
                for seed in range(6):
                    trace = family.solve(problem_of(case, seed, language), random.Random(seed), style)
                    texts += [trace.thought, trace.answer, f"{trace.thought} {trace.answer}"]
    return texts


def test_verdicts_on_the_families_texts_are_those_of_the_word_lists():
    rng, texts = random.Random(0), families_texts()
    mixed = [f"{rng.choice(texts)} {rng.choice(texts)}" for _ in range(2_000)]
    cut = [rng.choice(texts)[:rng.randrange(90)] for _ in range(1_000)]
    for text in texts + mixed + cut:
        for language in LANGUAGES:
            assert language_consistency(text, language) == word_list_rule(text, language), (text, language)


def test_the_families_texts_need_no_model(monkeypatch):
    monkeypatch.setattr("spoutnik.tasks.language.count_language", lambda text, language: pytest.fail(text))
    for text in families_texts():
        language_consistency(text, "en")


@pytest.mark.parametrize("language", TEXTS)
def test_a_language_is_told_from_all_others(language):
    text = " ".join(TEXTS[language])
    assert language_consistency(text, language) == 1.0
    assert all(language_consistency(text, other) == 0.0 for other in TEXTS if other != language)


@pytest.mark.parametrize("language", TEXTS)
def test_sentences_are_identified(language):
    for sentence in TEXTS[language]:
        assert identify(sentence, list(TEXTS)) == language
        assert identify(sentence, [language]) == language


def test_identify_without_a_language_of_the_script():
    assert identify("我们想一想", ["en", "ru"]) == UNDETERMINED
    assert identify("12 + 5 = 17", ["en", "fr"]) == UNDETERMINED
    assert identify("", ["en"]) == UNDETERMINED
    assert identify("Kylar 想买 16 个玻璃杯。", ["en", "zh"]) == "zh"
    assert identify("合計金額", ["ja"]) == "ja"
    with pytest.raises(ValueError, match="xx"):
        identify("text", ["en", "xx"])


@pytest.mark.parametrize("pair", ["en fr", "en de", "fr es", "en zh", "de ru", "zh ru", "es ja"])
def test_mixed_thoughts_by_their_words(pair):
    rng, pair = random.Random(pair), pair.split()
    for _ in range(8):
        parts = {language: rng.sample(TEXTS[language], 2) for language in pair}
        amounts = {language: sum(_amount(text, language) for text in texts) for language, texts in parts.items()}
        order = [*parts[pair[0]], *parts[pair[1]]]
        rng.shuffle(order)
        thought = "\n".join(f"{text}\n{rng.choice(FORMULAS)}" for text in order)
        for language in pair:
            assert abs(language_consistency(thought, language) - amounts[language] / sum(amounts.values())) < 0.06


def _amount(text: str, language: str) -> int:
    if language in ("zh", "ja"):
        return sum(letter.isalpha() for letter in text)
    return sum(any(letter.isalpha() for letter in word) for word in text.replace("'", " ").split())


@pytest.mark.parametrize("text", ["", "   \n", *FORMULAS, "Anna > Ben. Ben > Clara, Clara > Dan.", "\x00\x00", "\u200b"])
def test_nothing_to_count_is_told(text):
    for language in ("en", "de", "zh"):
        assert language_words(text, language).counted == 0
        assert language_consistency(text, language) == 1.0


@pytest.mark.parametrize("language", ["xx", "", "EN", "english", "zh-CN"])
def test_an_unknown_language_is_refused(language):
    for check in (language_consistency, language_words, count_language):
        with pytest.raises(ValueError, match="ISO 639-1 code, one of .*en.*fr"):
            check("the text", language)


GERMAN = "Wir müssen noch abziehen, was er für den Bus bezahlt hat, und dann durch die Zahl der Kinder teilen."


@pytest.mark.parametrize(("text", "most"), [
    ("the " * 300 + GERMAN, 0.5),  # a word again and again
    ("The answer is right. " * 50 + GERMAN, 0.3),  # a sentence again and again
    (" ".join(f"the {word}" for word in GERMAN.split()), 0.6),  # English words glued in
    ("的" * 300 + "。" + TEXTS["en"][1] + TEXTS["en"][3], 0.0),  # counts for Chinese, never for English
    ("\u200b".join(GERMAN), 0.0),  # zero width within words
    ("\u202e" + GERMAN + "\u202c", 0.0),  # right to left
    ("Тhе аnswеr is fivе аnd wе аrе dоnе nоw.", 0.3),  # Cyrillic look-alikes
    (f"$ {GERMAN} $ The answer is right.", 0.3),  # prose between marks of formulas
    (f"`{GERMAN}` The answer is right.", 0.3),
    (GERMAN.upper(), 0.0), (GERMAN.title(), 0.0),
])
def test_what_does_not_help(text, most):
    assert language_consistency(text, "de" if text.startswith("的") else "en") <= most


def test_a_letter_again_and_again_does_not_help():
    assert language_consistency("的" * 300 + "。 " + " ".join(TEXTS["en"]), "zh") < 0.2


def test_names_and_units_are_no_language():
    assert language_consistency("Kylar 想买 16 个玻璃杯，重 2 kg。", "zh") == 1.0
    assert language_consistency("Janet und Toulouse gehen mit Kylar zum Bahnhof.", "de") == 1.0
    assert language_words("Janet, Toulouse, Kylar.", "fr").counted == 0


def test_prose_is_what_remains():
    assert prose("It is $2 per egg and $3 per duck.").split() == "It is per egg and per duck.".split()
    assert prose("So $x = \\frac{1}{2}$ and \\(y\\) hold.").split() == ["So", "and", "hold."]
    assert prose("```\nx = 1\n```\nThe `sum` is\nprint(x)\n\\boxed{\\text{five}}").split() == ["The", "is"]
    assert prose("x = 5, so she has five left over").split() == ["x", "so", "she", "has", "five", "left", "over"]
    assert prose("See https://example.org/a?b=c or a.b@example.org now").split() == ["See", "or", "now"]
    assert prose("\\begin{align*}\na &= b\n\\end{align*}\nholds").split() == ["holds"]


def test_sentences_end_where_they_end():
    assert sentences("One. Two! Three?\nFour。五；六") == ["One.", "Two!", "Three?", "Four。", "五；", "六"]
    assert [len(part.split()) for part in sentences("word " * 90)] == [40, 40, 10]


def test_two_languages_in_one_sentence_share_it():
    text = "we have to find out what they are asking for und dann müssen wir noch die anderen von diesen nehmen"
    assert 0.3 < language_consistency(text, "en") < 0.7
    assert 0.3 < language_consistency(text, "de") < 0.7


LANGUAGE_CODES = ("en", "fr", "de", "zh", "ja", "ru", "ar", "th")
MARKS = st.sampled_from(["$", "$$", "\\(", "\\)", "\\[", "\\begin{", "\\end{", "{", "}", "`", "```", "<", ">", "\n", "\x00",
                         "\u200f", "\ud800", "的", "か", "é", "e\u0301", "т", "the ", "die ", "\\frac", "http://",
                         "@", "def f(", "  ", "123"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(MARKS, st.text(max_size=6)), max_size=40).map("".join), st.sampled_from(LANGUAGE_CODES))
def test_any_text_has_a_share(text, language):
    count = language_words(text, language)
    assert 0.0 <= count.target <= count.counted
    assert 0.0 <= language_consistency(text, language) <= 1.0
    assert identify(text, ["en", language]) in ("en", language, UNDETERMINED)


@pytest.mark.parametrize("piece", ["$", "\\(", "`", "{", "<a", "a", "= ", "字", "ก", "a\u0301", "тe", "a@b", "if (", "\\begin{",
                                   " ", "\n"])
def test_long_texts_are_linear(piece):
    text = piece * (100_000 // len(piece))  # a step that is quadratic takes minutes here
    assert language_consistency(text, "de") >= 0.0
