"""Versions of messages: nothing that was said is lost, and one path is shown."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from spoutnik.store.versions import MessageTree


def message(number, parent=None, role="user"):
    return SimpleNamespace(id=number, parent=parent, role=role)


def ids(messages):
    return [one.id for one in messages]


def tree_of_two_questions():
    """1 question, 2 and 3 its answers, 4 a question after 3, 5 its answer, 6 the first question edited, 7 its answer."""
    return MessageTree([message(1), message(2, 1, "assistant"), message(3, 1, "assistant"), message(4, 3),
                        message(5, 4, "assistant"), message(6), message(7, 6, "assistant")])


def test_the_path_leads_to_the_head_or_the_newest():
    tree = tree_of_two_questions()
    assert ids(tree.path) == [6, 7] and tree.head == 7
    assert ids(MessageTree(tree.messages.values(), 2).path) == [1, 2]
    assert ids(MessageTree(tree.messages.values(), 99).path) == [6, 7]
    assert MessageTree().path == [] and MessageTree().head is None
    assert ids(MessageTree([message(5, 3), message(6, 5)]).path) == [5, 6]  # what it followed is gone


def test_one_flips_through_versions():
    tree = tree_of_two_questions()
    assert ids(tree.versions(tree.messages[7])) == [7]
    assert ids(tree.versions(tree.messages[1])) == [1, 6] and ids(tree.versions(tree.messages[3])) == [2, 3]
    tree.show(tree.messages[1])
    assert ids(tree.path) == [1, 3, 4, 5]
    tree.show(tree.messages[2])
    assert ids(tree.path) == [1, 2]


def test_a_path_goes_on_beside_what_was_there():
    tree = tree_of_two_questions()
    tree.end_at(tree.messages[3])
    assert ids(tree.path) == [1, 3]
    tree.add(message(8, 3))
    assert ids(tree.path) == ids(tree.path_to(tree.messages[8])) == [1, 3, 8]
    assert ids(tree.versions(tree.messages[8])) == [4, 8] and tree.parent(tree.messages[8]) is tree.messages[3]
    tree.end_at(tree.parent(tree.messages[1]))
    assert tree.path == [] and tree.head is None


@given(st.lists(st.integers(0, 8), min_size=1, max_size=12), st.integers(0, 12))
def test_branches_hold_each_message_once(parents, head):
    """parents[i]: of message i + 1; 0, or one that is not older, is none."""
    messages = [message(number, parent if 0 < parent < number else None) for number, parent in enumerate(parents, 1)]
    tree = MessageTree(messages, head)
    branches = tree.branches()
    assert branches[0] == tree.path
    assert sorted(one.id for branch in branches for one in branch) == ids(messages)
    for branch in branches:
        assert all(after.parent == before.id for before, after in zip(branch, branch[1:]))
