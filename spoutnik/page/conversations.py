"""State that the page's tabs share: conversations, and answers under way, which go on when a tab is closed. No widgets here."""

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TypeVar
from weakref import WeakValueDictionary

from spoutnik.arena.matches import Match, VoteStore
from spoutnik.arena.ratings import Outcome, Vote
from spoutnik.errors import RunError
from spoutnik.generation.service import GenerationService
from spoutnik.generation.session import ChatMessage, ChatOptions, ChatTurn
from spoutnik.store.feedback import AnswerFeedback, FeedbackStore, Thumb
from spoutnik.store.history import Conversation as HistoryEntry
from spoutnik.store.history import History
from spoutnik.store.search import SearchHit
from spoutnik.store.versions import MessageTree
from spoutnik.text.chat_template import Message

MAX_LISTED = 500  # conversations
MAX_IN_MEMORY = 64  # conversations that a server without history remembers
TITLE_LENGTH = 60  # characters
SAVE_SECONDS = 1.0  # between two writes of an answer under way
SAVE_PAUSE = 20  # times as long as a write took is the least time before the next: at most a twentieth is spent on them

Result = TypeVar("Result")


@dataclass(eq=False)
class Conversation:
    """A conversation as its tabs see it. version: raised with each change of what is shown. model: chosen for the next answer,
    None where nobody has chosen since the last. beginning: a question is being written down, before its turn begins."""

    id: str
    owner: str | None = None
    tree: MessageTree[ChatMessage] = field(default_factory=MessageTree)
    turn: ChatTurn | None = None
    version: int = 0
    model: str | None = None
    beginning: bool = False

    @property
    def busy(self) -> bool:
        """Whether an answer is under way, or about to be."""
        return self.beginning or self.turn is not None

    @property
    def next_model(self) -> str | None:
        """The model that was chosen, else the one of the last answer that is shown; None where there is neither."""
        answered = next((message.model for message in reversed(self.messages) if message.role == "assistant"), None)
        return self.model or answered

    @property
    def messages(self) -> list[ChatMessage]:
        """Those that are shown, the answer under way among them."""
        return self.tree.path

    def answer_id(self, message: ChatMessage) -> str:
        return f"{self.id}/{message.id}"


@dataclass(eq=False)
class Round:
    """A question in the arena, and the answers of a match to it. outcome: of the vote, once there is one."""

    id: str
    owner: str | None
    match: Match
    question: str
    turns: list[ChatTurn]
    outcome: Outcome | None = None

    @property
    def running(self) -> bool:
        return any(turn.phase != "over" for turn in self.turns)

    @property
    def comparable(self) -> bool:
        """Whether both have answered."""
        return not self.running and all(turn.message.content for turn in self.turns)


class Conversations:
    """All conversations of this server. owner: the name of the visitor's API key, None where there are no keys.

    A visitor sees only conversations of the same owner. An answer is in the history from its beginning and is written there
    while it grows, so that a server that is killed loses a second of it. list_version: raised when a list has changed.

    A write waits for the disk, some tens of milliseconds, and a read for the write before it, so that a thread of its own does
    them all, in their order, and the event loop goes on. What was asked, or has ended, is shown as such once it is on the disk,
    as if there were no thread.
    """

    def __init__(self, service: GenerationService, feedback: FeedbackStore, history: History | None = None,
                 save_seconds: float = SAVE_SECONDS):
        self.service, self.feedback, self.history, self.save_seconds = service, feedback, history, save_seconds
        self.votes = VoteStore(history)
        self._writer = ThreadPoolExecutor(1, "history")
        self.list_version = 0
        self._open: WeakValueDictionary[str, Conversation] = WeakValueDictionary()  # those that a tab shows
        self._answering: dict[Conversation, asyncio.Task | None] = {}  # and what writes the answer down
        self._in_memory: deque[Conversation] = deque(maxlen=MAX_IN_MEMORY)  # without a history
        self._message_ids = count(1)
        self._rounds: deque[Round] = deque(maxlen=MAX_IN_MEMORY)

    async def _in_order(self, call: Callable[..., Result], *args: object) -> Result:
        """Calls something in the writer's thread, after what it got before; it is done even if the caller is cancelled."""
        return await asyncio.shield(asyncio.wrap_future(self._writer.submit(call, *args)))

    async def entries(self, owner: str | None) -> list[HistoryEntry]:
        """The owner's conversations, the most recently changed first."""
        return [] if self.history is None else await self._in_order(self.history.list, MAX_LISTED, owner)

    async def read_votes(self) -> list[Vote]:
        return await self._in_order(self.votes.votes)

    async def search(self, text: str, owner: str | None) -> list[SearchHit]:
        """The owner's conversations that hold all words of the text; the most recently changed first."""
        return [] if self.history is None else (await asyncio.to_thread(self.history.search, text, owner))[:MAX_LISTED]

    async def open(self, conversation_id: str | None, owner: str | None) -> Conversation:
        """That conversation, or a new one where it does not exist or belongs to another owner."""
        conversation = self._open.get(conversation_id)
        if conversation is None and self.history is not None and conversation_id:
            with contextlib.suppress(KeyError):  # deleted meanwhile
                read = await self._in_order(self._read, conversation_id)
                conversation = self._open.setdefault(conversation_id, read)  # another tab may have opened it meanwhile
        return conversation if conversation is not None and conversation.owner == owner else Conversation("", owner)

    def _read(self, conversation_id: str) -> Conversation:
        entry, messages = self.history.get(conversation_id), []
        for stored in self.history.messages(conversation_id):
            interrupted = {} if stored.finished else {"finish_reason": "interrupted"}
            messages.append(ChatMessage(stored.role, stored.content, stored.thought, stored.model, stored.extras | interrupted,
                                        stored.id, stored.parent, stored.created))
        conversation = Conversation(conversation_id, entry.owner, MessageTree(messages, entry.head))
        self._load_feedback(conversation)
        return conversation

    async def ask(self, conversation: Conversation, question: str, files: list[tuple[str, str]], options: ChatOptions) -> None:
        """Starts an answer. files: (name, text), which the model reads after the question."""
        content = "\n\n".join([question, *(f"{name}:\n```\n{text}\n```" for name, text in files)])
        extras = {"question": question, "files": [name for name, _ in files]} if files else {}
        title = " ".join(question.split())[:TITLE_LENGTH]
        last = conversation.messages[-1] if conversation.messages else None
        await self._begin(conversation, last, ChatMessage("user", content, extras=extras), options, title)

    async def edit(self, conversation: Conversation, message: ChatMessage, question: str, options: ChatOptions) -> None:
        """Asks a new version of a question, with the same files, and starts an answer."""
        before = message.extras.get("question", message.content)
        extras = message.extras | {"question": question} if "question" in message.extras else message.extras
        edited = ChatMessage("user", question + message.content[len(before):], extras=extras)
        await self._begin(conversation, conversation.tree.parent(message), edited, options)

    async def retry(self, conversation: Conversation, message: ChatMessage, options: ChatOptions) -> None:
        """Starts a new version of an answer."""
        await self._begin(conversation, conversation.tree.parent(message), None, options)

    async def go_on(self, conversation: Conversation, message: ChatMessage, options: ChatOptions) -> None:
        """Starts a new version of an answer that was broken off, which begins with what there is of it."""
        model = message.model if message.model in self.service.models else options.model
        await self._begin(conversation, conversation.tree.parent(message), None, replace(options, model=model, thoughts=1),
                          begun=message)

    async def answer(self, conversation: Conversation, question: ChatMessage, options: ChatOptions) -> None:
        """Starts an answer to a question, beside those that it already has."""
        await self._begin(conversation, question, None, options)

    async def _begin(self, conversation: Conversation, after: ChatMessage | None, question: ChatMessage | None,
                     options: ChatOptions, title: str = "", begun: ChatMessage | None = None) -> None:
        """Starts an answer after a message, or after a question that comes after it. begun: its beginning."""
        assert not conversation.busy
        conversation.beginning, options = True, replace(options)  # they may be changed for the next answer meanwhile
        try:
            asked, answer_id = await self._in_order(self._record, conversation, after, question, options.model, title)
        finally:
            conversation.beginning = False
        if conversation.id not in self._open:
            self._open[conversation.id] = conversation
        conversation.tree.end_at(after)
        if question is not None:
            conversation.tree.add(question)
        path = list(conversation.messages)
        turn = conversation.turn = ChatTurn(self.service, prompt_messages(path), options,
                                            lambda turn: self._end_turn(conversation, turn), _left_out(path, options.model),
                                            begun)
        turn.message.id, turn.message.parent = answer_id, asked
        conversation.tree.add(turn.message)
        conversation.model = None
        conversation.version += 1
        self.list_version += 1
        if self.history is None and conversation not in self._in_memory:
            self._in_memory.append(conversation)
        self._answering[conversation] = None if self.history is None else asyncio.create_task(self._save(conversation, turn))

    def _record(self, conversation: Conversation, after: ChatMessage | None, question: ChatMessage | None, model: str,
                title: str) -> tuple[int, int]:
        """Writes a question, where there is one, and the answer that begins; the ids of what is answered and of the answer."""
        parent, history = None if after is None else after.id, self.history
        if history is None:
            conversation.id = conversation.id or secrets.token_hex(8)
            numbers = [next(self._message_ids) for _ in range(2)]
            if question is not None:
                question.id, question.parent = numbers[0], parent
            return (parent if question is None else numbers[0]), numbers[1]
        with history.together():
            conversation_id = conversation.id or history.create(title, conversation.owner)
            asked = parent
            if question is not None:
                asked = history.append(conversation_id, "user", question.content, extras=question.extras, parent=parent)
            answer = history.append(conversation_id, "assistant", "", model=model, parent=asked, finished=False)
        conversation.id = conversation_id
        if question is not None:
            question.id, question.parent = asked, parent
        return asked, answer

    async def show(self, conversation: Conversation, message: ChatMessage) -> None:
        """Flips to a version of a message, and to the newest of what follows it."""
        conversation.tree.show(message)
        conversation.version += 1
        if self.history is not None:
            await self._in_order(self.history.show, conversation.id, conversation.tree.head)

    async def _save(self, conversation: Conversation, turn: ChatTurn) -> None:
        """Writes an answer to the history while it grows, for whoever starts the server after it was killed."""
        message, pause, saved = turn.message, self.save_seconds, ("", "")
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(turn.wait(), pause)
                return
            texts, began = (message.content, message.thought), time.perf_counter()
            if texts != saved:
                extras = message.extras | {"thought_seconds": round(turn.thought_seconds, 1)}
                try:
                    await self._in_order(self.history.update, conversation.id, message.id, *texts, extras, False)
                    saved = texts
                except KeyError:  # deleted meanwhile
                    return
                except RunError:  # a full disk: it is said at the end, if it still is
                    pass
                pause = self.pause_after(time.perf_counter() - began)

    def pause_after(self, write_seconds: float) -> float:
        """Seconds until the next write of an answer: a slow disk is written to less often."""
        return max(self.save_seconds, SAVE_PAUSE * write_seconds)

    def _end_turn(self, conversation: Conversation, turn: ChatTurn) -> asyncio.Future | None:
        """Hands the answer to the writer at once, so that it is written even where the server ends now; over when it is."""
        if self.history is None:
            self._turn_ended(conversation)
            return None
        message = turn.message
        written = asyncio.wrap_future(self._writer.submit(
            self.history.update, conversation.id, message.id, message.content, message.thought, dict(message.extras), True))

        def end(written: asyncio.Future) -> None:
            error = written.exception()
            if isinstance(error, RunError):  # it cannot be stored, but it can be read
                message.extras.setdefault("error", str(error))
            self._turn_ended(conversation)
            if error is not None and not isinstance(error, (RunError, KeyError)):  # KeyError: deleted meanwhile
                raise error

        written.add_done_callback(end)
        return written

    def _turn_ended(self, conversation: Conversation) -> None:
        conversation.turn = None
        self._answering.pop(conversation)
        conversation.version += 1
        self.list_version += 1

    async def rename(self, conversation_id: str, title: str, owner: str | None) -> None:
        if title.strip():
            await self._in_order(self._if_owner, owner, self.history.rename, conversation_id, title.strip()[:TITLE_LENGTH])
            self.list_version += 1

    async def delete(self, conversation_id: str, owner: str | None) -> None:
        if await self._in_order(self._if_owner, owner, self.history.delete, conversation_id):
            conversation = self._open.pop(conversation_id, None)
            if conversation is not None and conversation.turn is not None:
                conversation.turn.stop()
            self.list_version += 1

    def _if_owner(self, owner: str | None, call: Callable[..., None], conversation_id: str, *args: object) -> bool:
        """Calls something with a conversation of this owner; False for others' and for one that was deleted meanwhile."""
        with contextlib.suppress(KeyError):
            if self.history.get(conversation_id).owner == owner:
                call(conversation_id, *args)
                return True
        return False

    def start_round(self, match: Match, question: str, options: ChatOptions, owner: str | None) -> Round:
        """Asks both models of a match. Memory holds the last rounds, so that a reload finds them."""
        messages = [{"role": "user", "content": question}]
        turns = [ChatTurn(self.service, messages, replace(options, model=model)) for model in (match.a, match.b)]
        self._rounds.append(Round(secrets.token_hex(8), owner, match, question, turns))
        return self._rounds[-1]

    def find_round(self, round_id: str | None, owner: str | None) -> Round | None:
        return next((one for one in self._rounds if one.id == round_id and one.owner == owner), None)

    async def vote(self, finished: Round, outcome: Outcome) -> None:
        """The first vote on a round counts."""
        if finished.outcome is None:
            finished.outcome = outcome
            answers = tuple(turn.message.content for turn in finished.turns)
            await self._in_order(self.votes.record, finished.match, outcome, finished.question, answers)

    async def record_feedback(self, conversation: Conversation, message: ChatMessage, rating: Thumb | None,
                              correction: str | None) -> None:
        """Feedback on an answer."""
        before = conversation.tree.path_to(message)[:-1]
        given = AnswerFeedback(conversation.answer_id(message), message.model, prompt_messages(before), message.thought,
                               message.content, rating, correction)
        await self._in_order(self.feedback.record, given)
        message.extras |= {"rating": rating, "correction": correction}

    def _load_feedback(self, conversation: Conversation) -> None:
        latest = self.feedback.latest()
        for message in conversation.tree.messages.values():
            if feedback := latest.get(conversation.answer_id(message)):
                message.extras |= {"rating": feedback.rating, "correction": feedback.correction}


def _left_out(path: list[ChatMessage], model: str) -> int:
    """The questions that the last answer before the end of the path left out, where it was this model's."""
    last = next((message for message in reversed(path) if message.role == "assistant"), None)
    return last.extras.get("left_out", 0) if last is not None and last.model == model else 0


def prompt_messages(messages: list[ChatMessage]) -> list[Message]:
    """The messages as the model gets them, without questions that got no answer, except the last."""
    prompt: list[Message] = []
    for message in messages:
        if message.role == "user" and prompt and prompt[-1]["role"] == "user":
            prompt.pop()
        if message.role == "user" or message.content:
            prompt.append(message.prompt_message)
    return prompt
