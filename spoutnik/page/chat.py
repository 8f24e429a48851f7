"""The tab to talk in: a conversation, and below it the place to ask."""

import contextlib
import json
from collections.abc import Callable, Iterator

from nicegui import events, ui

from spoutnik.errors import RunError, UserError
from spoutnik.generation.session import ChatMessage, ChatOptions
from spoutnik.page.controls import Attached, Controls
from spoutnik.page.conversations import Conversation, Conversations
from spoutnik.page.parts import Answer, button, icon_button
from spoutnik.page.strings import Strings

# Enter sends, except with Shift, while a character is being composed, or while an answer is under way. The field is emptied at
# once, not when the server has heard of it: what is typed meanwhile would be lost.
ENTER = """(e) => {
  if (e.shiftKey || e.isComposing) return;
  e.preventDefault();
  if (e.target.closest(".composer")?.querySelector("[data-stop]").offsetParent) return;
  emit(e.target.value);
  e.target.value = "";
  e.target.dispatchEvent(new Event("input"));
}"""


def give_back(field: ui.textarea, text: str) -> None:
    """What was not accepted; a moment later, when the field is known to be empty."""
    ui.timer(0.2, lambda: field.set_value(field.value or text), once=True)


class Chat:
    """changed: is told when the list of conversations is another."""

    def __init__(self, conversations: Conversations, strings: Strings, options: ChatOptions, conversation: Conversation,
                 changed: Callable[[], None]):
        self.conversations, self.strings, self.options = conversations, strings, options
        self.conversation, self._changed = conversation, changed
        self._views: list[tuple[ChatMessage, ui.element, Answer | None]] = []
        self._seen = -1
        with ui.element("section").classes("tab chat").props(f'aria-label="{strings.chat}"') as self.box:
            self._greeting = ui.element("div").classes("greeting")
            with self._greeting:
                self._greet()
            self._list = ui.element("div").classes("talk").props("id=talk")
            self._composer()
        self.sync()

    def _greet(self) -> None:
        ui.label(self.strings.greeting).classes("hello").props("role=heading aria-level=1")
        ui.label(self.strings.hint).classes("muted")
        with ui.element("div").classes("examples"):
            for text in self.strings.examples:
                button(text, lambda text=text: self.ask(text)).classes("example")

    def _composer(self) -> None:
        strings = self.strings
        with ui.element("div").classes("dock"):
            icon_button("arrow_downward", strings.latest, classes="latest").props("data-latest")
            with ui.element("div").classes("composer"):
                attached = ui.element("div").classes("files")
                self.attached = Attached(strings, attached)
                self.input = ui.textarea(placeholder=strings.placeholder).props("autogrow borderless dense rows=1 id=question")
                self.input.props.update({"aria-label": strings.question})
                self.input.classes("question").on("keydown.enter", self._entered, js_handler=ENTER)
                with ui.element("div").classes("bar"):
                    self.attached.button()
                    self.controls = Controls(self.conversations, strings, self.options)
                    ui.space()
                    self._send = icon_button("arrow_upward", strings.send, self._sent, "send")
                    self._stop = icon_button("stop", strings.stop, self.stop, "send stop").props("data-stop")

    # --------------------------------------------------------------------------------------------------- what is done

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong is said. A conversation that was deleted elsewhere begins anew."""
        try:
            yield
        except KeyError:
            self.open(None)
        except (UserError, RunError) as error:
            ui.notify(str(error), type="negative", position="top", multi_line=True, close_button=self.strings.close, timeout=0)

    def _entered(self, event: events.GenericEventArguments) -> None:
        if not self.ask(event.args):
            give_back(self.input, event.args)

    def _sent(self) -> None:
        if self.ask(self.input.value):
            self.input.value = ""

    def ask(self, question: str) -> bool:
        """Whether it was accepted."""
        if not question.strip() or self.conversation.turn is not None:
            return False
        with self._told():
            self.conversations.ask(self.conversation, question.strip(), self.attached.files, self.options)
            self.attached.take()
            self._go_on()
            return True
        return False

    def _go_on(self) -> None:
        ui.run_javascript(f"history.replaceState(null, '', {json.dumps('/?c=' + self.conversation.id)}); spoutnik.follow()")
        self._changed()
        self.sync()

    def stop(self) -> None:
        if self.conversation.turn is not None:
            self.conversation.turn.stop()

    def open(self, conversation_id: str | None) -> None:
        """Shows another conversation; None: a new one."""
        self.conversation = self.conversations.open(conversation_id, self.conversation.owner)
        self._seen = -1
        address = f"/?c={self.conversation.id}" if self.conversation.id else "/"
        ui.run_javascript(f"history.replaceState(null, '', {json.dumps(address)}); spoutnik.follow()")
        self.sync()
        ui.run_javascript("document.querySelector('#question')?.focus()")

    def retry(self, said: ChatMessage) -> None:
        if self.conversation.turn is None:
            with self._told():
                self.conversations.retry(self.conversation, self.conversation.messages.index(said), self.options)
                self._go_on()

    def _judge(self, said: ChatMessage, rating: str | None, correction: str | None) -> None:
        with self._told():
            place = self.conversation.messages.index(said)
            self.conversations.judge(self.conversation, place, rating, correction)
            ui.notify(self.strings.later_turn if place > 1 and (rating or correction) else self.strings.thanks, position="top")

    # -------------------------------------------------------------------------------------------------- what is shown

    def tick(self) -> None:
        if self._seen != self.conversation.changed:
            self.sync()
        for _, _, answer in self._views[-1:]:
            if answer is not None:
                answer.tick()

    def sync(self) -> None:
        """Makes the list show what was said; what stands there already is left alone."""
        conversation = self.conversation
        wanted = conversation.messages + ([conversation.turn.message] if conversation.turn is not None else [])
        same = 0
        while same < min(len(wanted), len(self._views)) and wanted[same] is self._views[same][0]:
            same += 1
        for _, box, _ in self._views[same:]:
            box.delete()
        del self._views[same:]
        with self._list:
            for said in wanted[same:]:
                self._views.append(self._question(said) if said.role == "user" else self._answer(said))
        self._seen = conversation.changed
        self._greeting.set_visibility(not wanted)
        self._send.set_visibility(conversation.turn is None)
        self._stop.set_visibility(conversation.turn is not None)

    def _answer(self, said: ChatMessage) -> tuple[ChatMessage, ui.element, Answer]:
        turn = self.conversation.turn if self.conversation.turn is not None and self.conversation.turn.message is said else None
        answer = Answer(said, self.strings, said.model, turn, self._feet)
        return said, answer.box, answer

    def _feet(self, answer: Answer) -> None:
        strings, said = self.strings, answer.message
        icon_button("refresh", strings.retry, lambda: self.retry(said))
        if said.content:
            icon_button("content_copy", strings.copy).props.update({"data-copy": said.content})
            self._thumbs(said)
            icon_button("edit_note", strings.correct, lambda: self._correct(answer))
        ui.label(said.model).classes("muted by ellipsis")

    def _thumbs(self, said: ChatMessage) -> None:
        thumbs = {}

        def rate(rating: str) -> None:
            self._judge(said, None if said.extras.get("rating") == rating else rating, said.extras.get("correction"))
            show()

        def show() -> None:
            for rating, (thumb, icon) in thumbs.items():
                given = said.extras.get("rating") == rating
                thumb.icon = icon if given else f"o_{icon}"
                thumb.props.update({"aria-pressed": str(given).lower()})

        for rating, icon, label in (("up", "thumb_up", self.strings.good), ("down", "thumb_down", self.strings.bad)):
            thumbs[rating] = icon_button(icon, label, lambda rating=rating: rate(rating)), icon
        show()

    def _correct(self, answer: Answer) -> None:
        strings, said = self.strings, answer.message
        with ui.dialog(value=True) as dialog, ui.card().classes("dialog"):
            ui.label(strings.correct).classes("title").props("role=heading aria-level=2")
            ui.label(strings.correct_help).classes("muted")
            text = ui.textarea(value=said.extras.get("correction") or said.content).props("outlined autogrow autofocus")
            text.props.update({"aria-label": strings.correct})
            text.classes("full")

            def save() -> None:
                if text.value.strip() and text.value.strip() != said.content.strip():
                    self._judge(said, said.extras.get("rating"), text.value.strip())
                    answer.notes()
                dialog.close()

            with ui.element("div").classes("choices"):
                button(strings.cancel, dialog.close)
                button(strings.save, save).classes("main-choice")
        dialog.on("hide", dialog.delete)

    def _question(self, said: ChatMessage) -> tuple[ChatMessage, ui.element, None]:
        strings, text = self.strings, said.extras.get("question", said.content)
        with ui.element("article").classes("asked").props(f'aria-label="{strings.you}"') as box:
            with ui.element("div").classes("asked-text"):
                ui.label(text).classes("said")
                for name in said.extras.get("files", []):
                    with ui.element("span").classes("file"):
                        ui.icon("description").props("aria-hidden=true")
                        ui.label(name).classes("ellipsis")
            with ui.element("div").classes("asked-foot"):
                icon_button("content_copy", strings.copy).props.update({"data-copy": text})
                icon_button("edit", strings.edit, lambda: self._edit(said, box, text))
        return said, box, None

    def _edit(self, said: ChatMessage, box: ui.element, text: str) -> None:
        strings = self.strings
        if self.conversation.turn is not None:
            return
        shown = list(box)
        for part in shown:
            part.set_visibility(False)

        def cancel() -> None:
            form.delete()
            for part in shown:
                part.set_visibility(True)

        def send(question: str) -> bool:
            """Whether it was accepted."""
            if not question.strip() or self.conversation.turn is not None:
                return False
            with self._told():
                self.conversations.edit(self.conversation, self.conversation.messages.index(said), question.strip(),
                                        self.options)
                self._go_on()
                return True
            return False

        def entered(event: events.GenericEventArguments) -> None:
            if not send(event.args):
                give_back(field, event.args)

        with box, ui.element("div").classes("asked-text editing") as form:
            field = ui.textarea(value=text).props("autogrow borderless dense autofocus")
            field.props.update({"aria-label": strings.edit})
            field.on("keydown.enter", entered, js_handler=ENTER)
            with ui.element("div").classes("choices"):
                button(strings.cancel, cancel)
                button(strings.edit_send, lambda: send(field.value)).classes("main-choice")
