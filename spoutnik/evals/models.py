"""The model that is evaluated: one that our engine runs, or one behind an OpenAI-compatible endpoint. Both take questions and
give back replies, one by one as they end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from spoutnik.endpoint import Endpoint, EndpointRequest
from spoutnik.endpoint_wire import EndpointReply
from spoutnik.engine.llm import LLM
from spoutnik.engine.outputs import CompletionOutput
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.errors import RunError, UserError
from spoutnik.evals.asking import LONGEST_REPLY, AskingSettings
from spoutnik.evals.samples import ModelReply
from spoutnik.files import read_json, sha256_file, sha256_json
from spoutnik.loading import load_tokenizer
from spoutnik.locate import converses, path_of
from spoutnik.model.adapter_file import CONFIG, WEIGHTS
from spoutnik.tasks.prompt_styles import Chat, Prompt, Style
from spoutnik.text.thought import read_reply
from spoutnik.text.thought_format import thought_format

_WEIGHTS = ("*.safetensors", "*.gguf", "*.bin", "config.json", "tokenizer.json", "tokenizer.model")
_LEAST_ROOM = 2  # tokens of a reply: one of text and the end of sentence


@dataclass(frozen=True)
class Question:
    """One reply to ask for. seed: of its random numbers alone."""

    prompt: Prompt
    seed: int


OnReply = Callable[[int, ModelReply], None]  # (number of the question, its reply)
OnTokens = Callable[[int], None]  # tokens generated since the last call
NO_REPLY = ModelReply("", "", False, False, 0, 0)  # the prompt leaves no room for one


class EvaluatedModel(Protocol):
    """name: for people and folders. facts: what decides its replies to a prompt, as plain data. batch: how many replies it
    computes at one time without taking much longer."""

    name: str
    batch: int

    def facts(self) -> dict: ...

    def check(self, style: Style, chosen: bool) -> str | None:
        """A warning, if this model should not be asked in this style. chosen: somebody wanted it. Raises UserError."""

    def rendered(self, prompt: Prompt) -> str:
        """A prompt as the model gets it."""

    def limit(self, settings: AskingSettings) -> int:
        """The longest reply, where its prompt leaves so much room."""

    def ask(self, questions: Sequence[Question], style: Style, settings: AskingSettings, on_reply: OnReply,
            on_tokens: OnTokens) -> None: ...


class LocalModel:
    """A model's folder, run by our engine. Arguments as of `LLM`."""

    batch = 32

    def __init__(self, folder: Path, name: str | None = None, *, adapter: Path | None = None, dtype: str = "auto",
                 quantize: str | None = None, memory: str | None = None, device: str = "auto"):
        self.folder, self.name, self.adapter = folder, name or folder.name, adapter and path_of(adapter)
        self.tokenizer = load_tokenizer(folder)
        self._format = thought_format(self.tokenizer)
        self.llm = LLM(folder, self.tokenizer, adapter=adapter, dtype=dtype, device=device, quantize=quantize,
                       memory=memory, eos_token_ids=self._format.end_ids)
        computed = self.llm.core.runner.dtype  # an adapter may need float32
        self._precision = {"dtype": str(computed).removeprefix("torch."), "quantize": quantize}
        if self.llm.core.runner.device.type != "cpu":
            self._precision["device"] = self.llm.core.runner.device.type

    def facts(self) -> dict:
        files = sorted({file for pattern in _WEIGHTS for file in self.folder.glob(pattern)})
        facts = {"content": sha256_json({file.name: sha256_file(file) for file in files})} | self._precision
        if self.adapter is not None:
            facts["adapter"] = sha256_json([sha256_file(self.adapter / name) for name in (CONFIG, WEIGHTS)])
        return facts

    @property
    def is_base(self) -> bool:
        """Whether nobody taught it conversations: it has no template, or our manifest says so (its template is there for the
        stages that follow)."""
        manifest = self.folder / "manifest.json"
        return self.tokenizer.chat_template is None or manifest.exists() and not converses(read_json(manifest))

    def check(self, style: Style, chosen: bool) -> str | None:
        if style.name != "chat" or not self.is_base:
            return None
        remedy = "Ask it with --style few-shot, or --style forum or textbook if our recipe trained it."
        if self.tokenizer.chat_template is None:
            raise UserError(f"{self.name}: --style chat needs a chat template, and this model has none: it is a base. {remedy}")
        if not chosen:
            raise UserError(f"{self.name}: is a base that has never seen its chat template, and would answer nothing that can "
                            f"be graded. {remedy} (--style chat asks all the same.)")
        return f"{self.name} is a base that has never seen its chat template: its score says little. {remedy}"

    def ids(self, prompt: Prompt) -> list[int]:
        if prompt.text is not None:
            return self.tokenizer.start_ids + self.tokenizer.encode(prompt.text)
        return self.tokenizer.chat_ids(prompt.conversation(), variables=self._format.variables)

    def rendered(self, prompt: Prompt) -> str:
        return self.tokenizer.decode(self.ids(prompt), keep_special=True)

    def limit(self, settings: AskingSettings) -> int:
        return min(settings.max_tokens or LONGEST_REPLY, self.llm.config.max_position_embeddings)

    def ask(self, questions: Sequence[Question], style: Style, settings: AskingSettings, on_reply: OnReply,
            on_tokens: OnTokens) -> None:
        prompts, params, numbers = [], [], []
        for number, question in enumerate(questions):
            ids = self.ids(question.prompt)
            room = min(self.limit(settings), self.llm.config.max_position_embeddings - len(ids))
            if room < _LEAST_ROOM:
                on_reply(number, NO_REPLY)
                continue
            stop = question.prompt.stop if question.prompt.text is not None else ()
            numbers.append(number)
            prompts.append(ids)
            params.append(SamplingParams(temperature=settings.temperature, top_p=settings.top_p, max_tokens=room,
                                         seed=question.seed, stop=stop, skip_special_tokens=question.prompt.text is None))
        self.run(prompts, params, lambda index, output: on_reply(
            numbers[index], self._reply(output, questions[numbers[index]].prompt, style)), on_tokens)

    def run(self, prompts: list[list[int]], params: list[SamplingParams], on_output: Callable[[int, CompletionOutput], None],
            on_tokens: OnTokens) -> None:
        """Samples all prompts in one batch; (number of the prompt, output) as each ends. Raises RunError where all fail."""
        requests = self.llm.requests_of(prompts, params, None) if prompts else []
        core, index_of, failures = self.llm.core, {id(request): i for i, request in enumerate(requests)}, []
        for request in requests:
            core.add(request)
        left = len(requests)
        try:
            while left:
                step = core.step()
                on_tokens(step.tokens)
                for sample in step.ended:
                    if sample.finish_reason == "error":
                        failures.append(str(sample.stop_reason))
                    on_output(index_of[id(sample.request)], sample.output(self.tokenizer))
                left -= len(step.ended)
        except BaseException:
            for request in requests:
                core.abort(request.request_id)
            raise
        if failures and len(failures) == len(requests):
            raise RunError(failures[0])

    def _reply(self, output: CompletionOutput, prompt: Prompt, style: Style) -> ModelReply:
        tokens = len(output.token_ids)
        if prompt.text is None:
            reply = read_reply(output.reply_ids, self.tokenizer, output.finished)
            return ModelReply(reply.thought, reply.answer, output.finished, reply.well_formed, tokens, reply.thought_tokens)
        read = style.read(self._plain(output, prompt), output.finished)
        return ModelReply(read.thought, read.answer, output.finished, read.well_formed, tokens,
                          len(self.tokenizer.encode(read.thought)))

    def _plain(self, output: CompletionOutput, prompt: Prompt) -> str:
        """The text before the end of sentence, or up to the stop text."""
        if output.finished and isinstance(output.stop_reason, str):
            return output.text + output.stop_reason * prompt.keep_stop
        return self.tokenizer.decode(output.reply_ids, keep_special=True)


class EndpointModel:
    """A model behind an address. It is asked through chat completions, with several requests under way at one time."""

    def __init__(self, endpoint: Endpoint, concurrency: int = 8):
        self.endpoint, self.name, self.batch = endpoint, endpoint.model, concurrency

    def facts(self) -> dict:
        return {"endpoint": self.endpoint.base_url, "model": self.endpoint.model}

    def check(self, style: Style, chosen: bool) -> str | None:
        if style.name not in ("chat", "few-shot"):
            raise UserError(f"--style {style.name}: is plain text, and an endpoint takes conversations. Choose chat or "
                            "few-shot.")
        return None

    def rendered(self, prompt: Prompt) -> str:
        return "\n".join(f"{role}: {content}" for role, content in prompt.messages)

    def limit(self, settings: AskingSettings) -> int:
        return settings.max_tokens or LONGEST_REPLY

    def ask(self, questions: Sequence[Question], style: Style, settings: AskingSettings, on_reply: OnReply,
            on_tokens: OnTokens) -> None:
        requests = [EndpointRequest(question.prompt.conversation(), settings.temperature, settings.top_p,
                                    self.limit(settings), question.seed) for question in questions]

        def on_endpoint_reply(number: int, reply: EndpointReply) -> None:
            on_tokens(reply.usage.completion_tokens or 0)
            on_reply(number, _read_endpoint(reply))

        self.endpoint.complete_all(requests, self.batch, on_endpoint_reply)


def _read_endpoint(reply: EndpointReply) -> ModelReply:
    """Some endpoints give the thought apart, others leave its marks in the text. Its tokens are the thought's share of the
    characters."""
    finished, tokens = reply.finish_reason == "stop", reply.usage.completion_tokens or 0
    read = Chat().read(reply.text, finished)
    thought, answer, well_formed = read.thought, read.answer, read.well_formed
    if reply.reasoning:
        thought, answer, well_formed = reply.reasoning, reply.text.strip(), finished and bool(reply.text.strip())
    length = len(thought) + len(answer)
    return ModelReply(thought, answer, finished, well_formed, tokens, round(tokens * len(thought) / length) if length else 0)


def endpoint_model(address: str, options: Mapping[str, str | None], concurrency: int) -> EndpointModel:
    """A model behind an address. options: "model" and "key_variable" of the command line.

    Raises:
        UserError: it is not said which model.
    """
    if not options["model"]:
        raise UserError(f"{address}: an endpoint serves models by name. Say which one with --model NAME.")
    return EndpointModel(Endpoint(address, options["model"], options["key_variable"]), concurrency)
