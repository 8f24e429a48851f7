"""The interactive terminal of `spoutnik chat`: slash commands, messages of several lines, input history on the arrow keys."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from spoutnik.commands.console import print_pairs
from spoutnik.commands.reply_printer import ReplyPrinter, as_text, read_line
from spoutnik.errors import RunError, UserError
from spoutnik.files import disk_errors, read_json, write_json
from spoutnik.generation.chat import Chat
from spoutnik.generation.options import EFFORTS
from spoutnik.model.checkpoint import origin

try:
    import readline
except ImportError:  # some builds of Python lack it: no line editing, no input history
    readline = None

HELP = (
    ("/effort LEVEL", "how much of a reply the thought may take: none, minimal, low, medium, high, xhigh, max"),
    ("/think on|off", "think before answering, or answer at once"),
    ("/markdown on|off", "render answers, or show them as they are written"),
    ("/system TEXT", "what the model is told before everything (nothing: no more)"),
    ("/retry", "another answer to the last question"),
    ("/edit", "change the last question"),
    ("/save FILE", "write the conversation to a file (JSON)"),
    ("/load FILE", "go on with one"),
    ("/stats", "what the last reply cost, and how full the model's memory is"),
    ("/new", "start over"),
    ('"""', "begins and ends a message of several lines; so does \\ at a line's end"),
    ("Ctrl-C", "while it thinks: answer now; while it answers: stop"),
    ("Ctrl-D", "leave; so does an empty line"))
MAX_INPUT_HISTORY = 1000  # lines


def converse(chat: Chat, printer: ReplyPrinter, folder: Path, input_history: Path | None,
             read: Callable[[str], str] = read_line) -> None:
    """Answers messages until an empty line or the end of input. input_history: a file of typed lines. read: asks for a line."""
    terminal = ChatTerminal(chat, printer, folder, read)
    terminal.note(f"{origin(folder)}. {describe_model(chat, folder)} /help for commands, empty line or Ctrl-D to leave.")
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a Ctrl-C that is answered here must not be held to be the end
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with _input_history(input_history if sys.stdin.isatty() else None):
        while terminal.turn():
            pass


def describe_model(chat: Chat, folder: Path) -> str:
    manifest = Path(folder) / "manifest.json"
    if manifest.exists() and "stage" in read_json(manifest):
        return ("It was taught the problem families of its recipe and small talk, nothing else. "
                "Try: Use 3, 5, 8 once each to make 16.")
    return f"A {chat.llm.config.model_type} model."


class ChatTerminal:
    """The loop's state: see `converse`."""

    def __init__(self, chat: Chat, printer: ReplyPrinter, folder: Path, read: Callable[[str], str]):
        self.chat, self.printer, self.folder, self.read = chat, printer, folder, read
        self.note = printer.note

    def turn(self) -> bool:
        """Handles one message or command; False to leave."""
        try:
            text = as_text(self.read_message())
        except EOFError:
            if sys.stdin.isatty():
                self.note("")
            return False
        except KeyboardInterrupt:
            if not sys.stdin.isatty():  # nobody is there to leave in another way
                raise
            self.note("\n(Ctrl-D, or an empty line, leaves.)")
            return True
        if not text.strip():
            return False
        try:
            self.run_command(*text[1:].partition(" ")[::2]) if text.startswith("/") else self.ask(text)
        except (UserError, RunError) as error:
            self.note(str(error))
        return True

    def read_message(self) -> str:
        """One line, or several between triple quotes or after backslashes."""
        line = self.read("> ")
        if line.startswith('"""'):
            lines = [line[3:]]
            while not lines[-1].endswith('"""'):
                lines.append(self.read(". "))
            return "\n".join(lines).removesuffix('"""').strip("\n")
        while line.endswith("\\"):
            line = f"{line[:-1]}\n{self.read('. ')}"
        return line.rstrip()

    def ask(self, text: str) -> None:
        self.chat.ask(text.strip(), self.printer)

    def run_command(self, command: str, argument: str) -> None:
        chat, argument = self.chat, argument.strip()
        match command:
            case "help":
                print_pairs(self.printer.notes, HELP)
            case "new":
                chat.messages.clear()
            case "effort":
                self.set_effort(argument)
            case "think":
                self.set_thinking(argument)
            case "system":
                chat.system = argument or None
            case "retry" | "edit":
                self.repeat(edit=command == "edit")
            case "save" | "load" if not argument:
                raise UserError(f"/{command}: needs a file, as /{command} talk.json")
            case "save":
                self.save(Path(argument).expanduser())
            case "load":
                self.load(Path(argument).expanduser())
            case "markdown":
                self.set_markdown(argument)
            case "stats":
                self.note(self.stats())
            case _:
                raise UserError(f"/{command}: is no command; /help shows them. To say it to the model, begin with a space.")

    def set_effort(self, level: str) -> None:
        if level and level not in EFFORTS:
            raise UserError(f"/effort {level}: unknown. Choose {', '.join(EFFORTS)}.")
        if level:
            self.chat.options = replace(self.chat.options, reasoning_effort=level, enable_thinking=None)
        self.note(f"effort: {self.chat.options.reasoning_effort or 'as the model is used to'}")

    def set_thinking(self, switch: str) -> None:
        if switch not in ("on", "off"):
            raise UserError(f"/think {switch}: must be on or off.")
        options = self.chat.options
        effort = None if options.reasoning_effort == "none" else options.reasoning_effort
        limit = None if options.max_thinking_tokens == 0 else options.max_thinking_tokens
        self.chat.options = replace(options, enable_thinking=switch == "on", reasoning_effort=effort, max_thinking_tokens=limit)

    def set_markdown(self, switch: str) -> None:
        if switch not in ("on", "off"):
            raise UserError(f"/markdown {switch}: must be on or off.")
        self.printer.markdown = switch == "on"

    def repeat(self, edit: bool) -> None:
        """Asks the last question again, edited or not."""
        question = self.chat.take_back()
        if question is None:
            raise UserError("there is no question yet.")
        if edit:
            with _prefilled_input(question):
                question = self.read_message() or question
        self.chat.seed += 1  # for other random numbers
        self.ask(question)

    def save(self, path: Path) -> None:
        write_json(path, {"model": str(origin(self.folder)), "system": self.chat.system, "messages": self.chat.messages})
        self.note(f"{len(self.chat.messages)} messages in {path}")

    def load(self, path: Path) -> None:
        content = read_json(path)
        messages = content.get("messages") if isinstance(content, dict) else None
        if not isinstance(messages, list) or not all(
                isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))
                for message in messages):
            raise UserError(f"{path}: is no conversation: it must hold messages, each with role and content.")
        self.chat.messages, self.chat.system = messages, content.get("system")
        for message in messages:
            self.note(f"> {message['content']}") if message["role"] == "user" else self.printer.show_answer(message["content"])

    def stats(self) -> str:
        last, first = self.chat.stats, self.chat.stats.first_token_seconds
        speed = (last.tokens - 1) / (last.seconds - first) if last.seconds > first else 0.0
        return (f"last reply: {last.tokens} tokens ({last.thought_tokens} of thought) in {last.seconds:.1f} s, first after "
                f"{first:.1f} s, then {speed:.1f} a second; {last.cached_tokens} of {last.prompt_tokens} tokens before it "
                f"were in the cache\nmemory: {last.prompt_tokens + last.tokens} of {self.chat.llm.max_model_len} tokens, "
                f"{len(self.chat.messages)} messages")


@contextlib.contextmanager
def _prefilled_input(text: str) -> Iterator[None]:
    """The next line that is read starts with this text, which can be edited."""
    if readline is None:
        yield
        return
    readline.set_pre_input_hook(lambda: (readline.insert_text(text), readline.redisplay()))
    try:
        yield
    finally:
        readline.set_pre_input_hook()


@contextlib.contextmanager
def _input_history(path: Path | None) -> Iterator[None]:
    """Reads the lines of earlier sessions for the arrow keys, and at the end writes them with those of this one."""
    if readline is None or path is None:
        yield
        return
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(MAX_INPUT_HISTORY)
    try:
        yield
    finally:
        with disk_errors(path, "--data"):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            readline.write_history_file(path)
