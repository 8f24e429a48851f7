"""What the page's tabs share: conversations under way and their answers, which go on when a tab is closed. No widgets here."""

import secrets
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from weakref import WeakValueDictionary

from spoutnik.arena.matches import Ballots
from spoutnik.errors import RunError
from spoutnik.generation.service import GenerationService
from spoutnik.generation.session import ChatMessage, ChatOptions, ChatTurn
from spoutnik.store.feedback import Feedback, Opinion, Thumb
from spoutnik.store.history import History
from spoutnik.text.chat_template import Message

LISTED = 200  # conversations
KEPT = 64  # conversations that a server without history remembers
TITLE = 60  # characters


@dataclass(eq=False)
class Talk:
    """A conversation as its tabs see it. changed: raised at each message that comes or goes."""

    id: str
    owner: str | None = None
    said: list[ChatMessage] = field(default_factory=list)
    turn: ChatTurn | None = None
    changed: int = 0


class ChatTab:
    """owner: the name of the API key of whoever looks, None where there are no keys; nobody sees what belongs to another."""

    def __init__(self, service: GenerationService, feedback: Feedback, history: History | None = None):
        self.service, self.feedback, self.history = service, feedback, history
        self.ballots = Ballots(history)
        self._talks: WeakValueDictionary[str, Talk] = WeakValueDictionary()  # those that a tab shows
        self._answering: set[Talk] = set()
        self._kept: deque[Talk] = deque(maxlen=KEPT)  # without a history
        self._owners: dict[str, str | None] = {}
        self._numbers = count()

    def titles(self, owner: str | None) -> list[tuple[str, str]]:
        """(id, title) of the conversations, the last one first."""
        if self.history is None:
            return []
        return [(one.id, one.title) for one in self.history.list(LISTED) if self._owner(one.id) == owner]

    def _owner(self, conversation: str) -> str | None:
        if conversation not in self._owners:
            try:
                first = self.history.open(conversation)[:1]
            except KeyError:  # deleted meanwhile: nobody's
                return ""
            self._owners[conversation] = first[0].extras.get("owner") if first else None
        return self._owners[conversation]

    def open(self, conversation: str | None, owner: str | None) -> Talk:
        """That conversation, or a new one."""
        talk = self._talks.get(conversation)
        if talk is None and self.history is not None and conversation:
            try:
                messages = self.history.open(conversation)
                talk = Talk(conversation, self._owner(conversation), [
                    ChatMessage(one.role, one.content, one.thought, one.model, one.extras, one.id) for one in messages])
                self._recall_opinions(talk)
                self._talks[conversation] = talk
            except KeyError:  # deleted meanwhile
                pass
        return talk if talk is not None and talk.owner == owner else Talk("", owner)

    def ask(self, talk: Talk, question: str, files: list[tuple[str, str]], wish: ChatOptions) -> None:
        """files: (name, text), which the model reads after the question."""
        content = "\n\n".join([question, *(f"{name}:\n```\n{text}\n```" for name, text in files)])
        extras = {"question": question, "files": [name for name, _ in files]} if files else {}
        if not talk.id:
            title = " ".join(question.split())[:TITLE]
            talk.id = self.history.new(title) if self.history is not None else secrets.token_hex(8)
            self._owners[talk.id] = talk.owner
            self._talks[talk.id] = talk
        self._ask(talk, content, extras, wish)

    def edit(self, talk: Talk, place: int, question: str, wish: ChatOptions) -> None:
        """The question is another; its files stay, and what followed is forgotten."""
        said = talk.said[place]
        before = said.extras.get("question", said.content)
        extras = said.extras | {"question": question} if "question" in said.extras else said.extras
        self.cut(talk, place)
        self._ask(talk, question + said.content[len(before):], extras, wish)

    def _ask(self, talk: Talk, content: str, extras: dict, wish: ChatOptions) -> None:
        self._keep(talk, ChatMessage("user", content, extras=extras if talk.owner is None else extras | {"owner": talk.owner}))
        self._answer(talk, wish)

    def retry(self, talk: Talk, place: int, wish: ChatOptions) -> None:
        """Another answer in the place of this one and what followed it."""
        self.cut(talk, place)
        self._answer(talk, wish)

    def cut(self, talk: Talk, place: int) -> None:
        """Forgets this message and all that followed it."""
        if self.history is not None:
            self.history.truncate(talk.id, talk.said[place].id)
        del talk.said[place:]
        talk.changed += 1

    def _answer(self, talk: Talk, wish: ChatOptions) -> None:
        if self.history is None and talk not in self._kept:
            self._kept.append(talk)
        talk.turn = ChatTurn(self.service, messages(talk.said), wish, lambda turn: self._answered(talk, turn))
        self._answering.add(talk)
        talk.changed += 1

    def _answered(self, talk: Talk, turn: ChatTurn) -> None:
        talk.turn = None
        self._answering.discard(talk)
        try:
            self._keep(talk, turn.said)
        except (KeyError, RunError) as error:  # it cannot be stored, but it can be read
            talk.said.append(turn.said)
            if isinstance(error, RunError):  # KeyError: the conversation was deleted while the answer was written
                turn.said.extras.setdefault("error", str(error))
        talk.changed += 1

    def _keep(self, talk: Talk, said: ChatMessage) -> None:
        if self.history is None:
            said.id = next(self._numbers)
        else:
            said.id = self.history.append(talk.id, said.role, said.content, said.thought, said.model, said.extras)
        talk.said.append(said)

    def rename(self, conversation: str, title: str, owner: str | None) -> None:
        if self._owner(conversation) == owner and title.strip():
            self.history.rename(conversation, title.strip()[:TITLE])

    def delete(self, conversation: str, owner: str | None) -> None:
        if self._owner(conversation) == owner:
            talk = self._talks.pop(conversation, None)
            if talk is not None and talk.turn is not None:
                talk.turn.stop()
            self.history.delete(conversation)

    def judge(self, talk: Talk, place: int, rating: Thumb | None, correction: str | None) -> None:
        """An opinion on an answer."""
        said = talk.said[place]
        self.feedback.give(Opinion(f"{talk.id}/{said.id}", said.model, messages(talk.said[:place]), said.thought, said.content,
                                   rating, correction))
        said.extras |= {"rating": rating, "correction": correction}

    def _recall_opinions(self, talk: Talk) -> None:
        given = self.feedback.opinions()
        for said in talk.said:
            if opinion := given.get(f"{talk.id}/{said.id}"):
                said.extras |= {"rating": opinion.rating, "correction": opinion.correction}


def messages(said: list[ChatMessage]) -> list[Message]:
    """What the model is shown: questions that got no answer are left out, unless it is the last."""
    shown: list[Message] = []
    for one in said:
        if one.role == "user" and shown and shown[-1]["role"] == "user":
            shown.pop()
        if one.role == "user" or one.content:
            shown.append(one.message)
    return shown
