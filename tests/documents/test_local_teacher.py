"""A teacher that our engine runs: all messages in one batch, each answered as it would be alone."""

from pathlib import Path

import pytest
import tiny

from spoutnik.documents.journal import Journal
from spoutnik.documents.teacher import Ask, LocalTeacher, ask_all
from spoutnik.evals.models import LocalModel
from spoutnik.model.weights import save_model

REAL = Path(__file__).parents[2] / "build" / "SmolLM2-135M-Instruct"  # make real-model


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "tiny"
    folder.mkdir()
    save_model(folder, tiny.model(tiny.LLAMA, vocab_size=300))
    tiny.tokenizer().save(folder)
    return LocalTeacher(LocalModel(folder, dtype="float32"))


def test_replies_are_those_of_each_message_alone_and_what_is_too_long_is_told(tmp_path, teacher):
    asks = [Ask(f"What is {number} + 30?", 12, 0.6, yes_no=number == 2) for number in range(4)] + [Ask("long " * 90, 12)]
    seen = []
    replies = ask_all(teacher, Journal(tmp_path / "a.journal"), asks, lambda done, of, tokens, note: seen.append((done, of)))
    assert replies[4].refusal.endswith("and the model has 128 positions") and not replies[4].finished
    assert all(0 < reply.tokens <= 12 and not reply.refusal for reply in replies[:4]) and seen[0] == (0, 5)
    assert seen[-1] == (5, 5)
    alone = [ask_all(teacher, Journal(tmp_path / f"{number}.journal"), [ask], lambda *_: None)[0]
             for number, ask in enumerate(asks)]
    assert alone == replies
    again = Journal(tmp_path / "a.journal")
    assert len(again) == 5 and ask_all(teacher, again, asks, lambda *_: pytest.fail("asked again")) == replies
    assert teacher.facts["dtype"] == "float32" and teacher.name == "tiny"


@pytest.mark.skipif(not (REAL / "tokenizer.json").exists(), reason="needs the real model: make real-model")
def test_the_probability_of_yes_is_that_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    text = "Is the sky blue? Yes or no?"
    own = LocalTeacher(LocalModel(REAL, dtype="float32", memory="1.2GB"))
    (reply,) = ask_all(own, Journal(tmp_path / "a.journal"), [Ask(text, 4, yes_no=True)], lambda *_: None)
    tokenizer = transformers.AutoTokenizer.from_pretrained(REAL)
    model = transformers.AutoModelForCausalLM.from_pretrained(REAL, dtype=torch.float32)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt",
                                           return_dict=False)
    with torch.no_grad():
        likeliest = model(prompt).logits[0, -1].softmax(-1).topk(5)
    shares = {word: sum(float(share) for share, index in zip(likeliest.values, likeliest.indices)
                        if tokenizer.decode(index).strip(" .").lower() == word) for word in ("yes", "no")}
    assert reply.yes == pytest.approx(shares["yes"] / sum(shares.values()), abs=1e-3)
