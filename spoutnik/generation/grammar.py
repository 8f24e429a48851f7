"""Structured output: answers that must have a form (answer_form.py), or be calls of tools. llguidance says which tokens may
come next.

Only the answer is held to it, never the thought. What cannot be promised is refused with a sentence.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from weakref import WeakKeyDictionary

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from torch import Tensor

from spoutnik.engine.llm import LLM
from spoutnik.errors import RunError, UserError
from spoutnik.generation.answer_form import AnswerForm
from spoutnik.generation.tools.formats import Format, convention
from spoutnik.generation.tools.schemas import ANY_OBJECT, DEFINITIONS, LISTS, MAPS, PARTS, keepable
from spoutnik.generation.tools.tool_set import NO_TOOLS, ToolSet
from spoutnik.text.thought_format import knows_thoughts

# Between JSON's parts a space, or a new line and what indents it: enough for any layout, too little to go on for ever.
WHITE_SPACE = r" |\n(  ){0,12}|\n\t{0,12}"
LIMITS = LLParserLimits(verbose_errors=False)
# Without forcing every token that fits may come, not only those of one way to split what must follow: that one may hold marks.
HEAD = '%llguidance {"no_forcing": true}\n'
TOO_DEEP = "it is nested too deeply"
LEAD = "LEAD: /\\n{1,2}/\n"  # what models write after `</think>`


def structured_output(llm: LLM, form: AnswerForm | dict | None = None, tools: ToolSet = NO_TOOLS, parallel: bool = True,
                      after_thought: bool = True) -> "Form | None":
    """What makes the processor that holds an answer to its form; None where it is free text. Calls of tools: up to
    `tools.max_calls` (one where not `parallel`) instead of an answer or after a text, or nothing else (`tools.required`). Their
    arguments are of the tool's schema; parts of it that cannot be promised are left out, which Form.loosened says.
    form: a dict is a `response_format`. after_thought: a thought may come first, and the white space that follows one.

    Raises:
        UserError: a schema cannot be compiled, or something is not of the API's form; says what and where.
    """
    vocabulary = _vocabulary(llm)
    after_thought = after_thought and (vocabulary.think_id is not None or knows_thoughts(llm.tokenizer))
    if isinstance(form, dict):
        form = AnswerForm.of_response_format(form)
    answer = None if form is None else _answer(vocabulary, form)
    if not tools.callable:
        if answer is None:
            return None
        start = "start: LEAD? answer\n" + LEAD if after_thought else "start: answer\n"
        return _compile(vocabulary, f"{start}answer: {answer}\n", (), form.place, after_thought=after_thought)
    format = convention(llm.tokenizer).format
    if answer is not None and format.at_start and not tools.required:
        raise UserError(f"{form.place}: this model's calls of tools look like JSON answers. Leave out tools or "
                        f"{form.place}, or set tool_choice.")
    if tools.required:
        start = "start: LEAD? calls\n"
    elif answer is not None:
        start = f"start: LEAD? (answer | calls)\nanswer: {answer}\n"
    elif format.at_start:
        start = "start: TEXT | LEAD? calls\nTEXT: /\\s*[^{\\s](.|\\n)*/\n"
    else:
        start = _text_then_calls(vocabulary, format)
    return _compile_calls(vocabulary, start + LEAD, format, tools, parallel)


class Vocabulary:
    """A model's tokens as llguidance sees them. ends: ids of the ends of sentence. think_id: what opens a thought, None for
    nothing. added: text -> id of the tokens that mean something to the chat format."""

    def __init__(self, llm: LLM):
        tokenizer, self.size = llm.tokenizer, llm.config.vocab_size
        self.ends = sorted(llm.core.eos_ids)
        self.think_id = None if tokenizer.end_think_id is None else tokenizer.think_id
        self.tokens = LLTokenizer(tokenizer.bpe.to_str(), n_vocab=self.size, eos_token=self.ends)
        added = tokenizer.bpe.get_added_tokens_decoder()
        # Some vocabularies have white space or single characters among their added tokens: these mean nothing.
        self.added = {token.content: i for i, token in added.items() if len(token.content) > 1 and not token.content.isspace()}
        self.compiled = lru_cache(maxsize=64)(
            lambda grammar: LLMatcher(self.tokens, HEAD + grammar, log_level=0, limits=LIMITS))

    def permitted(self, marks: tuple[str, ...]) -> np.ndarray:
        """One bit for each token: of the added ones, only `marks` and ends may come."""
        bits = np.ones((self.size + 31) // 32 * 32, dtype=np.uint8)
        bits[[i for text, i in self.added.items() if text not in marks]] = 0
        bits[self.ends] = 1
        return np.packbits(bits, bitorder="little").view(np.int32)

    def lark(self, text: str, marks: tuple[str, ...]) -> str:
        """A text as a grammar writes it: marks that are tokens by their ids, since they must not be spelled."""
        for mark in marks:
            before, separator, after = text.partition(mark)
            if separator and mark in self.added:
                parts = self.lark(before, marks), f"<[{self.added[mark]}]>", self.lark(after, marks)
                return " ".join(filter(None, parts))
        return json.dumps(text) if text else ""


_vocabularies: WeakKeyDictionary[LLM, Vocabulary] = WeakKeyDictionary()


def _vocabulary(llm: LLM) -> Vocabulary:
    if llm not in _vocabularies:
        _vocabularies[llm] = Vocabulary(llm)
    return _vocabularies[llm]


class GrammarProcessor:
    """A LogitsProcessor: only tokens that the grammar allows can be chosen, and an end once it is complete. Before it has begun
    the model may open a thought, too (NonemptyAnswerProcessor forbids that where it must not)."""

    done = False

    def __init__(self, vocabulary: Vocabulary, matcher: LLMatcher, permitted: np.ndarray, after_thought: bool = True):
        self.vocabulary, self.matcher, self.permitted = vocabulary, matcher, permitted
        self.think_id = vocabulary.think_id if after_thought else None
        self._bits = np.empty_like(permitted)
        self._begun = self._stuck = False

    def feed(self, token: int) -> None:
        if token == self.think_id and not self._begun:
            return
        self._begun = True
        if token not in self.vocabulary.ends:
            self.matcher.consume_token(token)
        if self._stuck or self.matcher.is_error():
            reason = _sentence(self.matcher.get_error()) or "none of the model's tokens can follow"
            raise RunError(f"the answer could not be held to its form: {reason}.")

    def apply(self, logits: Tensor, num_generated: int) -> None:
        bits = self._bits
        self.matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        np.bitwise_and(bits, self.permitted, out=bits)
        self._stuck = not bits.any()
        np.bitwise_not(bits, out=bits)
        forbidden = np.unpackbits(bits.view(np.uint8), count=len(logits), bitorder="little").view(bool)
        if self.think_id is not None and not self._begun:
            forbidden[self.think_id] = False
        if self._stuck:
            forbidden[self.vocabulary.ends] = False
        mask = torch.from_numpy(forbidden).to(logits.device)
        logits.masked_fill_(mask, float("-inf"))
        if logits.max() == float("-inf"):  # what was left had been forbidden by others (min_tokens): the form matters more
            logits.masked_fill_(~mask, 0.0)


@dataclass(frozen=True)
class Form:
    """Makes the processor that holds an answer to its form. loosened: what of the tools' schemas it does not keep, and why.
    after_thought: see structured_output."""

    vocabulary: Vocabulary
    matcher: LLMatcher
    permitted: np.ndarray
    loosened: tuple[str, ...] = ()
    after_thought: bool = True

    def __call__(self) -> GrammarProcessor:
        return GrammarProcessor(self.vocabulary, self.matcher.deep_copy(), self.permitted, self.after_thought)


def _compile(vocabulary: Vocabulary, grammar: str, marks: tuple[str, ...], place: str, loosened: tuple[str, ...] = (),
             after_thought: bool = True) -> Form:
    matcher, permitted = vocabulary.compiled(grammar), vocabulary.permitted(marks)
    if matcher.is_error():
        raise UserError(f"{place}: what is asked for cannot be promised ({_sentence(matcher.get_error())}). Make it simpler.")
    return Form(vocabulary, matcher, permitted, loosened, after_thought)


def _compile_calls(vocabulary: Vocabulary, start: str, format: Format, tools: ToolSet, parallel: bool) -> Form:
    schemas, loosened = [], {}
    for function in tools.callable:
        schema, lenient, why = keepable(function.parameters, function.strict, partial(_problem_of, vocabulary))
        schemas.append(_rule(schema, lenient))
        if why:
            where = _where(vocabulary, function.parameters, function.parameters, why)
            loosened[function.name] = f"{function.name}: {f'at {where} ' if where else ''}{why}"
    count = tools.max_calls if parallel and format.between is not None else 1
    for last_resort in (False, True):
        # Some schemas are read and still too much for a grammar.
        for number, function in enumerate(tools.callable) if last_resort else ():
            error = vocabulary.compiled(f"start: %json {schemas[number]}\n").get_error()
            if error:
                schemas[number] = _rule(ANY_OBJECT, True)
                loosened[function.name] = f"{function.name}: {_sentence(error)}"
        grammar = start + _calls(vocabulary, format, [function.name for function in tools.callable], schemas, count)
        if not vocabulary.compiled(grammar).is_error():
            break
    return _compile(vocabulary, grammar, format.marks, "tools", tuple(loosened.values()))


def _answer(vocabulary: Vocabulary, form: AnswerForm) -> str:
    """The form as a rule of the grammar."""
    return _json(vocabulary, form.value, form.place) if form.kind == "json" else form.rule


def _calls(vocabulary: Vocabulary, format: Format, functions: Sequence[str], schemas: Sequence[str], count: int) -> str:
    """The rules `calls`, up to `count` of them, and `rest`: from the name of the first one on."""
    lark, names, rules = partial(vocabulary.lark, marks=format.marks), [], ""
    for number, (name, schema) in enumerate(zip(functions, schemas)):
        names.append(f"{lark(name + format.middle)} arguments_{number}")
        rules += f"arguments_{number}: %json {schema}\n"
    more = f"({lark(format.between + format.before)} call){{0,{count - 1}}}" if count > 1 else ""
    return (f"calls: {lark(format.begin + format.before)} rest\nrest: call {more} {lark(format.end)}\n"
            f"call: ({' | '.join(names)}) {lark(format.after)}\n{rules}")


def _text_then_calls(vocabulary: Vocabulary, format: Format) -> str:
    """Any text; once it holds what begins a call, a call it is."""
    mark = format.marks[0]
    after = vocabulary.lark((format.begin + format.before).removeprefix(mark), format.marks)
    head = f"{'head' if mark in vocabulary.added else 'head[lazy]'}: TEXT {vocabulary.lark(mark, format.marks)}"
    return f"start: TEXT | head {after} rest\n{head}\nTEXT: /(.|\\n)*/\n"


def _json(vocabulary: Vocabulary, schema: dict, place: str) -> str:
    """A schema as a rule of the grammar."""
    problem = _problem_of(vocabulary, schema, False)
    if problem:
        where = _where(vocabulary, schema, schema, problem)
        raise UserError(f"{place}: {f'at {where} it' if where else 'it'} cannot be promised ({problem}). Change that part, or "
                        "leave it out.")
    return f"%json {_rule(schema, False)}"


def _problem_of(vocabulary: Vocabulary, schema: dict, lenient: bool) -> str:
    """Why a schema cannot be promised; "" if it can."""
    try:
        return _problem(vocabulary, _rule(schema, lenient))
    except RecursionError:
        return TOO_DEEP


def _rule(schema: dict, lenient: bool) -> str:
    return json.dumps(schema | {"x-guidance": {"whitespace_pattern": WHITE_SPACE, "lenient": lenient}})


@lru_cache(maxsize=256)
def _problem(vocabulary: Vocabulary, rule: str) -> str:
    try:
        grammar = LLMatcher.grammar_from_json_schema(rule)
    except ValueError as error:  # numbers or characters that JSON does not know
        return _sentence(str(error))
    failed, messages = LLMatcher.validate_grammar_with_warnings(grammar, vocabulary.tokens, limits=LIMITS)
    return _sentence(messages[0]) if failed else ""


def _where(vocabulary: Vocabulary, root: dict, schema: dict, problem: str) -> str:
    """The path to the smallest part of a schema that has the problem by itself."""
    if problem == TOO_DEEP:
        return ""
    named = {key: root[key] for key in DEFINITIONS if key in root}
    for path, part in _parts(schema):
        if _problem(vocabulary, _rule(named | part, False)) == problem:
            return path + _where(vocabulary, root, part, problem)
    return ""


def _parts(schema: dict) -> list[tuple[str, dict]]:
    parts = [(f"/{key}/{name}", part) for key in (*MAPS, *DEFINITIONS)
             if isinstance(schema.get(key), dict) for name, part in schema[key].items()]
    for key in (*PARTS, *LISTS):
        part = schema.get(key)
        parts += [(f"/{key}/{i}", one) for i, one in enumerate(part)] if isinstance(part, list) else [(f"/{key}", part)]
    return [(path, part) for path, part in parts if isinstance(part, dict)]


def _sentence(error: str) -> str:
    return " ".join(error.split())[:200]
