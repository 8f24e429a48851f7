"""The arena tab: two models answer blindly side by side, and the user votes for the better answer."""

from collections.abc import Callable
from functools import partial

from nicegui import ui

from spoutnik.arena.matches import Match
from spoutnik.arena.ratings import Outcome, Vote, rate
from spoutnik.generation.session import ChatOptions
from spoutnik.page.controls import OptionsMenu
from spoutnik.page.conversations import Conversations, Round
from spoutnik.page.model_picker import Select
from spoutnik.page.strings import Strings
from spoutnik.page.widgets import AnswerView, button, icon_button, notify_errors, submit, text_area


class ArenaTab:
    """round: the question that is shown with its two answers. on_change: called when another one is. votes: those given so
    far."""

    def __init__(self, conversations: Conversations, strings: Strings, options: ChatOptions, owner: str | None,
                 round_id: str | None, votes: list[Vote], on_change: Callable[[], None]):
        self.conversations, self.strings, self.options = conversations, strings, ChatOptions(options.model, options.effort)
        self.owner, self._on_change = owner, on_change
        self.round: Round | None = None
        self._waits_for_end = False
        self._chosen = ["", ""]  # models that the user chose; "" is drawn
        self._models: list[str] = []  # those that are served, as they were seen last
        self._answers: list[AnswerView] = []
        with ui.element("section").classes("tab arena").props(f'aria-label="{strings.arena}"') as self.element:
            ui.label(strings.arena_intro).classes("intro")
            self._too_few = ui.label(strings.needs_two_models).classes("muted")
            self._build_composer()
            self._question = ui.label().classes("message-text bubble")
            self._question.set_visibility(False)
            self._sides = ui.element("div").classes("sides")
            self._voting = ui.element("div").classes("voting").props("aria-live=polite")
            ui.label(strings.ratings).classes("title").props("role=heading aria-level=2")
            self._ratings = ui.element("div").classes("ratings")
        self._follow_models()
        self._show_ratings(votes)
        self.open(round_id)

    def _build_composer(self) -> None:
        strings = self.strings
        with ui.element("div").classes("composer") as self._composer:
            self.input = text_area(self.ask, strings.arena_placeholder, strings.arena_placeholder).classes("question")
            self.input.props("rows=1").props.update({"data-draft": f"draft:{self.owner or ''}/arena"})
            ui.run_javascript(f"spoutnik.restoreDraft({self.input.id})")
            with ui.element("div").classes("bar"):
                self._contenders = [Select(f"{strings.model} {side + 1}", {}, "", partial(self._choose, side))
                                    for side in range(2)]
                for contender in self._contenders:
                    contender.element.classes("contender")
                self._options_menu = OptionsMenu(self.conversations, strings, self.options, with_model=False)
                ui.space()
                self._send = icon_button("arrow_upward", strings.send, lambda: submit(self.input, self.ask), "send")
                self._stop = icon_button("stop", strings.stop, self.stop, "send stop").props("data-stop")

    def _choose(self, side: int, model: str) -> None:
        self._chosen[side] = model

    def _follow_models(self) -> None:
        """Offers what is served now: models come and go while the server runs."""
        if self._models == list(self.conversations.service.models):
            return
        self._models = list(self.conversations.service.models)
        self._chosen = [model if model in self._models else "" for model in self._chosen]
        names = {"": self.strings.any_model} | {name: name for name in self._models}
        for contender, chosen in zip(self._contenders, self._chosen):
            contender.show(names, chosen)
        self._options_menu.update()
        self._too_few.set_visibility(len(self._models) < 2)
        self._composer.set_visibility(len(self._models) > 1)

    def _running(self) -> bool:
        return self.round is not None and self.round.running

    def _update_buttons(self) -> None:
        self._send.set_visibility(not self._running())
        self._stop.set_visibility(self._running())

    async def ask(self, question: str) -> bool:
        """Whether the question was accepted."""
        if not question.strip() or self._running():
            return False
        with self.element, notify_errors(self.strings):  # the button that asks again is deleted
            match = Match.draw(list(self.conversations.service.models), [name for name in self._chosen if name])
            self._show(self.conversations.start_round(match, question.strip(), self.options, self.owner))
            self._on_change()
            ui.run_javascript(f"spoutnik.dropSent({self.input.id})")
            return True
        return False

    def open(self, round_id: str | None) -> None:
        """Shows a round that was begun earlier; nothing where it is not there."""
        found = self.conversations.find_round(round_id, self.owner)
        if found is not self.round or found is None:
            self._show(found)

    def _show(self, shown: Round | None) -> None:
        self.round, self._waits_for_end = shown, shown is not None
        self._sides.clear()
        self._voting.clear()
        self._answers, self._headings = [], []
        self._question.set_visibility(shown is not None)
        if shown is not None:
            self._question.text = shown.question
            with self._sides:
                for turn, label in zip(shown.turns, (self.strings.model_a, self.strings.model_b)):
                    with ui.element("div").classes("side"):
                        self._headings.append(ui.label(label).classes("side-name").props("role=heading aria-level=2"))
                        running = turn if turn.phase != "over" else None
                        self._answers.append(AnswerView(turn.message, self.strings, label, running))
        self._update_buttons()

    def stop(self) -> None:
        for turn in self.round.turns if self.round is not None else ():
            turn.stop()

    async def tick(self) -> None:
        self._follow_models()
        for answer in self._answers:
            answer.tick()
        if self._waits_for_end and not self.round.running and all(answer.turn is None for answer in self._answers):
            if self.round.outcome is not None:
                await self._reveal()
            elif self.round.comparable and not self._voting.default_slot.children:
                self._update_buttons()
                self._ask_vote()
            elif not self.round.comparable:  # one gave no answer: there is nothing to compare
                self._waits_for_end = False
                self._update_buttons()
                question = self.round.question
                with self._voting:
                    button(self.strings.ask_again, lambda: self.ask(question), "refresh").classes("pill")

    def _ask_vote(self) -> None:
        strings = self.strings
        outcomes: list[tuple[Outcome, str]] = [("a", strings.a_better), ("tie", strings.tie), ("bad", strings.both_bad),
                                               ("b", strings.b_better)]
        with self._voting:
            ui.label(strings.vote_question).classes("title")
            with ui.element("div").classes("choices"):
                for outcome, text in outcomes:
                    button(text, partial(self.vote, outcome)).classes("vote")

    async def vote(self, outcome: Outcome) -> None:
        if self.round is None or self.round.outcome is not None:  # another tab was faster: the next tick shows its vote
            return
        with notify_errors(self.strings):
            await self.conversations.vote(self.round, outcome)  # a full disk stores none
        next_question = await self._reveal()
        with self.element:  # the vote button that had the focus is gone
            ui.run_javascript(f"getHtmlElement({next_question.id})?.focus({{preventScroll: true}})")

    async def _reveal(self) -> ui.button:
        """Names the models; the button for the next question."""
        self._waits_for_end = False
        match, strings = self.round.match, self.strings
        for heading, name, side in zip(self._headings, (match.a, match.b), (strings.model_a, strings.model_b)):
            heading.text = strings.side_and_model.format(side, name)
        if self.round.outcome in ("a", "b"):
            list(self._sides)["ab".index(self.round.outcome)].classes("winner")
        self._voting.clear()
        with self._voting:
            ui.label(strings.revealed.format(match.a, match.b)).classes("revealed")
            next_question = button(strings.next_question, self._reset).classes("primary")
        self._update_buttons()
        self._show_ratings(await self.conversations.read_votes())
        return next_question

    def _reset(self) -> None:
        self._show(None)
        with self.element:  # the button is gone
            self._on_change()
        self.input.run_method("focus")

    def _show_ratings(self, votes: list[Vote]) -> None:
        strings, rows = self.strings, rate(votes)
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
