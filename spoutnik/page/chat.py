"""The chat tab: the messages of a conversation, and the composer below them."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from nicegui import events, ui

from spoutnik.generation.session import ChatMessage, ChatOptions
from spoutnik.page import drafts
from spoutnik.page.controls import Attachments, OptionsMenu, remember
from spoutnik.page.conversations import Conversation, Conversations
from spoutnik.page.dates import Calendar
from spoutnik.page.greeting import Greeting
from spoutnik.page.model_picker import ModelPicker
from spoutnik.page.strings import Strings
from spoutnik.page.widgets import (
    AnswerView,
    Handler,
    button,
    button_row,
    icon_button,
    note,
    notify_errors,
    open_dialog,
    submit,
    text_area,
)


class ChatTab:
    """on_change: called when the conversation that is shown has another address. open_models: see Layout."""

    def __init__(self, conversations: Conversations, strings: Strings, calendar: Calendar, options: ChatOptions,
                 conversation: Conversation, on_change: Callable[[], None], open_models: Handler | None = None):
        self.conversations, self.strings, self.calendar, self.options = conversations, strings, calendar, options
        self.conversation, self._on_change = conversation, on_change
        self._views: list[tuple[ChatMessage, ui.element, AnswerView | None]] = []
        self._synced_version = -1
        self._models: list[str] = []  # those that are served, as they were seen last
        with ui.element("section").classes("tab chat").props(f'aria-label="{strings.chat}"') as self.element:
            self._greeting = Greeting(conversations.service, strings, options, self.ask, open_models)
            self._messages = ui.element("div").classes("messages").props("id=messages")
            self._build_unanswered()
            self._build_composer()
        self.sync()
        self._follow_models()
        ui.on("spoutnik_file", self._restore_file)
        drafts.open_draft(self.conversation)

    def _build_unanswered(self) -> None:
        with ui.element("div").classes("unanswered") as self._unanswered:
            note("help_outline", self.strings.unanswered)
            button(self.strings.ask_again, self._answer, "refresh").classes("pill")

    def _build_composer(self) -> None:
        strings = self.strings
        with ui.element("div").classes("dock"):
            icon_button("arrow_downward", strings.scroll_to_end, classes="scroll-end").props("data-scroll-end")
            with ui.element("div").classes("composer"):
                self.attachments = Attachments(strings, ui.element("div").classes("files"), self._keep_files)
                self.input = text_area(self.ask, strings.question_label, strings.question_placeholder).classes("question")
                self.input.props("rows=1 for=question data-question")
                with ui.element("div").classes("bar"):
                    self.attachments.button()
                    self._options_menu = OptionsMenu(self.conversations, strings, self.options)
                    self._picker = ModelPicker(self.conversations.service, strings, self.options, self.choose_model)
                    ui.space()
                    self._send = icon_button("arrow_upward", strings.send, lambda: submit(self.input, self.ask), "send")
                    self._stop = icon_button("stop", strings.stop, self.stop, "send stop").props("data-stop")

    @contextlib.contextmanager
    def _notify_errors(self) -> Iterator[None]:
        """Shows errors as notifications. A conversation that was deleted elsewhere is replaced by a new one."""
        with self.element, notify_errors(self.strings):  # what was clicked may be deleted meanwhile
            try:
                yield
            except KeyError:
                self._enter(Conversation("", self.conversation.owner))
                self._on_change()
                ui.notify(self.strings.conversation_gone, type="warning", position="top")

    async def ask(self, question: str) -> bool:
        """Whether the question was accepted."""
        conversation = self.conversation

        async def start() -> None:
            await self.conversations.ask(conversation, question.strip(), self.attachments.files, self.options)
            self.attachments.clear()

        accepted = bool(question.strip()) and await self._start_turn(start)
        if accepted:
            with self.element:
                drafts.drop_draft(question, conversation)
        return accepted

    async def _start_turn(self, start: Callable[[], Awaitable[None]]) -> bool:
        """Starts an answer, unless one is under way, and shows it. False: none was started."""
        if self.conversation.busy:
            ui.notify(self.strings.busy, position="top")
            return False
        with self._notify_errors():
            await start()
            self._on_change()
            self.sync()
            ui.run_javascript("spoutnik.follow()")
            return True
        return False

    def stop(self) -> None:
        if self.conversation.turn is not None:
            self.conversation.turn.stop()

    async def open(self, conversation_id: str | None) -> None:
        """Shows another conversation; None: a new one. Where it cannot be read, what is shown stays."""
        with notify_errors(self.strings):
            self._enter(await self.conversations.open(conversation_id, self.conversation.owner))

    def _enter(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.sync()
        self._follow_models()
        self.attachments.clear()
        drafts.open_draft(conversation)
        ui.run_javascript("spoutnik.follow(); spoutnik.focusQuestion()")

    def choose_model(self, model: str) -> None:
        """Has this model answer from now on: in this conversation, and in new ones of this browser."""
        self.conversation.model = self.options.model = model
        remember(self.options)
        self._show_model()

    def _show_model(self) -> None:
        self._picker.update()
        self._options_menu.update()
        self._greeting.update()

    def _follow_models(self) -> None:
        """Shows the conversation's own model, and what is served now: models come and go while the server runs."""
        service, before = self.conversations.service, (self._models, self.options.model)
        self._models, wanted = list(service.models), self.conversation.next_model
        if wanted in service.models:
            self.options.model = wanted
        elif self.options.model not in service.models:
            text = self.strings.model_gone.format(self.options.model, service.default.id)
            with self.element:
                ui.notify(text, type="warning", position="top")
            self.options.model = service.default.id
        if before != (self._models, self.options.model):
            self._show_model()

    def _keep_files(self) -> None:
        drafts.keep_files(self.attachments.files, self.conversation)

    def _restore_file(self, event: events.GenericEventArguments) -> None:
        """A file of a draft that was opened again."""
        key, name, text = event.args
        if key == drafts.draft_key(self.conversation):
            self.attachments.add(name, text)

    async def _retry(self, message: ChatMessage) -> None:
        await self._start_turn(lambda: self.conversations.retry(self.conversation, message, self.options))

    async def _continue(self, message: ChatMessage) -> None:
        await self._start_turn(lambda: self.conversations.go_on(self.conversation, message, self.options))

    async def _answer(self) -> None:
        """Answers a question that was left without one."""
        await self._start_turn(
            lambda: self.conversations.answer(self.conversation, self.conversation.messages[-1], self.options))

    async def _show_version(self, message: ChatMessage, button_class: str) -> None:
        with self._notify_errors():
            await self.conversations.show(self.conversation, message)
            self.sync()
            # The button that had the focus is gone.
            ui.run_javascript(f"document.querySelector('[data-message=\"{message.id}\"] .{button_class}')?.focus()")

    async def _record_feedback(self, message: ChatMessage, rating: str | None, correction: str | None) -> None:
        with self._notify_errors():
            await self.conversations.record_feedback(self.conversation, message, rating, correction)
            is_followup = len(self.conversation.tree.path_to(message)) > 2 and (rating or correction)
            ui.notify(self.strings.followup_feedback if is_followup else self.strings.feedback_saved, position="top")

    def tick(self) -> None:
        self._follow_models()
        if self._synced_version != self.conversation.version:
            self.sync()
        if self._views and self._views[-1][2] is not None:
            self._views[-1][2].tick()

    def sync(self) -> None:
        """Shows the conversation's messages. Views of messages that are still there are left alone."""
        turn, messages = self.conversation.turn, self.conversation.messages
        unchanged = 0
        while unchanged < min(len(messages), len(self._views)) and messages[unchanged] is self._views[unchanged][0]:
            unchanged += 1
        for _, element, _ in self._views[unchanged:]:
            element.delete()
        del self._views[unchanged:]
        with self._messages:
            for message in messages[unchanged:]:
                answer = None
                if message.role == "user":
                    element = self._question_view(message)
                else:
                    running = turn if turn is not None and turn.message is message else None
                    answer = AnswerView(message, self.strings, message.model, running, self._build_actions)
                    element = answer.element
                element.props.update({"data-message": message.id})
                self._views.append((message, element, answer))
        self._synced_version = self.conversation.version
        self._greeting.element.set_visibility(not messages)
        self._unanswered.set_visibility(bool(messages) and messages[-1].role == "user")
        self._send.set_visibility(turn is None)
        self._stop.set_visibility(turn is not None)

    def _build_actions(self, answer: AnswerView) -> None:
        strings, message = self.strings, answer.message
        self._build_versions(message)
        if self._may_go_on(message):
            button(strings.resume, lambda: self._continue(message), "play_arrow").classes("pill")
        if "error" in message.extras or message.extras.get("finish_reason") == "interrupted":
            button(strings.ask_again, lambda: self._retry(message), "refresh").classes("pill")
        else:
            icon_button("refresh", strings.retry, lambda: self._retry(message))
        if message.content:
            icon_button("content_copy", strings.copy).props.update({"data-copy": message.content})
            self._build_thumbs(message)
            icon_button("edit_note", strings.correct_answer, lambda: self._open_correction(answer))
        ui.label(message.model).classes("muted author ellipsis").props.update(
            {"title": f"{message.model}, {self.calendar.time(message.created)}"})

    def _may_go_on(self, message: ChatMessage) -> bool:
        """Whether an answer has begun and not come to its end. One that was cut goes on where something before it can be left
        out."""
        cut = message.extras.get("finish_reason") == "length" and len(self.conversation.tree.path_to(message)) > 2
        ended = cut or "error" in message.extras or message.extras.get("finish_reason") in ("interrupted", "abort")
        return ended and bool(message.content or message.thought)

    def _build_versions(self, message: ChatMessage) -> None:
        """Which version of a message this is, where there are several, and buttons to flip through them. Versions that failed
        before their first word are left out."""
        versions = [version for version in self.conversation.tree.versions(message)
                    if version is message or version.content or version.thought]
        if len(versions) < 2:
            return
        strings, place = self.strings, versions.index(message)
        with ui.element("div").classes("versions").props("role=group") as group:
            for icon, label, step, name in (("chevron_left", strings.previous_version, -1, "previous"),
                                            ("chevron_right", strings.next_version, 1, "next")):
                if step == 1:
                    ui.label(f"{place + 1}/{len(versions)}").props("aria-hidden=true")
                target = versions[min(max(place + step, 0), len(versions) - 1)]
                flip = icon_button(icon, label, partial(self._show_version, target, f"{name}-version"), f"{name}-version")
                flip.props.update({"aria-disabled": "true"} if target is message else {})
        group.props.update({"aria-label": strings.version.format(place + 1, len(versions))})

    def _build_thumbs(self, message: ChatMessage) -> None:
        strings, thumbs = self.strings, {}

        async def rate(rating: str) -> None:
            withdrawn = message.extras.get("rating") == rating
            await self._record_feedback(message, None if withdrawn else rating, message.extras.get("correction"))
            update()

        def update() -> None:
            for rating, (thumb, icon) in thumbs.items():
                pressed = message.extras.get("rating") == rating
                thumb.icon = icon if pressed else f"o_{icon}"
                thumb.props.update({"aria-pressed": str(pressed).lower()})

        for rating, icon, label in (("up", "thumb_up", strings.good_answer), ("down", "thumb_down", strings.bad_answer)):
            thumbs[rating] = icon_button(icon, label, lambda rating=rating: rate(rating)), icon
        update()

    def _open_correction(self, answer: AnswerView) -> None:
        strings, message = self.strings, answer.message

        async def save() -> None:
            text = area.value.strip()
            if text and text != message.content.strip():
                await self._record_feedback(message, message.extras.get("rating"), text)
                answer.update_notes()
            dialog.close()

        with open_dialog(strings.correct_answer) as dialog:
            ui.label(strings.correct_answer).classes("title").props("role=heading aria-level=2")
            ui.label(strings.correct_answer_help).classes("muted")
            area = ui.textarea(value=message.extras.get("correction") or message.content).classes("full")
            area.props("outlined autogrow autofocus").props.update({"aria-label": strings.correct_answer})
            button_row(strings.cancel, dialog.close, strings.save, save)

    def _question_view(self, message: ChatMessage) -> ui.element:
        strings, text = self.strings, message.extras.get("question", message.content)
        with ui.element("article").classes("user-message").props(f'aria-label="{strings.you}"') as element:
            with ui.element("div").classes("bubble"):
                ui.label(text).classes("message-text")
                for name in message.extras.get("files", []):
                    with ui.element("span").classes("file"):
                        ui.icon("description").props("aria-hidden=true")
                        ui.label(name).classes("ellipsis")
            with ui.element("div").classes("user-actions"):
                self._build_versions(message)
                icon_button("content_copy", strings.copy).props.update({"data-copy": text})
                icon_button("edit", strings.edit, lambda: self._open_edit(message, element, text))
        return element

    def _open_edit(self, message: ChatMessage, element: ui.element, text: str) -> None:
        if self.conversation.busy:
            return
        strings, children = self.strings, list(element)
        for child in children:
            child.set_visibility(False)
        draft = f"draft:{drafts.draft_key(self.conversation)}/{message.id}"

        def cancel() -> None:
            drafts.drop_edit(draft)
            form.delete()
            for child in children:
                child.set_visibility(True)

        async def send(question: str) -> bool:
            accepted = bool(question.strip()) and await self._start_turn(lambda: self.conversations.edit(
                self.conversation, message, question.strip(), self.options))
            if accepted:
                with self.element:  # the form is gone
                    drafts.drop_edit(draft)
            return accepted

        with element, ui.element("div").classes("bubble editing") as form:
            area = text_area(send, strings.edit, value=text).props("autofocus")
            area.props.update({"data-draft": draft})
            ui.run_javascript(f"spoutnik.restoreEdit({area.id})")
            button_row(strings.cancel, cancel, strings.submit_edit, lambda: send(area.value))
