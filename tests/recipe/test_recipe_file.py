"""What YAML accepts and a recipe must not: refused with file, line, key, value and remedy."""

from pathlib import Path

import pytest

from spoutnik.errors import UserError
from spoutnik.recipe.schema import load_recipe

SMALL = Path(__file__).with_name("small.yaml").read_text()
BASE = "    settings: {steps: 4, tokens_per_step: 512, learning_rate: 1.0e-2, warmup: 1, schedule: constant}"


def refused(tmp_path, text: str | bytes) -> str:
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as error:
        load_recipe(path)
    assert str(error.value).startswith(str(path)) and len(str(error.value)) < 600
    return str(error.value)


def line_of(text: str, part: str) -> str:
    return f", line {text[:text.index(part)].count(chr(10)) + 1}: "


@pytest.mark.parametrize("old, new, part, what", [
    ("seed: 0\n", "seed: 0\nseed: 1\n", "seed: 1", "the key 'seed' stands twice; it was already in line 3"),
    ("  mine:\n", "  base:\n", "  base:\n    kind: sft", "the key 'stages.base' stands twice"),
    ("epochs: 4,", "epochs: 4, epochs: 5,", "epochs", "the key 'stages.mine.settings.epochs' stands twice"),
    ("epochs: 4,", "epochs: .inf,", "epochs", "stages.mine.settings.epochs = .inf: must be a finite number"),
    ("epochs: 4,", "epochs: -.INF,", "epochs", "epochs = -.INF: must be a finite number"),
    ("epochs: 4,", "epochs: .nan,", "epochs", "epochs = .nan: must be a finite number"),
    ("epochs: 4,", "epochs: nan,", "epochs", "epochs = nan: must be a finite number"),
    ("epochs: 4,", "epochs: infinity,", "epochs", "must be a finite number"),
    ("epochs: 4,", "epochs: 1.0e+999,", "epochs", "epochs = 1.0e+999: must be a finite number"),
    ("epochs: 4,", "epochs: 1e999,", "epochs", "epochs = 1e999: must be a finite number"),
    ("epochs: 4,", "epochs: '1e999',", "epochs", "epochs = '1e999': input should be a finite number"),
    ("epochs: 4,", "epochs: 'inf',", "epochs", "epochs = 'inf': input should be a finite number"),
    ("epochs: 4,", "epochs: 100000,", "epochs", "epochs = 100000: input should be less than or equal to 1000"),
    ("epochs: 4,", "epochs: yes,", "epochs", "epochs = True: must be a number, not true or false"),
    ("epochs: 4,", "epochs: 0,", "epochs", "epochs = 0: input should be greater than 0"),
    ("epochs: 4,", "epochs: [4],", "epochs", "epochs = [4]"),
    ("steps: 4,", "steps: true,", "steps: true", "steps = True: must be a number"),
    ("steps: 4,", f"steps: {'9' * 5000},", "steps: 999", "has too many digits"),
    ("steps: 4,", "steps: 4.5,", "steps: 4.5", "steps = 4.5"),
    ("seed: 0\n", "seed: 99999999999\n", "seed", "seed = 99999999999: input should be less than or equal to 4294967295"),
    ("seed: 0\n", "seed: no\n", "seed", "seed = False: must be a number"),
    ("checkpoint_seconds: 0.001", "checkpoint_seconds: .inf", "checkpoint_seconds", "must be a finite number"),
    ("max_position_embeddings: 256", "rope_theta: .inf", "rope_theta", "models.student.rope_theta = .inf"),
    ("  mine:\n", "  yes:\n", "  yes:", "the key yes is not read as text but as bool"),
    ("  mine:\n", "  12:\n", "  12:", "the key 12 is not read as text but as int"),
    ("  mine:\n", "  ~:\n", "  ~:", "not read as text but as null"),
    ("dtype: float32", "dtype: float16", "dtype", "dtype = 'float16'"),
    ("from: base", "from: bass", "from: bass", "'bass' is not an earlier stage"),
])
def test_a_value_that_means_nothing_is_refused_with_its_line(tmp_path, old, new, part, what):
    text = SMALL.replace(old, new, 1)
    assert text != SMALL
    message = refused(tmp_path, text)
    assert line_of(text, part) in message and what in message


@pytest.mark.parametrize("name", [
    "../../evil", "/tmp/evil", "a/b", "a\\\\b", "..", ".", "", ".hidden", "a.b", "a b", "C:evil", "con", "NUL", "Com1", "lpt9",
    "x" * 65, "é", "a\\n", "-a", "a*"])
def test_stage_names_cannot_leave_the_folder(tmp_path, name):
    assert "cannot be the name of a folder" in refused(tmp_path, SMALL.replace("  mine:\n", f'  "{name}":\n'))


def test_names_that_are_one_folder_on_some_systems_are_refused(tmp_path):
    assert "'base' and 'BASE' differ by case alone" in refused(tmp_path, SMALL.replace("  mine:\n", "  BASE:\n"))
    assert "cannot be the name of a folder" in refused(tmp_path, SMALL.replace("name: small", "name: con"))


@pytest.mark.parametrize("text, what", [
    (b"", "a recipe is a mapping"), (b"- a\n", "a recipe is a mapping"), (b"a: [", "is not valid YAML"),
    (b"a: !!python/object/apply:os.system [ls]\n", "is not valid YAML"), (b"a: 2001-99-99\n", "is not valid YAML"),
    (b"a: 1\n---\nb: 2\n", "is not valid YAML"), (b"\xff\xfea\0", "is not UTF-8"), (b"a: \0\n", "is not valid YAML"),
    (b"a: " + b"[" * 5000 + b"]" * 5000, "nested"), (b"? {a: 1}\n: 2\n", "not read as text"),
    (b"a: &a [*a]\n", "nested more than"), (b"\n".join(
        [b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]".encode()
                                                      for i in range(1, 9)]), "values"),
])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, what):
    assert what in refused(tmp_path, text)


def test_a_folder_is_refused_and_a_byte_order_mark_is_not(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_recipe(tmp_path)
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert load_recipe(path).name == "small"


def test_a_text_that_looks_like_a_number_may_stand_in_quotes(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(SMALL.replace("name: small", "name: small\ndescription: 'nan'"))
    assert load_recipe(path).description == "nan"
