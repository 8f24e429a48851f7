"""schemathesis: requests made up from the server's own OpenAPI document, right ones and wrong ones. No answer may be a 5xx, and
each must be one that the document names. CASES says how many, at least.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from checks import KEY, URL, check, report, versions

CASES = int(os.environ.get("CASES", 500))
ROOT = os.environ.get("BRIEF_URL", URL).removesuffix("/v1")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def run(folder: Path, examples: int, seed: int) -> tuple[int, int, str]:
    """Exit status, requests sent, what it said."""
    command = [Path(sys.executable).with_name("schemathesis"), "run", f"{ROOT}/openapi.json", "--header",
               f"Authorization: Bearer {KEY}", "--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples",
               str(examples), "--seed", str(seed), "--request-timeout", "120", "--continue-on-failure", "--workers", "1",
               "--report", "ndjson", "--report-ndjson-path", str(folder / f"{seed}.ndjson"), "--no-color",
               "--suppress-health-check", "all", "--warnings", "off"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    return done.returncode, sent(done.stdout), done.stdout + done.stderr


def sent(output: str) -> int:
    match = re.search(r"([\d,]+) generated", output)
    return int(match[1].replace(",", "")) if match else 0


versions("schemathesis")
with check(f"error: {CASES} cases without a 5xx"), tempfile.TemporaryDirectory() as name:
    count, seed = 0, 0
    while count < CASES:
        status, generated, output = run(Path(name), max(CASES // 17, 5), seed)
        assert status == 0 and generated, output[-4000:]
        count, seed = count + generated, seed + 1
    report(schemathesis_cases=count)
