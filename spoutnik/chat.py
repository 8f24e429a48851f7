"""A conversation in the terminal. The thought is dimmed and kept apart from the answer."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.text import Text

from spoutnik.engine.llm import LLM
from spoutnik.engine.params import SamplingParams
from spoutnik.errors import UserError
from spoutnik.files import read_json
from spoutnik.loading import load_tokenizer
from spoutnik.text.thought import ThoughtStream, opens_thought
from spoutnik.text.tokenizer import Message


class Chat:
    """Remembers the turns; each reply starts from a fresh thought, past thoughts are dropped as R1's template does.

    folder: a model of ours or any published checkpoint with a chat template. engine: what LLM takes besides.
    """

    def __init__(self, folder: Path, params: SamplingParams, seed: int, **engine):
        self.tokenizer = load_tokenizer(folder)
        self.tokenizer.templates.choose(with_tools=False)  # says so now where there is none: weights take long to read
        self.llm = LLM(folder, self.tokenizer, max_num_seqs=1, **engine)
        self.params, self.seed = params, seed
        self.messages: list[Message] = []

    def ask(self, question: str, console: Console | None) -> dict:
        """One turn; shown as it comes where a console is given. Returns prompt, thought, answer, tokens, finish_reason."""
        self.messages.append({"role": "user", "content": question})
        prompt = self.tokenizer.chat_ids(self.messages)
        stream = ThoughtStream(self.tokenizer, opens_thought(prompt, self.tokenizer))
        shown, tokens = ["", ""], 0
        for token in chain(self._tokens(prompt), [None]):
            tokens += token is not None
            for part, text in enumerate(stream.close() if token is None else stream.feed([token])):
                if text and console is not None:
                    gap = "\n\n" if part and shown[0] and not shown[1] else ""
                    console.print(Text(gap + text, style="" if part else "dim italic"), end="", soft_wrap=True)
                shown[part] += text
        thought, answer = shown
        finished = tokens < self.params.max_tokens
        if console is not None:
            console.print("" if finished else Text("\n(cut off: --max-tokens reached)", style="dim"))
        self.messages.append({"role": "assistant", "content": answer})
        return {"prompt": question, "thought": thought, "answer": answer, "tokens": tokens,
                "finish_reason": "stop" if finished else "length"}

    def _tokens(self, prompt: list[int]) -> Iterator[int]:
        """The reply as it comes, without the token that ends it."""
        params = replace(self.params, seed=self.seed + len(self.messages))
        for added in self.llm.stream(prompt, params):
            for made in added.outputs:
                yield from made.reply_ids

    def _about(self, folder: Path) -> str:
        manifest = Path(folder) / "manifest.json"
        if manifest.exists() and "stage" in read_json(manifest):
            return ("It was taught the problem families of its recipe and small talk, nothing else. "
                    "Try: Use 3, 5, 8 once each to make 16.")
        return f"A {self.llm.config.model_type} model."

    def converse(self, console: Console, folder: Path) -> None:
        console.print(Text(f"{folder}. {self._about(folder)} Empty line or Ctrl-D to leave, /new to start over.", "dim"))
        while True:
            try:
                question = console.input("[bold]> [/]").strip()
            except EOFError:
                console.print()
                return
            if not question:
                return
            if question == "/new":
                self.messages.clear()
                continue
            try:
                self.ask(question, console)
            except UserError as error:  # the conversation has grown too long: say so and go on
                self.messages.clear()
                console.print(Text(f"{error} The conversation starts over.", style="dim"))
