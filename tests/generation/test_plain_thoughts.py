"""Replies of a model whose marks of thought are plain text: the rules of those whose marks are tokens."""

import io

import plain_marks
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from stepping import step_to_end

from spoutnik.commands.reply_printer import ReplyPrinter
from spoutnik.engine.llm import LLM
from spoutnik.engine.sampling_params import SamplingParams
from spoutnik.generation.chat import Chat
from spoutnik.generation.generation import Generation
from spoutnik.generation.grammar import structured_output
from spoutnik.generation.options import GenerationOptions, plan_chat
from spoutnik.generation.tools.tool_set import ToolSet

MESSAGES = [{"role": "user", "content": "How many?"}]
POSITIONS = 480


def make_llm(template):
    tokenizer = plain_marks.tokenizer(template)
    return LLM(tiny.model(tiny.QWEN, vocab_size=340, max_position_embeddings=POSITIONS), tokenizer, max_num_seqs=8,
               eos_token_ids=tokenizer.eos_ids)


@pytest.fixture(scope="module")
def opening():
    """Its template opens the thought."""
    return make_llm(plain_marks.OPENING)


@pytest.fixture(scope="module")
def closed():
    """Its template does not: the model may."""
    return make_llm(plain_marks.CHATML)


class Script:
    """Has the model write these ids and then end, where nothing forbids it."""

    done = False

    def __init__(self, ids, end):
        self.ids, self.end = ids, end

    def feed(self, token):
        pass

    def apply(self, logits, num_generated):
        token = self.ids[num_generated] if num_generated < len(self.ids) else self.end
        if logits[token].isfinite():
            logits[token] += 1e6


def run(llm, options, script=None, act=None, at=5, advance_every=1, collected=None):
    """(plan, generation, replies). script: what the model writes, a text, ids, or what makes ids for a choice's next segment.
    act(generation) happens after `at` steps."""
    plan, deltas = plan_chat(llm, MESSAGES, options), [] if collected is None else collected
    generation = Generation(llm, "r", plan, deltas.extend)
    if script is not None:
        ids, start = llm.tokenizer.encode(script) if isinstance(script, str) else script, generation.start_segment

        def start_scripted(choices, params, processors=()):
            start(choices, params, processors)
            for choice in choices:
                left = ids(choice) if callable(ids) else ids[choice.generated:]
                choice.sample.logits_processors.append(Script(left, llm.tokenizer.eos_id))

        generation.start_segment = start_scripted
    llm.core.max_multi_steps = 1
    return plan, generation, step_to_end(llm, generation, deltas, act, at, advance_every)


def greedy(**more):
    return GenerationOptions(SamplingParams(temperature=0.0, seed=1, **more.pop("params", {})), **more)


@pytest.mark.parametrize("name, script", [("opening", "Hm, 12 < 30.\n</think>\n\n    x = 42\n"),
                                          ("closed", "\n<think>\nHm, 12 < 30.\n</think>\n\n    x = 42\n")])
@pytest.mark.parametrize("advance_every", [1, 3, 50])
def test_the_model_s_own_marks_are_found(name, script, advance_every, request):
    llm = request.getfixturevalue(name)
    for n in (1, 3):
        _, generation, replies = run(llm, greedy(params={"n": n}), script, advance_every=advance_every)
        assert {(reply.thought, reply.answer, reply.finish_reason) for reply in replies} == {
            ("Hm, 12 < 30.", "    x = 42\n", "stop")}
        assert {reply.generated for reply in replies} == {len(llm.tokenizer.encode(script)) + 1}  # with the end of sentence
        thought = "\nHm, 12 < 30.\n"[name == "opening":]
        assert {reply.thought_tokens for reply in replies} == {len(llm.tokenizer.encode(thought))}
        assert not any(reply.warnings for reply in replies)


@pytest.mark.parametrize("name", ["opening", "closed"])
def test_a_thought_is_bounded_closed_and_counted(name, request):
    llm = request.getfixturevalue(name)
    script = "<think>" * (name == "closed") + "so x < 3 and " * 20
    plan, _, (reply,) = run(llm, greedy(max_tokens=60, max_thinking_tokens=12, detect_loops=False), script)
    assert reply.thought_tokens == 12 and reply.thought.endswith("\n\nI have thought long enough; here is my answer.")
    assert [warning.code for warning in reply.warnings] == ["thought_budget"] and "12 tokens" in str(reply.warnings[0])
    assert reply.answer and reply.generated <= 60
    circles = script if name == "opening" else script.replace("so", "so so")
    _, _, (reply,) = run(llm, greedy(max_tokens=250, max_thinking_tokens=200), circles * 3)
    assert [warning.code for warning in reply.warnings] == ["repetition"] and reply.answer


def test_an_answer_may_talk_about_the_marks(closed):
    script = "The tag <think> opens it and </think> ends it."
    _, _, (reply,) = run(closed, greedy(), script)
    assert (reply.thought, reply.answer, reply.thought_tokens) == ("", script, 0)


def test_a_thought_that_never_ends_is_closed(opening):
    _, _, (reply,) = run(opening, greedy(max_tokens=100), "Hm.")
    assert reply.thought.startswith("Hm.") and [warning.code for warning in reply.warnings] == ["unclosed_thought"]
    assert reply.answer


@pytest.mark.parametrize("options", [{"enable_thinking": False}, {"reasoning_effort": "none"}, {"max_thinking_tokens": 0}])
@pytest.mark.parametrize("name", ["opening", "closed"])
def test_without_leave_to_think_there_is_no_thought(name, options, request):
    llm = request.getfixturevalue(name)
    _, _, (reply,) = run(llm, greedy(max_tokens=40, **options), "<think>Hm.</think>Yes, 12.")
    assert reply.thought == "" and reply.thought_tokens == 0 and reply.answer and "think>" not in reply.answer[:8]


@pytest.mark.parametrize("budget", range(6, 16))
def test_a_budget_that_ends_within_the_mark_shows_no_half_of_it(budget, opening):
    script = "Hm 12.</think>\n\nYes"
    _, _, (reply,) = run(opening, greedy(max_tokens=60, max_thinking_tokens=budget), script)
    assert "<" not in reply.thought and "think" not in reply.thought + reply.answer and reply.answer
    assert reply.thought_tokens <= min(budget, len(opening.tokenizer.encode("Hm 12.")))


@pytest.mark.parametrize("at", range(1, 14))
def test_steering_at_any_token(at, opening):
    script = "Hm 12 < 3.</think>\n\nYes"
    ids, yes = opening.tokenizer.encode(script), opening.tokenizer.encode("Yes")
    for act in (Generation.end_thought, lambda generation: generation.insert(" Check it.")):
        _, _, (reply,) = run(opening, greedy(max_tokens=80),
                             lambda choice: ids[choice.generated:] if choice.stream.thinking else yes, act, at)
        assert "think>" not in reply.thought + reply.answer and "</" not in reply.thought + reply.answer
        assert reply.answer.startswith("Yes") and reply.thought_tokens <= len(opening.tokenizer.encode("Hm 12 < 3."))
    _, _, (reply,) = run(opening, greedy(max_tokens=80), script,
                         lambda generation: (generation.pause(), generation.resume()), at)
    assert (reply.thought, reply.answer) == ("Hm 12 < 3.", "Yes")


def test_a_form_holds_the_answer_alone(opening, closed):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["yes", "no"]}}}
    straddling = next(token for token in range(340) if opening.tokenizer.decode([token]) == "></")
    ids = [*opening.tokenizer.encode("Hm.</think"), straddling, *opening.tokenizer.encode('"no"')]
    for script in ("Hm.</think>\n\n\"no\"", ids):
        options = greedy(max_tokens=60, make_logits_processor=structured_output(opening, form))
        _, generation, (reply,) = run(opening, options, script)
        assert reply.thought == "Hm." and reply.answer in ('"yes"', '"no"') and reply.finish_reason == "stop"
        assert "></" not in opening.tokenizer.decode(generation.choices[0].ids)
    tools = ToolSet.parse([{"type": "function", "function": {"name": "now"}}])
    options = greedy(max_tokens=90, tools=tools, make_logits_processor=structured_output(closed, None, tools))
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    _, _, (reply,) = run(closed, options, f"<think>Hm.</think>\n\nI look. {call}")
    assert (reply.thought, reply.answer) == ("Hm.", f"I look. {call}")


def test_log_probabilities_are_the_answer_s(closed):
    options = greedy(params={"logprobs": 1}, max_tokens=60)
    for script, answer in (("<think>Hm.</think>Yes", "Yes"), ("<thing", "<thing")):
        deltas = []
        run(closed, options, script, collected=deltas)
        ids = [*closed.tokenizer.encode(answer), closed.tokenizer.eos_id]
        assert [token for delta in deltas for token in delta.ids] == ids
        assert sum(len(delta.top_logprobs) for delta in deltas) == len(ids)


marks = st.sampled_from(["<think>", "</think>", "<", "</", "</thi", "nk>", "><", "\n\n", " a", ".", "12", "é"])


@given(data=st.data())
def test_hostile_budgets_give_an_answer_and_leak_no_thought(data, opening, closed):
    llm = opening if data.draw(st.booleans()) else closed
    options = GenerationOptions(
        SamplingParams(temperature=data.draw(st.sampled_from([0.0, 1.0])), top_p=1.0, seed=data.draw(st.integers(0, 99)),
                       n=data.draw(st.integers(1, 3))),
        max_tokens=data.draw(st.one_of(st.none(), st.integers(1, 60))),
        max_thinking_tokens=data.draw(st.one_of(st.none(), st.integers(0, 60))),
        reasoning_effort=data.draw(st.sampled_from([None, "none", "minimal", "medium", "max"])))
    script = data.draw(st.one_of(st.none(), st.lists(marks, max_size=12).map("".join)))
    act = data.draw(st.sampled_from([None, Generation.end_thought, lambda generation: generation.insert(" hm."),
                                     lambda generation: (generation.pause(), generation.resume())]))
    plan, generation, replies = run(llm, options, script, act, data.draw(st.integers(0, 20)), data.draw(st.integers(1, 7)))
    for reply, choice in zip(replies, generation.choices):
        assert reply.answer.strip() and not reply.answer.lstrip().startswith("<think>")
        assert reply.generated <= plan.params.max_tokens and len(plan.prompt) + len(choice.ids) <= POSITIONS
        assert 0 <= reply.thought_tokens <= min(plan.max_thinking_tokens, reply.generated)
        assert plan.may_think or reply.thought == ""
        assert "</think>" not in reply.thought


def test_the_terminal_s_chat_shows_thought_and_answer_apart(opening):
    chat = Chat(opening, GenerationOptions(SamplingParams(temperature=1.0), max_tokens=40, max_thinking_tokens=12,
                                           detect_loops=False))
    screen = Console(file=io.StringIO(), width=1000)
    reply = chat.ask("Combien font 2 et 3 ?", ReplyPrinter(screen, screen))
    assert reply["thought"].endswith("\n\nJ'ai assez réfléchi ; voici ma réponse.") and reply["reasoning_tokens"] == 12
    thought, _, answer = screen.file.getvalue().removeprefix("<think>\n").partition("</think>")
    assert thought.strip() == reply["thought"].strip() and answer.strip().startswith(reply["answer"].strip())
    assert chat.messages[1] == {"role": "assistant", "content": reply["answer"], "reasoning_content": reply["thought"]}


def test_a_form_begins_at_once_and_other_answers_keep_their_empty_lines(closed):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["yes", "no"]}}}
    _, _, (reply,) = run(closed, greedy(max_tokens=40, make_logits_processor=structured_output(closed, form)), '"no"')
    assert reply.answer == '"no"'
    _, _, (reply,) = run(closed, greedy(max_tokens=40), '\n\n  "no"\n')
    assert reply.answer == '\n\n  "no"\n'
