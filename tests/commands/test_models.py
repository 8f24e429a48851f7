"""`spoutnik models`: the list, as text and as JSON. (Fetching: tests/test_hub.py.)"""

import json
import os
import subprocess
import sys

import pytest
from cli import spoutnik


@pytest.fixture(scope="module")
def listed():
    return json.loads(spoutnik("models", "--json").stdout)


def test_the_list_says_what_each_model_costs_here(listed):
    assert listed["memory_bytes"] > 0 and listed["read_bandwidth"] > 0
    by_name = {model["name"]: model for model in listed["models"]}
    small, large = by_name["qwen3-0.6b"], by_name["deepseek-r1-distill-qwen-32b"]
    assert small["repository"] == "Qwen/Qwen3-0.6B" and small["licence"] == "Apache-2.0" and small["thinks"]
    assert [fit["precision"] for fit in small["fits"]] == ["bf16", "int8", "int4"]
    assert large["fits"][2]["memory_bytes"] > 10 * small["fits"][2]["memory_bytes"]


@pytest.mark.parametrize("columns", [80, 170])
def test_the_table_fits_a_terminal_and_ends_with_the_commands_to_type(columns):
    shown = subprocess.run([sys.executable, "-m", "spoutnik", "models"], capture_output=True, text=True, timeout=120,
                           env=os.environ | {"COLUMNS": str(columns)}).stdout
    rows = [line for line in shown.splitlines() if " GB" in line]
    assert len(rows) >= 11 and all(len(line) <= columns for line in rows) and "…" not in shown
    assert shown.count("Does not think; quick small talk in English") == 1
    assert "spoutnik pull " in shown and "spoutnik chat " in shown
