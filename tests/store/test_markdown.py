"""Conversations as Markdown: all that was said, in all versions."""

from spoutnik.store.history import Conversation, Message
from spoutnik.store.markdown import Labels, conversation_markdown

LABELS = Labels(date=lambda seconds: f"day {seconds:g}")


def message(number, parent, role="user", content="", thought="", finished=True):
    return Message(number, role, content, thought, "nano" if role == "assistant" else "", 0.0, {}, parent, finished)


def test_the_versions_shown_come_first_then_the_others_with_what_followed_them():
    messages = [message(1, None, content="Why?"), message(2, 1, "assistant", "So."), message(3, 2, content="And?"),
                message(4, 3, "assistant", "Yes.", "Hm.\n\nWell."), message(5, 1, "assistant", "Bec", finished=False)]
    text = conversation_markdown(Conversation("c", "Why?\nnow", 7.0, 8.0, None, 5), messages, LABELS)
    assert text == """# Why? now

day 7

## 1. You

Why?

## 2. Answer (nano)

Bec

*(interrupted)*

---

*Another version of message 2*

## 2. Answer (nano)

So.

## 3. You

And?

## 4. Answer (nano)

> **Thought**
>
> Hm.
>
> Well.

Yes.
"""
