"""The tab where two models answer blindly side by side, and one says which was better."""

from functools import partial

from nicegui import events, ui

from spoutnik.arena.matches import Match
from spoutnik.arena.ratings import Outcome, rate
from spoutnik.errors import RunError, UserError
from spoutnik.generation.session import ChatOptions, ChatTurn
from spoutnik.page.chat import ENTER, give_back
from spoutnik.page.controls import Controls, choice
from spoutnik.page.conversations import Conversations
from spoutnik.page.parts import Answer, button, icon_button
from spoutnik.page.strings import Strings


class Arena:
    """duel: what is under way or waits for its vote; None before and after."""

    def __init__(self, conversations: Conversations, strings: Strings, options: ChatOptions):
        self.conversations, self.strings, self.options = conversations, strings, ChatOptions(options.model, options.effort)
        self.match: Match | None = None
        self._contenders = ["", ""]  # those that were named; the others are drawn
        self.turns: list[ChatTurn] = []
        self._answers: list[Answer] = []
        with ui.element("section").classes("tab arena").props(f'aria-label="{strings.arena}"') as self.box:
            ui.label(strings.arena_intro).classes("intro")
            if len(conversations.service.models) < 2:
                ui.label(strings.two_needed).classes("muted")
            else:
                self._ask_for()
            self._question = ui.label().classes("said asked-text")
            self._question.set_visibility(False)
            self._sides = ui.element("div").classes("sides")
            self._ballot = ui.element("div").classes("ballot").props("aria-live=polite")
            ui.label(strings.ratings).classes("title").props("role=heading aria-level=2")
            self._table = ui.element("div").classes("ratings")
        self._show_ratings()

    def _ask_for(self) -> None:
        strings = self.strings
        with ui.element("div").classes("composer"):
            self.input = ui.textarea(placeholder=strings.arena_ask).classes("question")
            self.input.props("autogrow borderless dense rows=1")
            self.input.props.update({"aria-label": strings.arena_ask})
            self.input.on("keydown.enter", self._entered, js_handler=ENTER)
            with ui.element("div").classes("bar"):
                models = {"": strings.any_model} | {name: name for name in self.conversations.service.models}
                for number in range(2):
                    choice(f"{strings.model} {number + 1}", models, "", partial(self._name, number)).classes("contender")
                Controls(self.conversations, strings, self.options, models=False)
                ui.space()
                self._send = icon_button("arrow_upward", strings.send, self._sent, "send")
                self._stop = icon_button("stop", strings.stop, self.stop, "send stop").props("data-stop")
        self._buttons()

    def _name(self, number: int, model: str) -> None:
        self._contenders[number] = model

    def _buttons(self) -> None:
        under_way = any(turn.phase != "over" for turn in self.turns)
        self._send.set_visibility(not under_way)
        self._stop.set_visibility(under_way)

    def _entered(self, event: events.GenericEventArguments) -> None:
        if not self.ask(event.args):
            give_back(self.input, event.args)

    def _sent(self) -> None:
        if self.ask(self.input.value):
            self.input.value = ""

    def ask(self, question: str) -> bool:
        """Whether it was accepted."""
        if not question.strip() or any(turn.phase != "over" for turn in self.turns):
            return False
        strings = self.strings
        try:
            self.match = Match.draw(list(self.conversations.service.models), [name for name in self._contenders if name])
        except UserError as error:
            ui.notify(str(error), type="negative")
            return False
        self.question = question.strip()
        self._question.text = self.question
        self._question.set_visibility(True)
        asked = [{"role": "user", "content": self.question}]
        self.turns = [ChatTurn(self.conversations.service, asked, ChatOptions(model, self.options.effort,
                                                                              self.options.thoughts))
                      for model in (self.match.a, self.match.b)]
        self._sides.clear()
        self._ballot.clear()
        self._answers, self._heads, self._boxes = [], [], []
        with self._sides:
            for turn, name in zip(self.turns, (strings.left, strings.right)):
                with ui.element("div").classes("side") as box:
                    self._boxes.append(box)
                    self._heads.append(ui.label(name).classes("side-name").props("role=heading aria-level=2"))
                    self._answers.append(Answer(turn.message, strings, name, turn))
        self._buttons()
        return True

    def stop(self) -> None:
        for turn in self.turns:
            turn.stop()

    def tick(self) -> None:
        under_way = [answer for answer in self._answers if answer.turn is not None]
        for answer in under_way:
            answer.tick()
        if under_way and all(turn.phase == "over" for turn in self.turns):
            self._buttons()
            if all(turn.message.content for turn in self.turns):
                self._ask_which()
            else:  # one gave no answer: there is nothing to compare
                self.match = None

    def _ask_which(self) -> None:
        strings = self.strings
        choices: list[tuple[Outcome, str]] = [("a", strings.a_better), ("tie", strings.tie), ("bad", strings.both_bad),
                                              ("b", strings.b_better)]
        with self._ballot:
            ui.label(strings.which).classes("title")
            with ui.element("div").classes("choices"):
                for outcome, text in choices:
                    button(text, lambda outcome=outcome: self.vote(outcome)).classes("vote")

    def vote(self, outcome: Outcome) -> None:
        if self.match is None:
            return
        match, self.match = self.match, None
        try:
            self.conversations.votes.record(match, outcome, self.question, tuple(turn.message.content for turn in self.turns))
        except RunError as error:  # a full disk
            ui.notify(str(error), type="negative", multi_line=True)
        for head, name, side in zip(self._heads, (match.a, match.b), (self.strings.left, self.strings.right)):
            head.text = self.strings.named.format(side, name)
        if outcome in ("a", "b"):
            self._boxes["ab".index(outcome)].classes("won")
        self._ballot.clear()
        with self._ballot:
            ui.label(self.strings.revealed.format(match.a, match.b)).classes("revealed")
            again = button(self.strings.again, self._again).classes("main-choice")
            ui.run_javascript(f"getHtmlElement({again.id})?.focus({{preventScroll: true}})")  # what had it is gone
        self._show_ratings()

    def _again(self) -> None:
        for part in (self._sides, self._ballot):
            part.clear()
        self._answers, self.turns = [], []
        self._question.set_visibility(False)
        self.input.run_method("focus")

    def _show_ratings(self) -> None:
        strings, rows = self.strings, rate(self.conversations.votes.votes())
        self._table.clear()
        with self._table:
            if not rows:
                ui.label(strings.no_votes).classes("muted")
                return
            with ui.element("div").classes("prose"), ui.element("div").classes("table").props("tabindex=0"):
                with ui.element("table"):
                    with ui.element("thead"), ui.element("tr"):
                        for name in (strings.model, strings.rating, strings.interval, strings.games):
                            cell(name, "th")
                    with ui.element("tbody"):
                        for row in rows:
                            with ui.element("tr"):
                                cell(row.model)
                                cell(strings.number(round(row.rating)))
                                cell(f"{strings.number(round(row.low))} – {strings.number(round(row.high))}")
                                cell(strings.number(row.games))
            ui.label(strings.ratings_help).classes("muted small")


def cell(text: str, tag: str = "td") -> None:
    with ui.element(tag):
        ui.label(text)
