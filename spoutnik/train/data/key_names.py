"""Keys as people spell them: capitals, spaces, hyphens and underscores do not count where a key is one that is known."""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache


@lru_cache(maxsize=4096)
def _letters(key: str) -> str:
    """What of a key counts: "Complex_CoT", "complexCot" and "complex cot" are one."""
    return re.sub(r"[\s_-]", "", key).casefold()


def with_known_keys(row: Mapping, known: Collection[str]) -> tuple[dict, dict[str, str]]:
    """(the row with its known keys as they are known, {known key: as the row spells it} of those that it spells otherwise).

    Raises:
        ValueError: two keys of the row may be the same one.
    """
    if all(key in known for key in row):
        return dict(row), {}
    meant = {_letters(key): key for key in known}
    renamed, spelled = {}, {}
    for key, value in row.items():
        name = key if key in known or not isinstance(key, str) else meant.get(_letters(key), key)
        if name in renamed:
            first = spelled.get(name, name)
            raise ValueError(f"it has {first!r} and {key!r}, and either may be the {name}. Rename one of them, or say which "
                             f"one is: columns: {{{name}: {first}, ...}}.")
        renamed[name] = value
        if name != key:
            spelled[name] = key
    return renamed, spelled
