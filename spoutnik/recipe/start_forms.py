"""The form in which a recipe asks a published checkpoint to write thoughts: other marks, or R1-Zero's template.

A checkpoint in another form is a folder of links to its files, in the user's cache, with a tokenizer_config.json or a chat
template of its own: everything that reads models reads it, and its files travel as those of any start do.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from spoutnik.errors import RunError, UserError
from spoutnik.files import read_json, sha256_json, write_json, write_text
from spoutnik.loading import load_tokenizer
from spoutnik.native.build import cache_folder
from spoutnik.text.chat_template import EXTRA_TEMPLATES, TEMPLATE_FILE
from spoutnik.text.r1_zero import r1_zero_template
from spoutnik.text.thought_marks import KEY, problem_with_marks

TEMPLATES = ("own", "r1-zero")
FORM_KEYS = ("thought", "template")  # of a model's entry, beside its checkpoint
_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True)
class StartForm:
    """thought: the marks (start, end); None as the checkpoint has them. template: one of TEMPLATES."""

    thought: tuple[str, str] | None = None
    template: str = "own"

    @staticmethod
    def of(values: Mapping[str, object]) -> "StartForm":
        """Of a model's entry that `problems` finds nothing wrong with."""
        thought = values.get("thought")
        return StartForm(None if thought is None else (thought["start"], thought["end"]), values.get("template", "own"))

    @staticmethod
    def problems(values: Mapping[str, object]) -> dict[str, str]:
        """Key of a model's entry -> what is wrong with its value, as the end of a sentence."""
        wrong, thought = {}, values.get("thought")
        if thought is not None:
            if not isinstance(thought, Mapping) or set(thought) != {"start", "end"}:
                wrong["thought"] = "must be a mapping with start and end, the marks of a thought"
            elif problem := problem_with_marks(thought["start"], thought["end"]):
                wrong["thought"] = f"{problem}: start and end are the marks of a thought"
        if values.get("template", "own") not in TEMPLATES:
            wrong["template"] = f"{values['template']!r} is none of {', '.join(TEMPLATES)}; choose one of them"
        return wrong


AS_IT_IS = StartForm()


def in_form(folder: Path, form: StartForm) -> Path:
    """The folder itself, or its like in another form.

    Raises:
        UserError, RunError: its tokenizer cannot be read, or the cache cannot be written.
    """
    if form == AS_IT_IS:
        return folder
    identity = sha256_json([str(folder.resolve()), asdict(form)])[:12]
    target = cache_folder() / "starts" / identity / folder.name
    try:
        _link(folder, target, {_CONFIG} | ({TEMPLATE_FILE, "chat_template.json"} if form.template != "own" else set()))
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}). Set XDG_CACHE_HOME to a folder that can.") from error
    values = read_json(folder / _CONFIG) if (folder / _CONFIG).exists() else {}
    if form.thought is not None:
        values = values | {KEY: dict(zip(("start", "end"), form.thought))}
    if form.template != "own":
        values = {key: value for key, value in values.items() if key != "chat_template"}
    _keep(target / _CONFIG, values)
    if form.template != "own":
        write = r1_zero_template(load_tokenizer(target))
        if not (target / TEMPLATE_FILE).exists() or (target / TEMPLATE_FILE).read_text("utf-8") != write:
            write_text(target / TEMPLATE_FILE, write)
    return target


def _keep(path: Path, values: dict) -> None:
    """Writes JSON where it is not there yet: a file that others may be reading stays."""
    try:
        if path.exists() and read_json(path) == values:
            return
    except (RunError, json.JSONDecodeError):
        pass
    write_json(path, values)


def _link(folder: Path, target: Path, own: set[str]) -> None:
    """Links to all files of a folder but those that are written anew; links to what is gone are removed. Templates for tools
    go with the template that they stand beside."""
    target.mkdir(parents=True, exist_ok=True)
    left_out = own | ({EXTRA_TEMPLATES} if TEMPLATE_FILE in own else set())
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - left_out
    for path in target.iterdir():
        if path.is_symlink() and path.name not in names:
            path.unlink()
    for name in names:
        link, source = target / name, (folder / name).resolve()
        if link.is_symlink() and Path(os.readlink(link)) == source:
            continue
        link.unlink(missing_ok=True)
        link.symlink_to(source)
