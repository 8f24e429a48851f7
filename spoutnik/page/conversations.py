"""What the page's tabs share: conversations under way and their answers, which go on when a tab is closed. No widgets here."""

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

LISTED = 200  # conversations
KEPT = 64  # conversations that a server without history remembers
TITLE = 60  # characters


@dataclass(eq=False)
class Conversation:
    """A conversation as its tabs see it. changed: raised at each message that comes or goes."""

    id: str
    owner: str | None = None
    messages: list[ChatMessage] = field(default_factory=list)
    turn: ChatTurn | None = None
    changed: int = 0


class Conversations:
    """owner: the name of the API key of whoever looks, None where there are no keys; nobody sees what belongs to another."""

    def __init__(self, service: GenerationService, feedback: FeedbackStore, history: History | None = None):
        self.service, self.feedback, self.history = service, feedback, history
        self.votes = VoteStore(history)
        self._talks: WeakValueDictionary[str, Conversation] = WeakValueDictionary()  # those that a tab shows
        self._answering: set[Conversation] = set()
        self._kept: deque[Conversation] = deque(maxlen=KEPT)  # without a history
        self._owners: dict[str, str | None] = {}
        self._numbers = count()

    def titles(self, owner: str | None) -> list[tuple[str, str]]:
        """(id, title) of the conversations, the last one first."""
        if self.history is None:
            return []
        return [(one.id, one.title) for one in self.history.list(LISTED) if self._owner(one.id) == owner]

    def _owner(self, conversation_id: str) -> str | None:
        if conversation_id not in self._owners:
            try:
                first = self.history.messages(conversation_id)[:1]
            except KeyError:  # deleted meanwhile: nobody's
                return ""
            self._owners[conversation_id] = first[0].extras.get("owner") if first else None
        return self._owners[conversation_id]

    def open(self, conversation_id: str | None, owner: str | None) -> Conversation:
        """That conversation, or a new one."""
        conversation = self._talks.get(conversation_id)
        if conversation is None and self.history is not None and conversation_id:
            try:
                messages = self.history.messages(conversation_id)
                conversation = Conversation(conversation_id, self._owner(conversation_id), [
                    ChatMessage(one.role, one.content, one.thought, one.model, one.extras, one.id) for one in messages])
                self._recall_opinions(conversation)
                self._talks[conversation_id] = conversation
            except KeyError:  # deleted meanwhile
                pass
        return conversation if conversation is not None and conversation.owner == owner else Conversation("", owner)

    def ask(self, conversation: Conversation, question: str, files: list[tuple[str, str]], options: ChatOptions) -> None:
        """files: (name, text), which the model reads after the question."""
        content = "\n\n".join([question, *(f"{name}:\n```\n{text}\n```" for name, text in files)])
        extras = {"question": question, "files": [name for name, _ in files]} if files else {}
        if not conversation.id:
            title = " ".join(question.split())[:TITLE]
            conversation.id = self.history.create(title) if self.history is not None else secrets.token_hex(8)
            self._owners[conversation.id] = conversation.owner
            self._talks[conversation.id] = conversation
        self._ask(conversation, content, extras, options)

    def edit(self, conversation: Conversation, place: int, question: str, options: ChatOptions) -> None:
        """The question is another; its files stay, and what followed is forgotten."""
        said = conversation.messages[place]
        before = said.extras.get("question", said.content)
        extras = said.extras | {"question": question} if "question" in said.extras else said.extras
        self.cut(conversation, place)
        self._ask(conversation, question + said.content[len(before):], extras, options)

    def _ask(self, conversation: Conversation, content: str, extras: dict, options: ChatOptions) -> None:
        extras = extras if conversation.owner is None else extras | {"owner": conversation.owner}
        self._keep(conversation, ChatMessage("user", content, extras=extras))
        self._answer(conversation, options)

    def retry(self, conversation: Conversation, place: int, options: ChatOptions) -> None:
        """Another answer in the place of this one and what followed it."""
        self.cut(conversation, place)
        self._answer(conversation, options)

    def cut(self, conversation: Conversation, place: int) -> None:
        """Forgets this message and all that followed it."""
        if self.history is not None:
            self.history.truncate(conversation.id, conversation.messages[place].id)
        del conversation.messages[place:]
        conversation.changed += 1

    def _answer(self, conversation: Conversation, options: ChatOptions) -> None:
        if self.history is None and conversation not in self._kept:
            self._kept.append(conversation)
        conversation.turn = ChatTurn(self.service, messages(conversation.messages), options,
                                     lambda turn: self._answered(conversation, turn))
        self._answering.add(conversation)
        conversation.changed += 1

    def _answered(self, conversation: Conversation, turn: ChatTurn) -> None:
        conversation.turn = None
        self._answering.discard(conversation)
        try:
            self._keep(conversation, turn.message)
        except (KeyError, RunError) as error:  # it cannot be stored, but it can be read
            conversation.messages.append(turn.message)
            if isinstance(error, RunError):  # KeyError: the conversation was deleted while the answer was written
                turn.message.extras.setdefault("error", str(error))
        conversation.changed += 1

    def _keep(self, conversation: Conversation, said: ChatMessage) -> None:
        if self.history is None:
            said.id = next(self._numbers)
        else:
            said.id = self.history.append(conversation.id, said.role, said.content, said.thought, said.model, said.extras)
        conversation.messages.append(said)

    def rename(self, conversation_id: str, title: str, owner: str | None) -> None:
        if self._owner(conversation_id) == owner and title.strip():
            self.history.rename(conversation_id, title.strip()[:TITLE])

    def delete(self, conversation_id: str, owner: str | None) -> None:
        if self._owner(conversation_id) == owner:
            conversation = self._talks.pop(conversation_id, None)
            if conversation is not None and conversation.turn is not None:
                conversation.turn.stop()
            self.history.delete(conversation_id)

    def judge(self, conversation: Conversation, place: int, rating: Thumb | None, correction: str | None) -> None:
        """An opinion on an answer."""
        said = conversation.messages[place]
        self.feedback.record(AnswerFeedback(f"{conversation.id}/{said.id}", said.model, messages(conversation.messages[:place]),
                                   said.thought, said.content,
                                   rating, correction))
        said.extras |= {"rating": rating, "correction": correction}

    def _recall_opinions(self, conversation: Conversation) -> None:
        given = self.feedback.latest()
        for said in conversation.messages:
            if opinion := given.get(f"{conversation.id}/{said.id}"):
                said.extras |= {"rating": opinion.rating, "correction": opinion.correction}


def messages(said: list[ChatMessage]) -> list[Message]:
    """What the model is shown: questions that got no answer are left out, unless it is the last."""
    shown: list[Message] = []
    for one in said:
        if one.role == "user" and shown and shown[-1]["role"] == "user":
            shown.pop()
        if one.role == "user" or one.content:
            shown.append(one.prompt_message)
    return shown
