"""The arena tab: two models answer blindly side by side, and the user votes for the better answer."""

from dataclasses import replace
from functools import partial

from nicegui import ui

from spoutnik.arena.matches import Match
from spoutnik.arena.ratings import Outcome, rate
from spoutnik.errors import RunError, UserError
from spoutnik.generation.session import ChatOptions, ChatTurn
from spoutnik.page.controls import OptionsMenu, select
from spoutnik.page.conversations import Conversations
from spoutnik.page.strings import Strings
from spoutnik.page.widgets import AnswerView, button, icon_button, submit, text_area


class ArenaTab:
    """match: the one that is answered or waits for its vote; None before and after."""

    def __init__(self, conversations: Conversations, strings: Strings, options: ChatOptions):
        self.conversations, self.strings, self.options = conversations, strings, ChatOptions(options.model, options.effort)
        self.match: Match | None = None
        self._chosen = ["", ""]  # models that the user chose; "" is drawn
        self.turns: list[ChatTurn] = []
        self._answers: list[AnswerView] = []
        with ui.element("section").classes("tab arena").props(f'aria-label="{strings.arena}"') as self.element:
            ui.label(strings.arena_intro).classes("intro")
            if len(conversations.service.models) < 2:
                ui.label(strings.needs_two_models).classes("muted")
            else:
                self._build_composer()
            self._question = ui.label().classes("message-text bubble")
            self._question.set_visibility(False)
            self._sides = ui.element("div").classes("sides")
            self._voting = ui.element("div").classes("voting").props("aria-live=polite")
            ui.label(strings.ratings).classes("title").props("role=heading aria-level=2")
            self._ratings = ui.element("div").classes("ratings")
        self._update_ratings()

    def _build_composer(self) -> None:
        strings = self.strings
        with ui.element("div").classes("composer"):
            self.input = text_area(self.ask, strings.arena_placeholder, strings.arena_placeholder).classes("question")
            self.input.props("rows=1")
            with ui.element("div").classes("bar"):
                models = {"": strings.any_model} | {name: name for name in self.conversations.service.models}
                for side in range(2):
                    select(f"{strings.model} {side + 1}", models, "", partial(self._choose, side)).classes("contender")
                OptionsMenu(self.conversations, strings, self.options, with_model=False)
                ui.space()
                self._send = icon_button("arrow_upward", strings.send, lambda: submit(self.input, self.ask), "send")
                self._stop = icon_button("stop", strings.stop, self.stop, "send stop").props("data-stop")
        self._update_buttons()

    def _choose(self, side: int, model: str) -> None:
        self._chosen[side] = model

    def _running(self) -> bool:
        return any(turn.phase != "over" for turn in self.turns)

    def _update_buttons(self) -> None:
        self._send.set_visibility(not self._running())
        self._stop.set_visibility(self._running())

    def ask(self, question: str) -> bool:
        """Whether the question was accepted."""
        if not question.strip() or self._running():
            return False
        try:
            self.match = Match.draw(list(self.conversations.service.models), [name for name in self._chosen if name])
        except UserError as error:
            ui.notify(self.strings.failure(error), type="negative")
            return False
        self.question = question.strip()
        self._question.text = self.question
        self._question.set_visibility(True)
        messages = [{"role": "user", "content": self.question}]
        self.turns = [ChatTurn(self.conversations.service, messages, replace(self.options, model=model))
                      for model in (self.match.a, self.match.b)]
        self._sides.clear()
        self._voting.clear()
        self._answers, self._headings = [], []
        with self._sides:
            for turn, label in zip(self.turns, (self.strings.model_a, self.strings.model_b)):
                with ui.element("div").classes("side"):
                    self._headings.append(ui.label(label).classes("side-name").props("role=heading aria-level=2"))
                    self._answers.append(AnswerView(turn.message, self.strings, label, turn))
        self._update_buttons()
        return True

    def stop(self) -> None:
        for turn in self.turns:
            turn.stop()

    def tick(self) -> None:
        unfinished = [answer for answer in self._answers if answer.turn is not None]
        for answer in unfinished:
            answer.tick()
        if unfinished and not self._running():
            self._update_buttons()
            if all(turn.message.content for turn in self.turns):
                self._ask_vote()
            else:  # one gave no answer: there is nothing to compare
                self.match = None

    def _ask_vote(self) -> None:
        strings = self.strings
        outcomes: list[tuple[Outcome, str]] = [("a", strings.a_better), ("tie", strings.tie), ("bad", strings.both_bad),
                                               ("b", strings.b_better)]
        with self._voting:
            ui.label(strings.vote_question).classes("title")
            with ui.element("div").classes("choices"):
                for outcome, text in outcomes:
                    button(text, partial(self.vote, outcome)).classes("vote")

    def vote(self, outcome: Outcome) -> None:
        if self.match is None:
            return
        match, self.match, strings = self.match, None, self.strings
        try:
            self.conversations.votes.record(match, outcome, self.question, tuple(turn.message.content for turn in self.turns))
        except RunError as error:  # a full disk
            ui.notify(self.strings.failure(error), type="negative", multi_line=True)
        for heading, name, side in zip(self._headings, (match.a, match.b), (strings.model_a, strings.model_b)):
            heading.text = strings.side_and_model.format(side, name)
        if outcome in ("a", "b"):
            list(self._sides)["ab".index(outcome)].classes("winner")
        self._voting.clear()
        with self._voting:
            ui.label(strings.revealed.format(match.a, match.b)).classes("revealed")
            next_question = button(strings.next_question, self._reset).classes("primary")
            # The vote button that had the focus is gone.
            ui.run_javascript(f"getHtmlElement({next_question.id})?.focus({{preventScroll: true}})")
        self._update_ratings()

    def _reset(self) -> None:
        self._sides.clear()
        self._voting.clear()
        self._answers, self.turns = [], []
        self._question.set_visibility(False)
        self.input.run_method("focus")

    def _update_ratings(self) -> None:
        strings, rows = self.strings, rate(self.conversations.votes.votes())
        self._ratings.clear()
        with self._ratings:
            if not rows:
                ui.label(strings.no_votes).classes("muted")
                return
            with ui.element("div").classes("prose"), ui.element("div").classes("table").props("tabindex=0"):
                with ui.element("table"):
                    with ui.element("thead"):
                        _table_row("th", strings.model, strings.rating, strings.interval, strings.vote_count)
                    with ui.element("tbody"):
                        for row in rows:
                            low, rating, high = (strings.number(round(value)) for value in (row.low, row.rating, row.high))
                            _table_row("td", row.model, rating, f"{low} – {high}", strings.number(row.games))
            ui.label(strings.ratings_help).classes("muted small")


def _table_row(tag: str, *cells: str) -> None:
    with ui.element("tr"):
        for text in cells:
            with ui.element(tag):
                ui.label(text)
