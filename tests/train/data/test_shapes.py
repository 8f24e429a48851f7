"""The shapes of training data that people have: one small file of each, and what its rows become."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spoutnik.errors import UserError
from spoutnik.train.data.conversations import context_of
from spoutnik.train.data.key_names import with_known_keys
from spoutnik.train.data.loading import load_data, load_traces
from spoutnik.train.data.shapes import KNOWN_KEYS, shape_of
from spoutnik.train.data.thought_text import split_final, split_thought

PLAIN = {"prompt": "Why?", "thought": "", "answer": "So."}
THOUGHT = {"prompt": "Why?", "thought": "Hm.", "answer": "So."}
USER, SYSTEM = {"role": "user", "content": "Why?"}, {"role": "system", "content": "Be brief."}
REPLY, THINKING = {"role": "assistant", "content": "So."}, {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nSo."}
WITH_SYSTEM = PLAIN | {"messages": [SYSTEM, USER]}
TOOLS = [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"type": "function", "function": {"name": "clock", "arguments": '{"zone": "utc"}'}}]}
RESULT = {"role": "tool", "content": "12:00"}
CALLED = {"role": "assistant", "content": "", "tool_calls": [
    {"type": "function", "function": {"name": "clock", "arguments": {"zone": "utc"}}}]}
TOOL_TRACE = PLAIN | {"messages": [USER, CALLED, RESULT], "tools": TOOLS}
TURNS = [USER, THINKING, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]
SECOND = {"prompt": "Sure?", "thought": "", "answer": "Yes.",
          "messages": [USER, REPLY | {"reasoning_content": "Hm."}, TURNS[2]]}
GENERATIONS = {"generations": ["<think>\nHm.\n</think>\nSo.", "<think>No.</think>Else."],
               "correctness_math_verify": [True, False]}

# name -> (the row of a file, its traces, a part of the sentence on its shape)
SHAPES = {
    "prompt/thought/answer": (THOUGHT | {"id": 3}, [THOUGHT | {"id": 3}], "prompt/thought/answer; not read: id"),
    "thought with a system text": (PLAIN | {"system": "Be brief."}, [WITH_SYSTEM | {"system": "Be brief."}],
                                   "prompt/thought/answer"),
    "prompt/completion": ({"prompt": "Why?", "completion": "So."}, [PLAIN], "prompt/completion"),
    "prompt/completion with a thought": ({"prompt": "Why?", "completion": "<think>\nHm.\n</think>\n\nSo."}, [THOUGHT], ""),
    "prompt/completion in an opened thought": ({"prompt": "Why?", "completion": "Hm.\n</think>\n\nSo."}, [THOUGHT], ""),
    "prompt/completion of messages": ({"prompt": [SYSTEM, USER], "completion": [REPLY]}, [WITH_SYSTEM], "prompt/completion"),
    "prompt/response": ({"prompt": "Why?", "response": "So."}, [PLAIN], "prompt/response"),
    "question/answer (GSM8K)": ({"question": "Why?", "answer": "Hm.\n#### So."}, [THOUGHT], "question/answer"),
    "question/answer without a final line": ({"question": "Why?", "answer": "So."}, [PLAIN], "question/answer"),
    "question/reasoning/answer": ({"question": "Why?", "reasoning": "Hm.", "answer": "So."}, [THOUGHT],
                                  "question/reasoning/answer"),
    "problem/solution": ({"problem": "Why?", "solution": "So.", "level": 5}, [PLAIN], "problem/solution; not read: level"),
    "query/response with history": ({"query": "Why?", "response": "So.", "history": [["a", "b"]]},
                                    [PLAIN | {"messages": [{"role": "user", "content": "a"},
                                                           {"role": "assistant", "content": "b"}, USER]}], "query/response"),
    "a number": ({"question": "Why?", "answer": 4}, [PLAIN | {"answer": "4"}], "question/answer"),
    "a number of a table": ({"instruction": "Why?", "output": 4.0}, [PLAIN | {"answer": "4"}], "(Alpaca)"),
    "a completion that holds its prompt": ({"prompt": "Why?", "completion": [SYSTEM, USER, REPLY]}, [WITH_SYSTEM], ""),
    "OpenOrca": ({"id": "1", "system_prompt": "Be brief.", "question": "Why?", "response": "So."}, [WITH_SYSTEM],
                 "question/response; not read: id"),
    "messages beside a system text": ({"system_prompt": "Be brief.", "messages": [USER, REPLY]}, [WITH_SYSTEM], "messages"),
    "input/output": ({"input": "Why?", "output": "So."}, [PLAIN], "input/output"),
    "Alpaca": ({"instruction": "Say", "input": "why.", "output": "So."}, [PLAIN | {"prompt": "Say\n\nwhy."}],
               "instruction/input/output (Alpaca)"),
    "Alpaca without input": ({"instruction": "Why?", "input": "", "output": "<think>Hm.</think>So."}, [THOUGHT], "(Alpaca)"),
    "Alpaca with system": ({"instruction": "Why?", "output": "So.", "system": "Be brief."}, [WITH_SYSTEM], "(Alpaca)"),
    "Dolly": ({"instruction": "Say", "context": "why.", "response": "So."}, [PLAIN | {"prompt": "Say\n\nwhy."}], "Alpaca"),
    "messages": ({"messages": [USER, REPLY]}, [PLAIN], "messages"),
    "messages with system": ({"messages": [SYSTEM, USER, REPLY]}, [WITH_SYSTEM], "messages"),
    "messages with a thought in the content": ({"messages": [USER, THINKING]}, [THOUGHT], "messages"),
    "messages with reasoning_content": ({"messages": [USER, REPLY | {"reasoning_content": "Hm."}]}, [THOUGHT], "messages"),
    "messages of parts": ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}, REPLY]}, [PLAIN], ""),
    "messages with tools": ({"messages": [USER, CALL, RESULT, REPLY], "tools": TOOLS}, [TOOL_TRACE], "messages"),
    "messages with tools as text": ({"messages": [USER, CALL, RESULT, REPLY], "tools": json.dumps(TOOLS)}, [TOOL_TRACE], ""),
    "messages as text": ({"messages": json.dumps([USER, REPLY])}, [PLAIN], "messages"),
    "messages of several turns": ({"messages": TURNS}, [SECOND], "messages"),
    "ShareGPT": ({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}, [PLAIN], "ShareGPT"),
    "ShareGPT with system": ({"system": "Be brief.", "conversations": [
        {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}, [WITH_SYSTEM], "ShareGPT"),
    "ShareGPT whose first is system": ({"conversations": [
        {"from": "system", "value": "Be brief."}, {"from": "user", "value": "Why?"}, {"from": "assistant", "value": "So."}]},
        [WITH_SYSTEM], "ShareGPT"),
    "ShareGPT with function_call and observation": ({"tools": json.dumps(TOOLS), "conversations": [
        {"from": "human", "value": "Why?"},
        {"from": "function_call", "value": '{"name": "clock", "arguments": {"zone": "utc"}}'},
        {"from": "observation", "value": "12:00"}, {"from": "gpt", "value": "So."}]}, [TOOL_TRACE], "ShareGPT"),
    "tool calls without a function around": ({"tools": TOOLS, "messages": [
        USER, CALL | {"tool_calls": [{"name": "clock", "arguments": {"zone": "utc"}}]}, RESULT, REPLY]}, [TOOL_TRACE], ""),
    "function_call, before tools": ({"tools": TOOLS, "messages": [
        USER, {"role": "assistant", "content": None, "function_call": CALL["tool_calls"][0]["function"]}, RESULT, REPLY]},
        [TOOL_TRACE], ""),
    "a tool without arguments": ({"messages": [
        USER, CALL | {"tool_calls": [{"function": {"name": "clock", "arguments": ""}}]}, RESULT, REPLY]},
        [PLAIN | {"messages": [USER, CALLED | {"tool_calls": [{"function": {"name": "clock", "arguments": {}}}]}, RESULT]}],
        ""),
    "messages of parts with a thought": ({"messages": [USER, {"role": "assistant", "content": [
        {"type": "thinking", "thinking": "Hm."}, {"type": "output_text", "text": "So."}]}]}, [THOUGHT], ""),
    "conversation": ({"conversation": [USER, REPLY]}, [PLAIN], "conversation"),
    "Alpaca without earlier turns": ({"instruction": "Why?", "input": None, "output": "So.", "history": None}, [PLAIN], ""),
    "keys in capitals": ({"Question": "Why?", "Answer": "So."}, [PLAIN],
                         "question/answer (question from Question, answer from Answer)"),
    "medical-o1-reasoning-SFT": ({"Question": "Why?", "Complex_CoT": "Hm.", "Response": "So."}, [THOUGHT],
                                 "question/complex_cot/response (question from Question, complex_cot from Complex_CoT, "),
    "Alpaca in capitals": ({"Instruction": "Say", "Input": "why.", "OUTPUT": "So."}, [PLAIN | {"prompt": "Say\n\nwhy."}],
                           "(Alpaca) (instruction from Instruction, input from Input, output from OUTPUT)"),
    "other spellings": ({"System Prompt": "Be brief.", " question": "Why?", "reasoningContent": "Hm.", "ANSWER": "So."},
                        [THOUGHT | {"messages": [SYSTEM, USER]}], "answer from ANSWER"),
    "a trace in capitals": ({"Prompt": "Why?", "Thought": "Hm.", "Answer": 4, "ID": 3}, [THOUGHT | {"answer": "4", "ID": 3}],
                            "not read: ID"),
    "messages in capitals": ({"Messages": [{"Role": "User", "Content": "Why?"}, {"Role": "Assistant", "Content": "So."}]},
                             [PLAIN], "messages (messages from Messages)"),
    "a message as completion": ({"prompt": [USER], "completion": REPLY}, [PLAIN], "prompt/completion"),
    "a message as prompt": ({"prompt": USER, "response": {"from": "gpt", "value": "So."}}, [PLAIN], "prompt/response"),
    "Alpaca with a message": ({"instruction": "Why?", "output": THINKING}, [THOUGHT], "(Alpaca)"),
    "Alpaca with messages": ({"instruction": "Why?", "output": [USER, REPLY]}, [PLAIN], "(Alpaca)"),
    "a number in a message": ({"messages": [USER, {"role": "assistant", "content": 4}]}, [PLAIN | {"answer": "4"}], "messages"),
    "a thought that is null": ({"question": "Why?", "reasoning": None, "answer": "<think>Hm.</think>So."}, [THOUGHT], ""),
    "a final line behind a thought": ({"question": "Why?", "answer": "<think>Hm.</think>So\n#### 4"},
                                      [THOUGHT | {"answer": "So\n#### 4"}], "thoughts between <think> and </think> in 1 row"),
    "R1-Zero's answer": ({"prompt": "Why?", "completion": "<think> Hm. </think> <answer> So. </answer>"}, [THOUGHT], ""),
    "Sky-T1": ({"system": "Think.", "conversations": [
        {"from": "user", "value": "Why?"},
        {"from": "assistant", "value": "<|begin_of_thought|>\n\nHm.\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nSo.\n\n"
                                       "<|end_of_solution|>"}]},
        [THOUGHT | {"messages": [{"role": "system", "content": "Think."}, USER]}],
        "conversations (ShareGPT); thoughts between <|begin_of_thought|> and <|end_of_thought|> in 1 row"),
    "a solution alone": ({"prompt": "Why?", "completion": "<|begin_of_solution|>So.<|end_of_solution|>"}, [PLAIN], ""),
    "open-r1": (GENERATIONS | {"problem": "Why?", "solution": "s", "answer": "a", "messages": [USER, REPLY]}, [THOUGHT],
                "open-r1 (generations with correctness_math_verify); thoughts between <think> and </think> in 1 row; not read: "
                "solution, answer"),
    "open-r1 without messages": (GENERATIONS | {"problem": "Why?"}, [THOUGHT], "open-r1"),
}
PREFERENCES = {
    "pairs": ({"prompt": "Why?", "chosen": "<think>Hm.</think>So.", "rejected": "No."},
              {"prompt": "Why?", "chosen": {"thought": "Hm.", "answer": "So."}, "rejected": {"thought": "", "answer": "No."}}),
    "pairs of messages": ({"chosen": [USER, REPLY], "rejected": [USER, {"role": "assistant", "content": "No."}]},
                          {"prompt": "Why?", "chosen": {"thought": "", "answer": "So."},
                           "rejected": {"thought": "", "answer": "No."}}),
    "pairs of messages beside the prompt": (
        {"prompt": "Why?", "chosen": [USER, REPLY], "rejected": [{"role": "assistant", "content": "No."}]},
        {"prompt": "Why?", "chosen": {"thought": "", "answer": "So."}, "rejected": {"thought": "", "answer": "No."}}),
    "thumb up": ({"prompt": "Why?", "completion": "So.", "label": True}, PLAIN | {"label": True}),
    "thumb of words": ({"prompt": "Why?", "completion": "So.", "label": "Thumbs up"}, PLAIN | {"label": True}),
    "thumb as a decimal": ({"prompt": "Why?", "completion": "So.", "label": 0.0}, PLAIN | {"label": False}),
    "Alpaca with an opinion": ({"instruction": "Why?", "input": "", "output": "So.", "kto_tag": False},
                               PLAIN | {"label": False}),
    "question and answer with an opinion": ({"question": "Why?", "answer": "So.", "label": "undesirable"},
                                            PLAIN | {"label": False}),
    "a trace with an opinion": (THOUGHT | {"label": False}, THOUGHT | {"label": False}),
    "thumb down": ({"prompt": "Why?", "completion": "So.", "label": 0}, PLAIN | {"label": False}),
}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize("name", SHAPES)
def test_a_row_of_every_shape_becomes_a_trace(tmp_path, name):
    row, traces, sentence = SHAPES[name]
    loaded = load_traces(write(tmp_path / "my.jsonl", row))
    assert loaded.rows == traces
    assert loaded.description.startswith("my.jsonl: recognized as ") and sentence in loaded.description


@pytest.mark.parametrize("name", PREFERENCES)
def test_preferences_are_read_and_refused_for_fine_tuning(tmp_path, name):
    row, expected = PREFERENCES[name]
    path = write(tmp_path / "my.jsonl", row)
    loaded = load_data(path)
    assert loaded.preferences and loaded.rows == [expected]
    with pytest.raises(UserError, match="is preference data .*(columns: {prompt: prompt, completion: chosen}|label is true)"):
        load_traces(path)


@pytest.mark.parametrize("start, end", [
    ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<thought>", "</thought>"), ("<reasoning>", "</reasoning>"),
    ("<Thinking>", "</Thinking>"), ("\u25c1think\u25b7", "\u25c1/think\u25b7"), ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"), ("<seed:think>", "</seed:think>")])
def test_thoughts_between_marks_of_any_kind_are_thoughts_and_said(tmp_path, start, end):
    """A model is taught its own marks, never another one's as text."""
    text = f"{start}\nHm.\n{end}\n\nSo."
    rows = [{"prompt": "Why?", "completion": text}, {"prompt": "When?", "completion": [{"role": "assistant", "content": text}]}]
    loaded = load_traces(write(tmp_path / "a.jsonl", *rows))
    assert loaded.rows == [THOUGHT, THOUGHT | {"prompt": "When?"}]
    assert f"; thoughts between {start.lower()} and {end.lower()} in 2 rows" in loaded.description.replace("THINK", "think")
    loaded = load_data(write(tmp_path / "b.jsonl", {"prompt": "Why?", "chosen": text, "rejected": "No."}))
    assert loaded.rows[0]["chosen"] == {"thought": "Hm.", "answer": "So."}
    loaded = load_traces(write(tmp_path / "c.jsonl", THOUGHT | {"thought": f"{start}Hm.{end}"}))  # in a key of its own
    assert loaded.rows == [THOUGHT] and loaded.report.unwrapped == 1
    loaded = load_traces(write(tmp_path / "d.jsonl", PLAIN, PLAIN | {"answer": f"{start}Hm. So."}))  # never closed
    assert loaded.rows == [PLAIN] and loaded.report.marks == 1


def test_a_reply_that_talks_of_marks_is_text_and_one_that_spells_others_is_left_out(tmp_path):
    xml = "Write <reasoning>why</reasoning> into the file."
    rows = [{"prompt": "How?", "completion": xml}, {"prompt": "And?", "completion": "Close it with </thought>."},
            {"prompt": "When?", "completion": "So <|begin_of_thought|>Hm.<|end_of_thought|> x"}]
    loaded = load_traces(write(tmp_path / "my.jsonl", *rows))
    assert [row["answer"] for row in loaded.rows] == [xml, "Close it with </thought>."] and loaded.report.marks == 1
    assert "; <reasoning> is text in 1 row" in loaded.description


def test_a_system_text_that_asks_for_marks_which_are_not_learned_is_told(tmp_path):
    text = "<|begin_of_thought|>Hm.<|end_of_thought|>So."
    row = {"system": "Write <|begin_of_thought|> thought <|end_of_thought|>.", "conversations": json.dumps(
        [{"from": "user", "value": "Why?"}, {"from": "assistant", "value": text}])}
    described = load_traces(write(tmp_path / "my.jsonl", row)).description
    assert "; what stands before the reply asks for <|begin_of_thought|> in 1 row, and the model learns marks" in described
    assert "asks for" not in load_traces(write(tmp_path / "my.jsonl", row | {"system": "Think."})).description


def test_rows_whose_split_is_spelled_otherwise_stay_on_their_side(tmp_path):
    rows = [{"Question": "Why?", "Answer": "So.", "Split": "Test"}, {"Question": "When?", "Answer": "Now.", " SPLIT": "train"}]
    for columns in (None, {"prompt": "Question", "answer": "Answer"}):
        loaded = load_traces(write(tmp_path / "my.jsonl", *rows), columns)
        assert [row["split"] for row in loaded.rows] == ["held_out", "train"] and "not read" not in loaded.description


def test_columns_choose_between_two_spellings_of_one_key(tmp_path):
    path = write(tmp_path / "my.jsonl", {"question": "Why?", "Answer": "So.", "answer": "b", "System": "Be brief."})
    with pytest.raises(UserError, match="it has 'Answer' and 'answer', and either may be the answer.*columns: {answer: Answer"):
        load_traces(path)
    assert load_traces(path, {"prompt": "question", "answer": "Answer"}).rows == [WITH_SYSTEM]


def test_what_a_row_keeps_from_being_learned_is_read_and_not_learned(tmp_path):
    """OpenAI's weight, others' train: the reply stands in the next one's context, and is nobody's target."""
    first, *others = TURNS
    row = {"messages": [first, others[0] | {"weight": 0}, others[1], others[2] | {"weight": 1}], "system": "Be brief."}
    second = SECOND | {"messages": [SYSTEM, *SECOND["messages"]]}
    assert load_traces(write(tmp_path / "a.jsonl", row), learn="all").rows == [second]
    row = {"messages": [first, others[0], others[1], others[2] | {"train": False}]}
    assert load_traces(write(tmp_path / "b.jsonl", row)).rows == [THOUGHT]  # the last one that is to be learned
    with pytest.raises(UserError, match="1 without a reply of the assistant"):
        load_traces(write(tmp_path / "c.jsonl", {"messages": [USER, REPLY | {"weight": 0}]}))
    with pytest.raises(UserError, match="message 2 of 'messages': weight = 0.5: must be 0"):
        load_traces(write(tmp_path / "d.jsonl", {"messages": [USER, REPLY | {"weight": 0.5}]}))


def test_generations_that_nobody_checked_are_not_learned(tmp_path):
    rows = [GENERATIONS | {"problem": "Why?"}, GENERATIONS | {"problem": "When?", "correctness_math_verify": []}]
    loaded = load_traces(write(tmp_path / "a.jsonl", *rows))
    assert loaded.rows == [THOUGHT] and loaded.report.incorrect == 3
    row = {"problem": "Why?", "solution": "s", "answer": "a", "generations": GENERATIONS["generations"]}
    with pytest.raises(UserError, match="its generations have no correctness_math_verify"):
        load_traces(write(tmp_path / "b.jsonl", row))


def test_the_chosen_replies_alone_are_learned_as_the_refusal_says(tmp_path):
    path = write(tmp_path / "my.jsonl", PREFERENCES["pairs"][0])
    assert load_traces(path, {"prompt": "prompt", "completion": "chosen"}).rows == [THOUGHT]
    path = write(tmp_path / "my.jsonl", PREFERENCES["pairs of messages"][0])
    assert load_traces(path, {"messages": "chosen"}).rows == [PLAIN]


@pytest.mark.parametrize("columns, row", [
    ({"prompt": "q", "answer": "a"}, {"q": "Why?", "a": "So.", "b": "x"}),
    ({"question": "q", "answer": "a"}, {"q": "Why?", "a": "So.", "answer": "x"}),
    ({"prompt": "problem", "answer": "answer"}, {"problem": "Why?", "solution": "x", "answer": "So."}),
    ({"prompt": "answer", "answer": "prompt"}, {"prompt": "So.", "answer": "Why?"}),
    ({"conversations": "dialog"}, {"dialog": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}),
], ids=["two", "the file's own answer left", "of two replies", "swapped", "conversations"])
def test_columns_name_the_keys(tmp_path, columns, row):
    assert load_traces(write(tmp_path / "my.jsonl", row), columns).rows == [PLAIN]


def test_columns_say_what_they_took_and_what_they_left(tmp_path):
    loaded = load_traces(write(tmp_path / "my.jsonl", {"q": "Why?", "a": "So.", "b": "x"}), {"prompt": "q", "answer": "a"})
    assert loaded.description == "my.jsonl: recognized as prompt/answer (prompt from q, answer from a); not read: b"


@pytest.mark.parametrize("row, sentence", [
    ({"text": "x"}, r"its keys \(text\) are of no known shape .*columns: {prompt"),
    ({}, r"its keys \(none\)"),
    ({"problem": "a", "solution": "b", "answer": "c"}, "it has answer and solution, and either may be the reply"),
    ({"prompt": "a", "question": "b", "answer": "c"}, "it has prompt and question, and either may be the question"),
    ({"prompt": "a", "thought": "b", "reasoning": "c", "output": "d"}, "either may be the thought"),
    ({"question": "a", "answer": [4]}, "message 1 of 'answer' must be an object"),
    ({"question": "a", "choices": ["b", "c"], "answer": 1}, "'answer' must be a text, not 1"),
    ({"question": "a", "answer": True}, "'answer' must be a text, not True"),
    ({"question": "a", "answer": float("inf")}, "is not JSON"),
    ({"system": "x", "system_prompt": "y", "question": "a", "answer": "b"}, "it has system and system_prompt, which differ"),
    ({"prompt": "a title", "chosen": [USER, REPLY], "rejected": [USER, THINKING]},
     r"a conversation that does not hold the question .* columns: \{chosen: chosen"),
    ({"prompt": "a title", "completion": [USER, REPLY]}, r"Name the conversations alone: columns: \{messages: completion\}"),
    ({"system": "x", "chosen": [SYSTEM, USER, REPLY], "rejected": [SYSTEM, USER, THINKING]}, "another system text"),
    ({"messages": "x"}, "'messages' must be a list of messages"), ({"messages": []}, "must be a list of messages"),
    ({"messages": ["x"]}, "message 1 of 'messages' must be an object"),
    ({"messages": [USER, {"role": "judge", "content": "x"}]}, "message 2 of 'messages': its role is 'judge'; known are system"),
    ({"messages": [USER, {"role": "assistant"}]}, "message 2 of 'messages': 'content' must be a text, not None"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}, REPLY]}, "part of type 'image': only text is read"),
    ({"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}]}, "are not JSON"),
    ({"messages": [USER, REPLY], "tools": "x"}, "'tools' is not JSON"),
    ({"messages": [USER, REPLY], "tools": [1]}, "'tools' must be a list of objects"),
    ({"generations": ["a"], "correctness_math_verify": [True, True], "problem": "x"}, "a value for each of the generations"),
    ({"generations": ["a"], "correctness_math_verify": [True]}, "there is no question"),
    ({"chosen": "a", "rejected": "b"}, "there is no question"),
    ({"chosen": [USER, REPLY], "rejected": [SYSTEM, USER, REPLY]}, "answer different conversations"),
    ({"prompt": "a", "completion": "b", "label": "algebra"}, "label = 'algebra': must be true"),
    ({"Prompt": "a", "prompt": "b", "answer": "c"}, "it has 'Prompt' and 'prompt', and either may be the prompt. Rename one"),
    ({"Question": "a", "Answer": "b", "response": "c"}, "it has answer and response, and either may be the reply"),
    ({"question": "a", "CoT": "b", "Reasoning": "c", "answer": "d"}, "it has reasoning and cot, and either may be the thought"),
    ({"prompt": "a", "completion": {"text": "b"}}, "'completion' must be a text, not {'text': 'b'}"),
    ({"prompt": "a", "completion": {"role": "judge", "content": "b"}}, "message 1 of 'completion': its role is 'judge'"),
    ({"prompt": "a", "thought": "b", "answer": False}, "'answer' must be a text, not False"),
], ids=range(33))
def test_a_row_that_is_wrong_is_a_sentence_with_its_line(tmp_path, row, sentence):
    with pytest.raises(UserError, match=f"my.jsonl, line 1: .*{sentence}"):
        load_traces(write(tmp_path / "my.jsonl", row))


def test_mixed_shapes_are_refused_with_both_lines(tmp_path):
    path = write(tmp_path / "my.jsonl", {"question": "a", "answer": "b"}, {"messages": [USER, REPLY]})
    with pytest.raises(UserError, match="my.jsonl, line 2: .*it is messages, and line 1 is question/answer. Give rows of one"):
        load_traces(path)


def test_columns_that_are_not_there_are_named(tmp_path):
    path = write(tmp_path / "my.jsonl", {"question": "a", "reply": "b"})
    with pytest.raises(UserError, match="line 1: the key 'repli' is missing, which columns.answer names.*Did you mean 'reply'"):
        load_traces(path, {"prompt": "question", "answer": "repli"})
    with pytest.raises(UserError, match="columns.promt: is no key of a known shape. Did you mean 'prompt'"):
        load_traces(path, {"promt": "question"})


def test_every_reply_of_a_conversation_can_be_learned(tmp_path):
    path = write(tmp_path / "my.jsonl", {"messages": [*TURNS, USER]})  # what nobody answered is read by nobody
    assert load_traces(path).rows == [SECOND]
    assert load_traces(path, learn="all").rows == [THOUGHT, SECOND]


def test_what_teaches_nothing_is_counted_for_its_reason(tmp_path):
    rows = [{"messages": [USER, REPLY]}, {"messages": [USER]}, {"messages": [USER, CALL]}, {"messages": [REPLY, USER]},
            {"messages": [USER, REPLY]}, {"messages": [USER, {"role": "assistant", "content": " "}]},
            {"messages": [USER, {"role": "assistant", "content": "a <think> b"}]}]
    report = load_traces(write(tmp_path / "my.jsonl", *rows)).report
    assert (report.read, report.used, report.no_reply, report.tool_call) == (7, 1, 2, 1)
    assert (report.duplicate, report.empty, report.marks) == (1, 1, 1)
    assert report.counts() == ("my.jsonl: 7 traces read, 1 used, 1 empty, 1 with marks of thought inside, 2 without a reply of "
                               "the assistant, 1 whose reply only calls tools, 1 duplicate")


def test_wrong_generations_are_counted_and_no_reason_to_warn(tmp_path):
    report = load_traces(write(tmp_path / "my.jsonl", GENERATIONS | {"problem": "Why?"})).report
    assert (report.read, report.used, report.incorrect) == (2, 1, 1) and not report.sentence(100).startswith("Warning")
    unknown = GENERATIONS | {"problem": "Why?", "correctness_math_verify": None}
    with pytest.raises(UserError, match="none of its traces can be learned from .2 not known to be right"):
        load_traces(write(tmp_path / "my.jsonl", unknown))


texts = st.text(st.characters(codec="utf-8", exclude_characters="<>#\n"), max_size=20)


@given(thought=texts, answer=texts.filter(str.strip))
def test_a_thought_between_marks_is_found_again(thought, answer):
    assert split_thought(f"<think>\n{thought}\n</think>\n\n{answer}") == (thought.strip(), answer.strip())
    assert split_thought(answer) == ("", answer)
    assert split_final(f"{thought}\n#### {answer.strip()}") == (thought.strip(), answer.strip())


@given(keys=st.frozensets(st.sampled_from(KNOWN_KEYS) | st.text(max_size=5), max_size=6))
def test_every_set_of_keys_is_recognized_or_refused_and_its_shape_needs_what_it_says(keys):
    try:
        shape = shape_of(keys)
    except ValueError as error:
        assert str(error).endswith((".", "}."))
        return
    assert set(shape.keys) <= keys
    assert shape_of(frozenset(shape.keys)).same_as(shape)  # other keys do not decide


@given(keys=st.frozensets(st.sampled_from(("id", "source", "metadata")), max_size=3), row=st.sampled_from(sorted(SHAPES)))
def test_keys_that_mean_nothing_change_no_shape(keys, row):
    own = frozenset(with_known_keys(SHAPES[row][0], KNOWN_KEYS)[0])
    assert shape_of(own | keys).same_as(shape_of(own))


def test_a_trace_s_context_ends_with_its_question():
    for _, traces, _ in SHAPES.values():
        for trace in traces:
            assert [m["content"] for m in context_of(trace) if m["role"] == "user"][-1] == trace["prompt"]
