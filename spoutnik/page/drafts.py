"""Drafts: what is typed and not yet sent, with its files. The browser keeps them (state.js), for each conversation, and not the
server: so they survive a lost connection, and no disk of the server holds in the open what an encrypted history hides."""

import json

from nicegui import ui

from spoutnik.page.conversations import Conversation


def draft_key(conversation: Conversation) -> str:
    """Under which a browser keeps a conversation's draft; others who log in from the same browser do not see it."""
    return f"{conversation.owner or ''}/{conversation.id or 'new'}"


def open_draft(conversation: Conversation) -> None:
    """Shows the conversation's draft in the field of the question. A question whose arrival the browser was never told of is
    no draft where it is the last one of the conversation."""
    asked = next((message.extras.get("question", message.content) for message in reversed(conversation.messages)
                  if message.role == "user"), "")
    ui.run_javascript(f"spoutnik.openDraft({json.dumps(draft_key(conversation))}, {json.dumps(asked)})")


def keep_files(files: list[tuple[str, str]], conversation: Conversation) -> None:
    """Has the browser keep the draft's files, which `open_draft` makes it send back as `spoutnik_file` events."""
    ui.run_javascript(f"spoutnik.keepFiles({json.dumps(files)}, {json.dumps(draft_key(conversation))})")


def drop_edit(draft: str) -> None:
    """An edited question was asked, or given up."""
    ui.run_javascript(f"spoutnik.dropEdit({json.dumps(draft)})")


def drop_draft(question: str, conversation: Conversation) -> None:
    """Tells the browser that a question was accepted. The conversation may have got its id by that."""
    ui.run_javascript(f"spoutnik.dropDraft({json.dumps(question)}, {json.dumps(draft_key(conversation))})")
