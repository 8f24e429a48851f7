"""Conversations of the page without a browser, for tests: `with_conversations`."""

import asyncio

import pytest
from scripted import scripted_service

from spoutnik.page.conversations import Conversations
from spoutnik.store.feedback import FeedbackStore
from spoutnik.store.history import History


@pytest.fixture
def with_conversations(make_service, tmp_path):
    """Runs test(conversations, service) in an event loop. Changes are those of ScriptedService."""
    def run(test, history=True, **changes):
        async def main():
            service = scripted_service(make_service)(**changes)
            conversations = Conversations(service, FeedbackStore(tmp_path / "feedback"),
                                          History(tmp_path / "history.db") if history else None, save_seconds=0.001)
            await test(conversations, service)
            await service.close(0)

        asyncio.run(main())

    return run


async def answered(conversation):
    while conversation.turn is not None:
        await conversation.turn.wait()
    return conversation.messages[-1]
