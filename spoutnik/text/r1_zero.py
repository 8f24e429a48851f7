"""R1-Zero's prompt (R1, table 1), as plain text and as a chat template: what a base is asked and trained with that never saw a
conversation."""

from spoutnik.text.thought_marks import ANSWER_TAGS, R1_MARKS, ThoughtMarks
from spoutnik.text.tokenizer import Tokenizer

_INTRODUCTION = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant first "
    "thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning process and "
    "answer are enclosed within {start} {end} and <answer> </answer> tags, respectively, i.e., {start} reasoning process here "
    "{end} <answer> answer here </answer>.")
# An earlier reply is shown without its thought, as R1's template does.
_TEMPLATE = """\
{{- @BOS@ }}
{%- for message in messages %}
  {%- if message['role'] == 'system' and loop.first %}
    {{- message['content'] + '\\n\\n' }}
  {%- elif message['role'] == 'user' %}
    {%- if loop.index0 <= (1 if messages[0]['role'] == 'system' else 0) %}
      {{- @INTRODUCTION@ + ' ' }}
    {%- endif %}
    {{- 'User: ' + message['content'] + '.' }}
  {%- elif message['role'] == 'assistant' %}
    {{- ' Assistant:' }}
    {%- if loop.last %}
      {{- @START@ + (message['reasoning_content'] or '') + @END@ }}
    {%- endif %}
    {{- @OPENING@ + message['content'] + @CLOSING@ + eos_token }}
    {%- if not loop.last %}
      {{- '\\n' }}
    {%- endif %}
  {%- else %}
    {{- raise_exception('this template has no place for a message of the role ' + message['role']) }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- ' Assistant:' }}
{%- endif %}
"""


def r1_zero_prompt(question: str, marks: ThoughtMarks = R1_MARKS) -> str:
    """The text that the model goes on with."""
    return f"{_INTRODUCTION.format(start=marks.start, end=marks.end)} User: {question}. Assistant:"


def r1_zero_template(tokenizer: Tokenizer) -> str:
    """The chat template whose generation prompt is `r1_zero_prompt`, for a tokenizer with its marks."""
    marks, begins = tokenizer.marks, tokenizer.bos_id is not None and tokenizer.bos_id in tokenizer.start_ids
    texts = {"@INTRODUCTION@": _INTRODUCTION.format(start=marks.start, end=marks.end), "@START@": f" {marks.start} ",
             "@END@": f" {marks.end}", "@OPENING@": f" {ANSWER_TAGS[0]} ", "@CLOSING@": f" {ANSWER_TAGS[1]}"}
    template = _TEMPLATE.replace("@BOS@", "bos_token" if begins else "''")
    for name, text in texts.items():
        template = template.replace(name, _quoted(text))
    return template


def _quoted(text: str) -> str:
    """As a string of Jinja."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
