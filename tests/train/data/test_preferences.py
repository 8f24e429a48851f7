"""Preferences in the shapes that people have, and in the ones that the page writes, as pairs and as good and bad replies."""

import json

import pytest

from spoutnik.errors import UserError
from spoutnik.files import write_jsonl
from spoutnik.store.feedback import AnswerFeedback, FeedbackStore
from spoutnik.store.history import History
from spoutnik.train.data.loading import load_data, load_traces
from spoutnik.train.data.preference_preview import contradictions, preference_notes, render_preferences
from spoutnik.train.data.preferences import fit_preferences, load_preferences
from spoutnik.train.data.split import hold_out
from spoutnik.train.preferences import Pair, Thumb

USER, GOOD, BAD = ({"role": role, "content": text} for role, text in (("user", "Why?"), ("assistant", "So."),
                                                                      ("assistant", "No.")))
SYSTEM = {"role": "system", "content": "Be brief."}
PAIR = {"prompt": "Why?", "chosen": {"thought": "", "answer": "So."}, "rejected": {"thought": "", "answer": "No."}}
WITH_SYSTEM = PAIR | {"messages": [SYSTEM, USER]}
TWO_TURNS = PAIR | {"prompt": "Sure?", "messages": [USER, GOOD, {"role": "user", "content": "Sure?"}]}
THUMB = {"prompt": "Why?", "thought": "", "answer": "So.", "label": True}
HUMAN = "\n\nHuman: Why?\n\nAssistant:"
PAIRS = {
    "TRL, text": ({"prompt": "Why?", "chosen": "So.", "rejected": "No."}, PAIR),
    "TRL, messages": ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, PAIR),
    "TRL, messages with system": ({"prompt": [SYSTEM, USER], "chosen": [GOOD], "rejected": [BAD]}, WITH_SYSTEM),
    "TRL, implicit prompt": ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, PAIR),
    "TRL, implicit prompt of turns": ({"chosen": [*TWO_TURNS["messages"], GOOD], "rejected": [*TWO_TURNS["messages"], BAD]},
                                      TWO_TURNS),
    "UltraFeedback": ({"prompt": "Why?", "prompt_id": "1", "chosen": [USER, GOOD], "rejected": [USER, BAD],
                       "messages": [USER, GOOD], "score_chosen": 8.0, "score_rejected": 2.0}, PAIR),
    "UltraFeedback, two replies": ({"source": "x", "instruction": "Why?", "chosen_response": "So.",
                                    "rejected_response": "No."}, PAIR),
    "Orca": ({"system": "Be brief.", "question": "Why?", "chosen": "So.", "rejected": "No."}, WITH_SYSTEM),
    "Orca without system": ({"system": "", "question": "Why?", "chosen": "So.", "rejected": "No."}, PAIR),
    "Orca with generations": ({"system": "", "input": "Why?", "generations": ["So.", "No."], "order": ["a"], "chosen": "So.",
                               "rejected": "No."}, PAIR),
    "UltraFeedback with system": ({"prompt": "Why?", "chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]},
                                  WITH_SYSTEM),
    "whole conversations beside a system text": ({"system": "Be brief.", "prompt": "Why? ", "chosen": [USER, GOOD],
                                                  "rejected": [USER, BAD]}, WITH_SYSTEM),
    "whole conversations beside their last question": (
        {"prompt": "Sure?", "chosen": [*TWO_TURNS["messages"], GOOD], "rejected": [*TWO_TURNS["messages"], BAD]}, TWO_TURNS),
    "messages that go on": ({"prompt": [USER], "chosen": [*TWO_TURNS["messages"][1:], GOOD],
                             "rejected": [*TWO_TURNS["messages"][1:], BAD]}, TWO_TURNS),
    "HH": ({"chosen": f"{HUMAN} So.", "rejected": f"{HUMAN} No."}, PAIR),
    "HH of turns": ({"chosen": f"{HUMAN} So.\n\nHuman: Sure?\n\nAssistant: So.",
                     "rejected": f"{HUMAN} So.\n\nHuman: Sure?\n\nAssistant: No."}, TWO_TURNS),
    "HH with its prompt": ({"prompt": HUMAN, "chosen": " So.", "rejected": " No."},
                           PAIR | {"chosen": {"thought": "", "answer": " So."}, "rejected": {"thought": "", "answer": " No."}}),
    "Alpaca": ({"instruction": "Why?", "input": "", "chosen": "So.", "rejected": "No."}, PAIR),
    "ShareGPT": ({"conversations": [{"from": "human", "value": "Why?"}], "chosen": {"from": "gpt", "value": "So."},
                  "rejected": {"from": "gpt", "value": "No."}}, PAIR),
    "OpenAI": ({"input": {"messages": [SYSTEM, USER], "tools": [], "parallel_tool_calls": True}, "preferred_output": [GOOD],
                "non_preferred_output": [BAD]}, WITH_SYSTEM),
    "thoughts": ({"prompt": "Why?", "chosen": "<think>\nHm.\n</think>\n\nSo.", "rejected": "No."},
                 PAIR | {"chosen": {"thought": "Hm.", "answer": "So."}}),
}
THUMBS = {
    "TRL, text": ({"prompt": "Why?", "completion": "So.", "label": True}, THUMB),
    "TRL, messages": ({"prompt": [USER], "completion": [GOOD], "label": False}, THUMB | {"label": False}),
    "a table": ({"prompt": "Why?", "completion": "So.", "label": "False"}, THUMB | {"label": False}),
    "messages": ({"messages": [USER, GOOD], "label": True}, THUMB),
    "ShareGPT": ({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}], "label": 1}, THUMB),
}


def write(path, *rows):
    write_jsonl(path, rows)
    return path


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_every_shape(tmp_path, name):
    row, pair = PAIRS[name]
    path = write(tmp_path / "my.jsonl", row)
    assert load_preferences(path, "pairs").rows == [pair]
    replies = load_preferences(path, "replies")
    assert [(each["answer"].strip(), each["label"]) for each in replies.rows] == [("So.", True), ("No.", False)]
    assert (replies.report.read, replies.report.used, replies.report.unit) == (2, 2, "replies")


@pytest.mark.parametrize("name", THUMBS)
def test_thumbs_of_every_shape(tmp_path, name):
    row, thumb = THUMBS[name]
    assert load_preferences(write(tmp_path / "my.jsonl", row), "replies").rows == [thumb]


def test_what_is_no_preference_is_counted(tmp_path):
    pair, other = PAIRS["TRL, text"][0], {"prompt": "How?", "chosen": "a", "rejected": "b"}
    rows = [pair, pair, pair | {"rejected": "So."}, pair | {"chosen": " "}, other, pair | {"chosen": "No.", "rejected": "So."}]
    loaded = load_preferences(write(tmp_path / "my.jsonl", *rows), "pairs")
    report = loaded.report
    assert len(loaded.rows) == report.used == 3 and contradictions(loaded.rows) == 2
    assert (report.read, report.duplicate, report.equal, report.empty, report.dropped) == (6, 1, 1, 1, 3)
    assert report.counts() == "my.jsonl: 6 pairs read, 3 used, 1 empty, 1 of two equal replies, 1 duplicate"


def test_transcripts_that_part_earlier_are_left_out_and_messages_refused(tmp_path):
    rows = [{"chosen": f"{HUMAN} So.", "rejected": "\n\nHuman: How?\n\nAssistant: No."}, PAIRS["HH"][0]]
    report = load_preferences(write(tmp_path / "hh.jsonl", *rows), "pairs").report
    assert (report.read, report.used, report.differing) == (2, 1, 1)
    with pytest.raises(UserError, match="line 1: 'chosen' and 'rejected' answer different conversations"):
        load_preferences(write(tmp_path / "m.jsonl", {"chosen": [USER, GOOD], "rejected": [SYSTEM, USER, BAD]}), "pairs")


def thumb(prompt, completion, label):
    return {"prompt": prompt, "completion": completion, "label": label}


def test_good_and_bad_replies_to_one_conversation_are_pairs(tmp_path):
    rows = [thumb("Why?", "a", True), thumb("Why?", "b", False), thumb("Why?", "c", False), thumb("How?", "d", True),
            thumb("Why?", "a", False)]
    path = write(tmp_path / "my.jsonl", *rows)
    loaded = load_preferences(path, "pairs")
    assert [(row["chosen"]["answer"], row["rejected"]["answer"]) for row in loaded.rows] == [("a", "b"), ("a", "c")]
    report = loaded.report  # one couple is a reply with itself, and one reply has no counterpart
    assert (report.read, report.used, report.alone, report.equal, report.dropped) == (4, 2, 1, 1, 2)
    assert "3 pairs of a good and a bad reply to the same conversation, of 5 replies" in loaded.description
    assert "kind kto learns from replies without a counterpart" in load_preferences(
        write(tmp_path / "few.jsonl", *rows[:2], *(thumb(str(i), "x", True) for i in range(9))), "pairs").report.sentence(99)
    with pytest.raises(UserError, match="there is no pair .*2 replies without a counterpart.*kind kto"):
        load_preferences(write(tmp_path / "alone.jsonl", rows[0], rows[3]), "pairs")


@pytest.mark.parametrize("row, sentence", [
    ({"prompt": "a", "answer": "b"}, "is no preference data .prompt/answer.*chosen and rejected"),
    ({"prompt": "a", "chosen": "b", "rejected": "b"}, "none of its opinions can be learned from .1 of two equal replies"),
    ({"prompt": "a", "chosen": "b", "rejected": 3}, "'rejected' must be a text"),
    ({"chosen": "b", "rejected": "c"}, "there is no question: add prompt"),
    ({"problem": "a", "question": "b", "chosen": "c", "rejected": "d"}, "either may be the question"),
    ({"prompt": "a", "chosen": [USER], "rejected": [USER]}, "the last message of 'chosen' must be the assistant's"),
    ({"messages": [USER, GOOD], "label": "sports"}, "label = 'sports': must be true"),
    ({"messages": [USER], "label": True}, "1 without a reply of the assistant")], ids=range(8))
def test_what_is_wrong_is_a_sentence(tmp_path, row, sentence):
    with pytest.raises(UserError, match=f"my.jsonl.*{sentence}"):
        load_preferences(write(tmp_path / "my.jsonl", row), "pairs")


def test_a_row_of_another_shape_is_refused_with_both_places(tmp_path):
    path = write(tmp_path / "my.jsonl", PAIRS["TRL, text"][0], thumb("Why?", "a", True))
    with pytest.raises(UserError, match="line 2: .*thumbs up and down.*and line 1 is chosen/rejected"):
        load_preferences(path, "pairs")


@pytest.fixture
def feedback(tmp_path):
    """A folder as the page writes it."""
    def given(name, answer, question="Why?", before=(), **opinion):
        store.record(AnswerFeedback(name, "nano", [*before, {"role": "user", "content": question}], "Hm.", answer, **opinion))

    store = FeedbackStore(tmp_path / "feedback")
    given("a", "So.", rating="up")
    given("b", "No.", rating="down")
    given("c", "5", "2 + 2?", correction="4")
    given("d", "Yes.", rating="up")
    given("d", "Yes.", rating="down")  # on second thoughts
    given("e", "Maybe.", rating="up")
    given("e", "Maybe.")  # taken back
    given("f", "Still so.", "Sure?", before=[USER, GOOD], rating="up")
    return store.folder


@pytest.mark.parametrize("where", ["given.jsonl", "", ".."], ids=["log", "folder", "data folder"])
def test_the_page_s_thumbs_and_corrections_are_read_as_they_are(feedback, where):
    replies = load_preferences(feedback / where, "replies")
    assert [(row["prompt"], row["answer"], row["label"]) for row in replies.rows] == [
        ("Why?", "So.", True), ("Why?", "No.", False), ("2 + 2?", "4", True), ("2 + 2?", "5", False), ("Why?", "Yes.", False),
        ("Sure?", "Still so.", True)]
    assert replies.rows[-1]["messages"][:2] == [USER, GOOD] and {row["thought"] for row in replies.rows} == {"Hm."}
    report = replies.report
    assert (report.read, report.replaced, report.no_opinion, report.used) == (9, 2, 1, 6) and not report.is_large
    assert report.source == "given.jsonl"
    assert replies.description.startswith("given.jsonl: recognized as the page's feedback (thumbs and corrections)")
    pairs = load_preferences(feedback / where, "pairs")
    assert [(row["chosen"]["answer"], row["rejected"]["answer"]) for row in pairs.rows] == [
        ("4", "5"), ("So.", "No."), ("So.", "Yes.")]
    assert pairs.report.alone == 1  # "Still so."


def test_the_page_s_opinions_are_refused_for_fine_tuning_with_the_file_that_is_meant(feedback):
    with pytest.raises(UserError, match="is preference data .*liked lie beside it, in traces.jsonl"):
        load_traces(feedback)
    assert load_traces(feedback / "traces.jsonl").rows


def test_votes_are_read_from_the_export_of_the_history(tmp_path):
    history = History(tmp_path / "history.db")
    history.append(history.create("a chat"), "user", "Hello")
    for outcome, question in (("a", "Why?"), ("b", "How?"), ("tie", "When?"), ("bad", "Where?")):
        history.add_vote(["x", "y"], "x", {"outcome": outcome, "question": question, "answers": ["left", "right"]})
    path = write(tmp_path / "export.jsonl", *history.export())
    pairs = load_preferences(path, "pairs")
    assert [(row["prompt"], row["chosen"]["answer"]) for row in pairs.rows] == [("Why?", "left"), ("How?", "right")]
    assert (pairs.report.tie, pairs.report.no_opinion, pairs.report.alone) == (1, 1, 2)
    assert "recognized as an export of the page's history" in pairs.description
    replies = load_preferences(path, "replies")
    assert [row["label"] for row in replies.rows if row["prompt"] == "Where?"] == [False, False]
    with pytest.raises(UserError, match="history.db: is a database.*spoutnik history export FILE"):
        load_preferences(tmp_path / "history.db", "pairs")


@pytest.mark.parametrize("change, sentence", [({"rating": "sideways"}, "rating = 'sideways': must be up, down or null"),
                                              ({"answer": None}, "'answer' must be a text")], ids=["rating", "answer"])
def test_broken_opinions_are_sentences(feedback, change, sentence):
    rows = [json.loads(line) for line in (feedback / "given.jsonl").read_text().splitlines()]
    with pytest.raises(UserError, match=f"given.jsonl, line 2: {sentence}"):
        load_data(write(feedback / "given.jsonl", rows[0], rows[1] | change))


def test_only_replies_are_compared_and_what_is_too_long_is_counted(tmp_path, tokenizer):
    rows = [PAIRS["TRL, text"][0], {"prompt": "How?", "chosen": "z" * 400, "rejected": "b"}, THUMBS["TRL, text"][0]]
    loaded = load_preferences(write(tmp_path / "my.jsonl", *rows[:2]), "pairs")
    (pair,) = fit_preferences(loaded, tokenizer, 128)
    assert isinstance(pair, Pair) and loaded.report.too_long == 1 and loaded.report.used == 1
    prompt = tokenizer.chat_ids([USER])
    for document, text in zip(pair.documents, ("So.", "No.")):
        assert document.ids[:document.loss_from] == prompt
        assert tokenizer.decode(list(document.ids[document.loss_from:])).strip().endswith(text)
    (thumb,) = fit_preferences(load_preferences(write(tmp_path / "t.jsonl", rows[2]), "replies"), tokenizer, 128)
    assert isinstance(thumb, Thumb) and thumb.good and thumb.prompt == prompt
    rendered = render_preferences(load_preferences(tmp_path / "my.jsonl", "pairs"), tokenizer, 128)
    assert [each.fits for each in rendered] == [True, False] and list(rendered[0].replies) == ["chosen", "rejected"]


def test_the_split_keeps_both_replies_of_a_conversation_on_one_side(tmp_path):
    rows = [thumb(f"What is {i}?", text, text == "a") for i in range(40) for text in "ab"]
    train, held_out = hold_out(load_preferences(write(tmp_path / "my.jsonl", *rows), "replies"), 0.3)
    assert not {row["prompt"] for row in train.rows} & {row["prompt"] for row in held_out.rows}
    assert train.report.unit == held_out.report.unit == "replies"


def test_notes_say_what_the_rows_are_for_and_what_they_may_teach_unmeant(tmp_path):
    rows = [{"prompt": str(i), "chosen": "long enough" if i else "<think>a</think>b", "rejected": "no"} for i in range(4)]
    notes = " ".join(preference_notes(load_data(write(tmp_path / "my.jsonl", *rows))))
    assert "for kind dpo: 4 pairs." in notes and "longer one in 3 of 4 pairs" in notes
    assert "one reply alone has a thought: 1" in notes and "4 good replies of weight 1 against 4 bad ones" in notes
    alone = preference_notes(load_data(write(tmp_path / "t.jsonl", thumb("Why?", "a", True))))
    assert "no pairs" in alone[0] and "1 good replies and 0 bad ones, and it needs both" in alone[1]
