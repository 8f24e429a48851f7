"""The sentence that closes a thought, in the language of the question."""

import pytest
import tiny

from spoutnik.engine.llm import LLM
from spoutnik.generation.closing import CLOSINGS, closing_sentence, language_of
from spoutnik.generation.options import GenerationOptions, plan_chat


@pytest.mark.parametrize("text, language", [
    ("What is 17 + 26?", "en"), ("How many r are in strawberry?", "en"), ("Combien font 17 et 26 ?", "fr"),
    ("Quel est le périmètre d'un carré de côté 3 ?", "fr"), ("Utilise 3, 5, 8 une fois chacun pour faire 16.", "fr"),
    ("L'aire d'un cercle ?", "fr"), ("Calcule 3 fois 4.", "fr"), ("Bonjour !", "fr"), ("Hello!", "en"),
    ("Solve 3 times 4.", "en"), ("Explique-moi la relativité.", "fr"), ("Use 3, 5, 8 once each to make 16.", "en"),
    ("Write a poem about the French word \"quelle\" and its history.", "en"), ("17 + 26 = ?", None), ("", None),
    ("Сколько будет 17 + 26?", "other"), ("17加26等于多少？", "other"),
    ("كم يساوي ٢ + ٢؟", "other"), ("Πόσο κάνει 2 + 2;", "other")])
def test_languages_are_told_apart(text, language):
    assert language_of(text) == language


def user(*texts):
    return [{"role": "user", "content": text} for text in texts]


def test_the_last_question_that_has_a_language_decides():
    assert closing_sentence(user("Combien font 2 et 3 ?", "4 + 5 ?")) == CLOSINGS["fr"]
    assert closing_sentence(user("Combien font 2 et 3 ?", "And what is 4 + 5?")) == CLOSINGS["en"]
    answer = {"role": "assistant", "content": "Il y en a une, et c'est tout."}
    assert closing_sentence([*user("How many?"), answer]) == CLOSINGS["en"]
    assert closing_sentence(user("4 + 5")) == closing_sentence([{"role": "system", "content": "Sois bref."}]) == CLOSINGS["en"]
    assert closing_sentence(user("4加5等于多少？")) == ""


@pytest.mark.parametrize("question, sentence", [("How many are there?", "\n\nI have thought long enough; here is my answer.\n"),
                                                ("Combien y en a-t-il dans la boîte ?",
                                                 "\n\nJ'ai assez réfléchi ; voici ma réponse.\n"), ("4加5等于多少？", "\n")])
def test_it_closes_the_thought(question, sentence, tokenizer):
    llm = LLM(tiny.model(tiny.QWEN, vocab_size=tokenizer.vocab_size, max_position_embeddings=256), tokenizer, max_num_seqs=1)
    closing = plan_chat(llm, user(question), GenerationOptions()).closing
    assert tokenizer.decode(closing, keep_special=True) == f"{sentence}</think>\n\n"
    assert closing.count(tokenizer.end_think_id) == 1
    own = plan_chat(llm, user(question), GenerationOptions(closing="Enough.")).closing
    assert tokenizer.decode(own, keep_special=True) == "\n\nEnough.\n</think>\n\n"
    silent = plan_chat(llm, user(question), GenerationOptions(reasoning_effort="none")).closing
    assert tokenizer.decode(silent, keep_special=True) == "\n</think>\n\n"
