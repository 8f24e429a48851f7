"""State that the page's tabs share: conversations, and answers under way, which go on when a tab is closed. No widgets here."""

import secrets
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from weakref import WeakValueDictionary

from spoutnik.arena.matches import VoteStore
from spoutnik.errors import RunError
from spoutnik.generation.service import GenerationService
from spoutnik.generation.session import ChatMessage, ChatOptions, ChatTurn
from spoutnik.store.feedback import AnswerFeedback, FeedbackStore, Thumb
from spoutnik.store.history import History
from spoutnik.text.chat_template import Message

MAX_LISTED = 200  # conversations
MAX_IN_MEMORY = 64  # conversations that a server without history remembers
TITLE_LENGTH = 60  # characters


@dataclass(eq=False)
class Conversation:
    """A conversation as its tabs see it. version: raised with each message that is added or removed."""

    id: str
    owner: str | None = None
    messages: list[ChatMessage] = field(default_factory=list)
    turn: ChatTurn | None = None
    version: int = 0

    def answer_id(self, message: ChatMessage) -> str:
        return f"{self.id}/{message.id}"


class Conversations:
    """All conversations of this server. owner: the name of the visitor's API key, None where there are no keys.

    A visitor sees only conversations of the same owner.
    """

    def __init__(self, service: GenerationService, feedback: FeedbackStore, history: History | None = None):
        self.service, self.feedback, self.history = service, feedback, history
        self.votes = VoteStore(history)
        self._open: WeakValueDictionary[str, Conversation] = WeakValueDictionary()  # those that a tab shows
        self._answering: set[Conversation] = set()
        self._in_memory: deque[Conversation] = deque(maxlen=MAX_IN_MEMORY)  # without a history
        self._owners: dict[str, str | None] = {}
        self._message_ids = count()

    def titles(self, owner: str | None) -> list[tuple[str, str]]:
        """(id, title) of the owner's conversations, the most recently changed first."""
        if self.history is None:
            return []
        return [(entry.id, entry.title) for entry in self.history.list(MAX_LISTED) if self._owner(entry.id) == owner]

    def _owner(self, conversation_id: str) -> str | None:
        if conversation_id not in self._owners:
            try:
                first = self.history.messages(conversation_id)[:1]
            except KeyError:  # deleted meanwhile: no owner is called ""
                return ""
            self._owners[conversation_id] = first[0].extras.get("owner") if first else None
        return self._owners[conversation_id]

    def open(self, conversation_id: str | None, owner: str | None) -> Conversation:
        """That conversation, or a new one where it does not exist or belongs to another owner."""
        conversation = self._open.get(conversation_id)
        if conversation is None and self.history is not None and conversation_id:
            try:
                conversation = Conversation(conversation_id, self._owner(conversation_id), [
                    ChatMessage(stored.role, stored.content, stored.thought, stored.model, stored.extras, stored.id)
                    for stored in self.history.messages(conversation_id)])
                self._load_feedback(conversation)
                self._open[conversation_id] = conversation
            except KeyError:  # deleted meanwhile
                pass
        return conversation if conversation is not None and conversation.owner == owner else Conversation("", owner)

    def ask(self, conversation: Conversation, question: str, files: list[tuple[str, str]], options: ChatOptions) -> None:
        """Starts an answer. files: (name, text), which the model reads after the question."""
        content = "\n\n".join([question, *(f"{name}:\n```\n{text}\n```" for name, text in files)])
        extras = {"question": question, "files": [name for name, _ in files]} if files else {}
        if not conversation.id:
            title = " ".join(question.split())[:TITLE_LENGTH]
            conversation.id = self.history.create(title) if self.history is not None else secrets.token_hex(8)
            self._owners[conversation.id] = conversation.owner
            self._open[conversation.id] = conversation
        self._ask(conversation, content, extras, options)

    def edit(self, conversation: Conversation, index: int, question: str, options: ChatOptions) -> None:
        """Replaces a question, but not its files, deletes the messages after it and starts a new answer."""
        message = conversation.messages[index]
        before = message.extras.get("question", message.content)
        extras = message.extras | {"question": question} if "question" in message.extras else message.extras
        self.truncate(conversation, index)
        self._ask(conversation, question + message.content[len(before):], extras, options)

    def _ask(self, conversation: Conversation, content: str, extras: dict, options: ChatOptions) -> None:
        extras = extras if conversation.owner is None else extras | {"owner": conversation.owner}
        self._append(conversation, ChatMessage("user", content, extras=extras))
        self._start_turn(conversation, options)

    def retry(self, conversation: Conversation, index: int, options: ChatOptions) -> None:
        """Replaces an answer and all after it by a new answer."""
        self.truncate(conversation, index)
        self._start_turn(conversation, options)

    def truncate(self, conversation: Conversation, index: int) -> None:
        """Deletes this message and all after it."""
        if self.history is not None:
            self.history.truncate(conversation.id, conversation.messages[index].id)
        del conversation.messages[index:]
        conversation.version += 1

    def _start_turn(self, conversation: Conversation, options: ChatOptions) -> None:
        if self.history is None and conversation not in self._in_memory:
            self._in_memory.append(conversation)
        conversation.turn = ChatTurn(self.service, prompt_messages(conversation.messages), options,
                                     lambda turn: self._end_turn(conversation, turn))
        self._answering.add(conversation)
        conversation.version += 1

    def _end_turn(self, conversation: Conversation, turn: ChatTurn) -> None:
        conversation.turn = None
        self._answering.discard(conversation)
        try:
            self._append(conversation, turn.message)
        except (KeyError, RunError) as error:  # it cannot be stored, but it can be read
            conversation.messages.append(turn.message)
            if isinstance(error, RunError):  # KeyError: the conversation was deleted while the answer was written
                turn.message.extras.setdefault("error", str(error))
        conversation.version += 1

    def _append(self, conversation: Conversation, message: ChatMessage) -> None:
        if self.history is None:
            message.id = next(self._message_ids)
        else:
            message.id = self.history.append(conversation.id, message.role, message.content, message.thought, message.model,
                                             message.extras)
        conversation.messages.append(message)

    def rename(self, conversation_id: str, title: str, owner: str | None) -> None:
        if self._owner(conversation_id) == owner and title.strip():
            self.history.rename(conversation_id, title.strip()[:TITLE_LENGTH])

    def delete(self, conversation_id: str, owner: str | None) -> None:
        if self._owner(conversation_id) == owner:
            conversation = self._open.pop(conversation_id, None)
            if conversation is not None and conversation.turn is not None:
                conversation.turn.stop()
            self.history.delete(conversation_id)

    def record_feedback(self, conversation: Conversation, index: int, rating: Thumb | None, correction: str | None) -> None:
        """Feedback on the answer that is message `index`."""
        message = conversation.messages[index]
        self.feedback.record(AnswerFeedback(conversation.answer_id(message), message.model,
                                            prompt_messages(conversation.messages[:index]), message.thought, message.content,
                                            rating, correction))
        message.extras |= {"rating": rating, "correction": correction}

    def _load_feedback(self, conversation: Conversation) -> None:
        latest = self.feedback.latest()
        for message in conversation.messages:
            if feedback := latest.get(conversation.answer_id(message)):
                message.extras |= {"rating": feedback.rating, "correction": feedback.correction}


def prompt_messages(messages: list[ChatMessage]) -> list[Message]:
    """The messages as the model gets them, without questions that got no answer, except the last."""
    prompt: list[Message] = []
    for message in messages:
        if message.role == "user" and prompt and prompt[-1]["role"] == "user":
            prompt.pop()
        if message.role == "user" or message.content:
            prompt.append(message.prompt_message)
    return prompt
