"""A recipe's YAML as plain data.

YAML lets a later key overwrite an earlier one, reads `yes` as true and has numbers that are none: in a recipe these are
mistakes, and are refused with their line.
"""

import math

import yaml

from spoutnik.errors import UserError

_DEEPEST, _LARGEST = 32, 100_000  # levels and values, with what aliases repeat
_LONGEST_NUMBER = 30  # digits


def read_yaml(text: str, source: str) -> object:
    """The document as plain data.

    Raises:
        UserError: with line, key, value and remedy.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _Checker(source).check(root, ())
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date that is none, and the like
        if isinstance(error, UserError):
            raise
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        reason = "nested too deeply" if isinstance(error, RecursionError) else getattr(error, "problem", None) or error
        raise UserError(f"{source}{at}: is not valid YAML ({reason}). Correct it.") from error


class _Checker:
    def __init__(self, source: str):
        self.source, self.count = source, 0

    def check(self, node: yaml.Node, path: tuple) -> None:
        self.count += 1
        if len(path) > _DEEPEST or self.count > _LARGEST:
            raise self._error(node, f"is nested more than {_DEEPEST} levels deep, or has more than {_LARGEST:,} values. No "
                                    "recipe needs that: correct it.")
        if isinstance(node, yaml.MappingNode):
            self._check_mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self.check(item, (*path, number))
        else:
            self._check_scalar(node, path)

    def _check_mapping(self, node: yaml.MappingNode, path: tuple) -> None:
        first: dict[str, int] = {}
        for key, value in node.value:
            line, kind = key.start_mark.line + 1, key.tag.rpartition(":")[2]
            if kind not in ("str", "merge"):
                written = key.value if isinstance(key, yaml.ScalarNode) else "..."
                raise self._error(key, f"the key {written} is not read as text but as {kind}. Put it in quotes, or name it "
                                       "otherwise.")
            if key.value in first:
                name = ".".join(map(str, (*path, key.value)))
                raise self._error(key, f"the key '{name}' stands twice; it was already in line {first[key.value]}. Keep one of "
                                       "the two.")
            first[key.value] = line
            self.check(value, path if kind == "merge" else (*path, key.value))

    def _check_scalar(self, node: yaml.ScalarNode, path: tuple) -> None:
        if node.style is not None:  # in quotes
            return
        try:
            number = yaml.SafeLoader("").construct_yaml_float(node) if node.tag.endswith(":float") else float(node.value)
        except (ValueError, IndexError):  # a text
            return
        name = ".".join(map(str, path))
        if sum(character.isdigit() for character in node.value) > _LONGEST_NUMBER:
            raise self._error(node, f"{name} = {node.value[:20]}...: has too many digits. Correct this value.")
        if not math.isfinite(number):
            raise self._error(node, f"{name} = {node.value}: must be a finite number. Correct this value (or put it in quotes "
                                    "where a text is meant).")

    def _error(self, node: yaml.Node, what: str) -> UserError:
        return UserError(f"{self.source}, line {node.start_mark.line + 1}: {what}")
