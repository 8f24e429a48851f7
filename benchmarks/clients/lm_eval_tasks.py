"""lm-eval with the commands of docs/serve.md, on small tasks of our own: those it knows lie on a hub."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from checks import KEY, MODEL, URL, check, report, versions

ROWS = [{"question": f"What is {a} + {b}?", "choices": [str(a + b), str(a + b + 1), str(a * b + 7)], "answer": 0,
         "text": f"{a} plus {b} is {a + b}. Réponse : {a + b}."} for a in range(3, 9) for b in (2, 11)]
COMMON = """dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
"""
TASKS = {
    "choice": """output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "rolling": """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
""",
    "until": """output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["Question:", "</s>"], do_sample: false, max_gen_toks: 64}
metric_list: [{metric: exact_match}]
"""}


def evaluate(folder: Path, task: str, model: str, *more: str, path: str, arguments: str = "") -> tuple[dict, list[dict]]:
    """Results of a task and its samples, from the command line."""
    out = folder / f"out-{model}-{task}"
    model_args = f"model={MODEL},base_url={URL}/{path},num_concurrent=8{arguments}"
    command = [Path(sys.executable).with_name("lm_eval"), "--model", model, "--tasks", f"own_{task}", "--include_path", folder,
               "--model_args", model_args, "--output_path", out, "--log_samples", *more]
    alone = {"OPENAI_API_KEY": KEY, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | alone)
    assert done.returncode == 0, done.stderr[-400:]
    results = json.loads(next(out.rglob("results_*.json")).read_text())["results"][f"own_{task}"]
    return results, [json.loads(line) for line in next(out.rglob("samples_*.jsonl")).read_text().splitlines()]


versions("lm-eval")
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for task, text in TASKS.items():
        (folder / f"{task}.yaml").write_text(f"task: own_{task}\n{COMMON.replace('ROWS', str(rows))}{text}")
    remote = f",tokenizer_backend=remote,auth_token={KEY}"
    with check("chat: local-completions, multiple choice"):
        results, samples = evaluate(folder, "choice", "local-completions", path="completions", arguments=remote)
        likely = [float(choice[0][0]) for one in samples for choice in one["resps"]]
        assert len(samples) == len(ROWS) and len(likely) == 3 * len(ROWS) and all(-500 < one < 0 for one in likely)
        assert 0 <= results["acc,none"] <= 1
    with check("chat: local-completions, the text as a whole"):
        results, _ = evaluate(folder, "rolling", "local-completions", path="completions", arguments=remote)
        assert 0 < results["bits_per_byte,none"] < 20
        report(bits_per_byte=results["bits_per_byte,none"])
    with check("chat: local-completions, generation"):
        _, samples = evaluate(folder, "until", "local-completions", path="completions", arguments=remote)
        assert all("Question:" not in one["resps"][0][0] for one in samples)
    with check("chat: local-chat-completions"):
        _, samples = evaluate(folder, "until", "local-chat-completions", "--apply_chat_template", path="chat/completions")
        answers = [one["resps"][0][0] for one in samples]
        assert len(answers) == len(ROWS) and all(one.strip() and "<think>" not in one for one in answers)
