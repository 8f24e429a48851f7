"""API keys: hashed, found in constant time, changed under a running server."""

import json
import subprocess
import sys

import pytest

from spoutnik.errors import RunError, UserError
from spoutnik.serve.keys import PREFIX, Keys


@pytest.fixture
def keys(tmp_path):
    return Keys(tmp_path / "data" / "keys.json")


def test_a_key_is_found_by_its_secret_alone(keys):
    secret = keys.add("laptop", requests_per_minute=5)
    key = keys.find(secret)
    assert key.name == "laptop" and key.ending == secret[-4:] and key.requests_per_minute == 5
    assert secret.startswith(PREFIX) and len(secret) > len(PREFIX) + 42
    for wrong in ("", PREFIX, secret[:-1], secret + "x", key.hash, secret.upper(), "é\ud800"):
        assert keys.find(wrong) is None


def test_the_secret_is_nowhere_in_the_file_which_only_the_owner_may_read(keys):
    secret = keys.add("laptop")
    assert secret not in keys.path.read_text() and secret[len(PREFIX):] not in keys.path.read_text()
    assert keys.path.stat().st_mode & 0o777 == 0o600 and keys.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_revoked_key_is_kept_on_the_list_and_opens_nothing(keys):
    first, second = keys.add("first"), keys.add("second")
    keys.revoke("first")
    assert keys.find(first) is None and keys.find(second).name == "second"
    assert [(key.name, key.revoked) for key in keys.list()] == [("first", True), ("second", False)]
    for name in ("first", "third"):
        with pytest.raises(UserError, match="no key of that name"):
            keys.revoke(name)


def test_a_running_server_sees_keys_come_and_go(keys):
    server = Keys(keys.path)
    assert server.list() == ()
    secret = keys.add("late")
    assert server.find(secret).name == "late"
    keys.revoke("late")
    assert server.find(secret) is None
    keys.path.unlink()
    assert server.list() == ()


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\nb"])
def test_names_are_checked(keys, name):
    with pytest.raises(UserError, match="NAME"):
        keys.add(name)


def test_a_name_is_used_once(keys):
    keys.add("laptop")
    with pytest.raises(UserError, match="there is, or was"):
        keys.add("laptop")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"keys": [{"name": 1}]}', '{"keys": {"a": 1}}', '{"keys": [{}]}'])
def test_a_damaged_file_is_a_sentence_and_is_not_replaced(keys, content):
    keys.add("laptop")
    keys.path.write_text(content)
    for use in (keys.list, lambda: keys.find("x"), lambda: keys.add("other")):
        with pytest.raises(RunError, match="is not a file of API keys"):
            use()
    assert keys.path.read_text() == content


def test_two_processes_lose_no_key(keys):
    code = ("import sys; from spoutnik.serve.keys import Keys\n"
            "for i in range(15): Keys(sys.argv[1]).add(f'{sys.argv[2]}-{i}')")
    running = [subprocess.Popen([sys.executable, "-c", code, keys.path, str(number)]) for number in range(2)]
    assert [one.wait(60) for one in running] == [0, 0]
    assert len(keys.list()) == 30 and len(json.loads(keys.path.read_text())["keys"]) == 30
