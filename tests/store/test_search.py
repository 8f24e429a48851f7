"""Full-text search: what is said is found whatever its case and accents, in the open and encrypted."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.store import history
from spoutnik.store.history import History, wipe_file
from spoutnik.store.search import EXCERPT_LENGTH, excerpt, fold

PHRASE = "correct horse"


@pytest.fixture(params=[None, PHRASE], ids=["plain", "encrypted"])
def store(request, tmp_path, monkeypatch):
    monkeypatch.setattr(history, "SCRYPT_COST", 2 ** 4)
    return History(tmp_path / "history.db", request.param)


def conversation(store, title, *messages):
    name = store.create(title)
    for number, text in enumerate(messages):
        store.append(name, "assistant" if number % 2 else "user", text, "a hidden thought")
    return name


def titles(store, text):
    return [hit.conversation.title for hit in store.search(text)]


@pytest.mark.parametrize(("written", "typed"), [
    ("Été à Orléans", "ete orleans"), ("ete a orleans", "ÉTÉ ORLÉANS"), ("Mon cœur", "COEUR"), ("Straße", "strasse"),
    ("e\u0301cole", "école"), ("l’arbre", "l'arbre"), ("12\u202f000 €", "000 €"), ("ŁÓDŹ", "łódź"), ("Ελλάδα", "ελλαδα"),
    ("ＡＢＣ", "abc"), ("İstanbul", "istanbul"), ("naïve façade", "FACADE naive"), ("Åse Øst", "ase ost")])
def test_case_accents_and_ligatures_do_not_matter(store, written, typed):
    conversation(store, "Other", "Nothing of that kind.")
    conversation(store, "Wanted", written)
    assert titles(store, typed) == ["Wanted"]


def test_all_words_must_be_there_in_title_or_messages(store):
    conversation(store, "Roots of x^2", "Find the zeros.", "There are two.")
    conversation(store, "Weather", "Will it rain?", "Two drops.")
    assert titles(store, "two") == ["Weather", "Roots of x^2"]
    assert titles(store, "two zer") == ["Roots of x^2"] and titles(store, "roots two") == ["Roots of x^2"]
    assert titles(store, "rain zeros") == [] and titles(store, "hidden") == []
    assert titles(store, "  ") == ["Weather", "Roots of x^2"]
    assert [hit.excerpt for hit in store.search("roots two")] == ["There are two."]
    assert [hit.excerpt for hit in store.search("roots")] == [""]


def test_versions_that_are_not_shown_are_found(store):
    name = conversation(store, "Sums", "1 + 1?", "eleven")
    store.append(name, "assistant", "two", parent=store.messages(name)[0].id)
    assert titles(store, "eleven") == titles(store, "two") == ["Sums"]


def test_what_changes_is_noticed(store):
    name = conversation(store, "One", "zebra")
    assert titles(store, "zebra") == ["One"]
    store.append(name, "assistant", "giraffe")
    assert titles(store, "giraffe") == ["One"]
    store.rename(name, "Animals")
    assert titles(store, "zebra") == ["Animals"]
    store.delete(name)
    assert titles(store, "zebra") == [] and store._search._folded == {}
    conversation(store, "Two", "lion")
    titles(store, "lion")
    wipe_file(store.path)
    conversation(store, "Three", "tiger")  # its messages have the ids of those that were wiped
    assert titles(store, "lion") == [] and titles(store, "tiger") == ["Three"]


def test_searches_may_run_at_once(store):
    for number in range(20):
        conversation(store, f"No {number}", f"word{number} common")
    counts = []
    threads = [threading.Thread(target=lambda: counts.append(len(store.search("common")))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [20] * 4


@given(st.text(), st.text(min_size=1))
def test_the_excerpt_holds_the_word(text, word):
    folded = fold(word)
    assert fold(fold(text)) == fold(text)
    if folded and not any(char.isspace() for char in folded) and len(folded) < 20:
        around = excerpt(f"{text} {word} {text}", folded)
        assert folded in fold(around) and len(around) <= EXCERPT_LENGTH + 2 and "\n" not in around


def test_the_excerpt_of_a_long_text():
    shown = excerpt("First. " * 30 + "Then the cœur\nbeats. " + "Last. " * 30, "coeur")
    assert "the cœur beats." in shown and shown[0] == shown[-1] == "…"
