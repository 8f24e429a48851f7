"""The model card (README.md) of a model, from the files that its run wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from spoutnik.files import read_json
from spoutnik.model.accounting import account
from spoutnik.model.config import ARCHITECTURES, ModelConfig

OURS, UNKNOWN = "mit", "other"
_LICENCE_FILES = {"MIT License": "mit", "Apache License": "apache-2.0"}  # as their texts begin


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from. manifests: of its stage and of those it started from, the last one first; empty for a model
    that no run of ours made. checkpoint: the published one that they go on from, by its name on the hub or its folder's.
    evaluation: what a run measured of it. licence: as the hub spells it."""

    name: str
    licence: str
    base_model: str | list[str] | None = None
    recipe: str | None = None
    manifests: Sequence[dict] = ()
    evaluation: dict | None = None
    checkpoint: str | None = None


def provenance(folder: Path, licence: str | None = None) -> Provenance:
    """Reads what lies beside a model's weights. licence: the exporter's word; read from the folder where it is None."""
    folder = Path(folder).resolve()
    manifests = _manifests(folder)
    if not manifests:
        front = _front_matter(folder / "README.md")
        stated = front.get("license") if isinstance(front.get("license"), str) else _licence_of_file(folder)
        return Provenance(folder.name, licence or stated or UNKNOWN, front.get("base_model"))
    run, stage = folder.parent.parent, manifests[0]["stage"]
    index = read_json(run / "run.json") if (run / "run.json").exists() else {}
    recipe = index.get("recipe")
    # From random weights, on texts that our code generated: nobody else's rights.
    own = manifests[-1]["kind"] == "pretrain" and not any(_reads_a_file(manifest) for manifest in manifests)
    checkpoint = manifests[-1].get("inputs", {}).get("start", {}).get("checkpoint")
    on_the_hub = checkpoint if checkpoint is not None and "/" in checkpoint else None
    name = f"{recipe}-{stage}" if recipe else stage
    licence = licence or (OURS if own else checkpoint and _licence_of_file(folder)) or UNKNOWN
    return Provenance(name, licence, on_the_hub, recipe, manifests, _evaluation(run, manifests[0]), checkpoint)


def _reads_a_file(manifest: dict) -> bool:
    return "file" in manifest.get("contents", {}) or bool(manifest["settings"].get("file"))


def _manifests(folder: Path) -> list[dict]:
    """The stage's manifest and those of the models it started from, as far back as their files are there."""
    manifests: list[dict] = []
    path = folder / "manifest.json"
    while path.exists():
        manifest = read_json(path)
        if "stage" not in manifest or (manifests and manifest["content"] != manifests[-1]["inputs"]["start"]["content"]):
            break
        manifests.append(manifest)
        start = manifest.get("inputs", {}).get("start")
        index = path.parent.parent.parent / "run.json"
        if start is None or not index.exists():
            break
        path = index.parent / read_json(index)["stages"].get(start["stage"], "") / "manifest.json"
    return manifests


def _evaluation(run: Path, manifest: dict) -> dict | None:
    """The latest evaluation of exactly these weights."""
    files = (run / "evaluations").glob(f"{manifest['stage']}-{manifest['content'][:12]}-*/evaluation.json")
    latest = max(files, key=lambda path: path.stat().st_mtime, default=None)
    return None if latest is None else read_json(latest)


def _front_matter(readme: Path) -> dict:
    """The YAML block at the top of a model card; empty where there is none that can be read."""
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.exists() else ""
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return {}
    try:
        values = yaml.safe_load(text[4:text.index("\n---", 4)])
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def _licence_of_file(folder: Path) -> str | None:
    beginnings = (file.read_text(encoding="utf-8", errors="replace")[:300] for file in sorted(folder.glob("LICEN[SC]E*")))
    return next((name for text in beginnings for words, name in _LICENCE_FILES.items() if words in text), None)


def model_card(config: ModelConfig, origin: Provenance, notes: Sequence[str] = ()) -> str:
    """The text of README.md. notes: what other programs do differently with these weights."""
    front = {"license": origin.licence, "library_name": "transformers", "pipeline_tag": "text-generation"}
    if origin.base_model:
        front["base_model"] = origin.base_model
    if origin.manifests:
        front |= {"tags": ["reasoning"]} if origin.checkpoint else {"language": ["en", "fr"], "tags": ["reasoning"]}
    sections = [f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---", f"# {origin.name}", _what(config)]
    if origin.manifests:
        sections += ["## Data and training", _training(origin)]
    if origin.evaluation:
        sections += ["## Results", _results(origin.evaluation)]
    sections += ["## Use", _USE, "## Licence", origin.licence]
    return "\n\n".join([*sections, "## Limits", _limits(origin, notes)]) + "\n"


def _what(config: ModelConfig) -> str:
    counts = account(config)
    attention = "multi-head latent attention" if config.is_mla else "grouped-query attention"
    experts = (f"{config.n_routed_experts} routed experts of which {config.num_experts_per_tok} serve a token"
               if config.has_experts else "dense")
    mtp = f", and {counts.mtp_parameters:,} of the multi-token-prediction layer" if counts.mtp_parameters else ""
    return (f"`{ARCHITECTURES[config.model_type]}`: {attention}, {experts}; {config.num_hidden_layers} layers, width "
            f"{config.hidden_size}, vocabulary {config.vocab_size:,}, context {config.max_position_embeddings:,} tokens. "
            f"{counts.total_parameters:,} parameters, {counts.active_parameters:,} active for a token{mtp}.")


def _training(origin: Provenance) -> str:
    last = origin.manifests[0]
    recipe = f"the recipe `{origin.recipe}`" if origin.recipe else "a recipe"
    steps = "\n".join(_step(manifest) for manifest in reversed(origin.manifests))
    about = f"{last['card']['description']['en']} " if origin.checkpoint and "card" in last else ""
    return (f"{about}Made by {recipe} of Spoutnik {last['code_version']}; stage `{last['stage']}`, recipe hash "
            f"`{last['key']}`, seed {last['seed']}. What it learned from:\n\n{steps}")


def _step(manifest: dict) -> str:
    cost = manifest["bill"]
    return (f"- `{manifest['stage']}` ({manifest['kind']}): {_data(manifest)} "
            f"{cost['tokens_trained'] + cost['tokens_generated']:,} tokens trained and generated, {cost['seconds']:,.0f} s.")


def _data(manifest: dict) -> str:
    """What one stage learned from, in a sentence."""
    settings = manifest["settings"]
    families = ", ".join(settings.get("families", []))
    problems = " and ".join(filter(None, (f"generated problems ({families})" if families else "",
                                          f"tasks ({', '.join(settings.get('tasks', []))})" if settings.get("tasks") else "")))
    if manifest["kind"] == "pretrain":
        return f"procedurally generated problems ({families}) and plain text, in English and French, from random weights."
    if manifest["kind"] == "midtrain":
        return f"longer texts, conversations among them, of generated problems ({families}) and facts, in English and French."
    if manifest["kind"] == "grpo":
        general = " and general prompts judged by a reward model" if settings.get("reward_model") else ""
        return f"rewards for its own answers to {problems}, checked by program{general}."
    parts = []
    if settings.get("cold_start"):
        parts.append("traces written by solvers")
    if settings.get("traces"):
        parts.append(f"traces that a model of this run wrote (stage `{settings['traces']}`), kept where they were right")
    if _reads_a_file(manifest):
        parts += [f"traces of the file {source['source']}" for source in manifest.get("data", [])
                  if source["source"] not in ("cold_start", "general", settings.get("traces"))]
    if settings.get("general"):
        parts.append("general conversations made by program")
    return " and ".join(parts) + "."


def _results(evaluation: dict) -> str:
    protocol = evaluation["protocol"]
    rows = [_result("all", evaluation["accuracy"]), *(_result(name, of) for name, of in evaluation["families"].items())]
    return (f"R1's protocol: temperature {protocol['temperature']}, top-p {protocol['top_p']}, at most "
            f"{protocol['max_tokens']} tokens, asked in the style `{protocol['prompt_style']}`; pass@1 as the mean over "
            f"samples, intervals over problems. Well-formed replies: {evaluation['well_formed']:.1%}; thought: "
            f"{evaluation['thought_tokens']:.0f} tokens.\n\n"
            "| held-out problems | pass@1 | 95 % interval | problems x samples |\n|---|---|---|---|\n" + "\n".join(rows))


def _result(name: str, of: dict) -> str:
    return (f"| {name} | {of['mean']:.1%} | {of['low']:.1%} to {of['high']:.1%} | "
            f"{of['problems']} x {of['samples'] // max(1, of['problems'])} |")


_USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
conversation = [{"role": "user", "content": "What is 12 + 30?"}]
ids = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**ids, max_new_tokens=200)[0]))
```"""


def _limits(origin: Provenance, notes: Sequence[str]) -> str:
    limits = ["Converted from files that Spoutnik did not make: the original's card tells data, results and limits."]
    if origin.checkpoint:
        limits = [f"What {origin.checkpoint} could and could not do before, its own card tells; whether it still can, nobody "
                  "has measured.", "Nobody has looked at its safety after these stages."]
    elif origin.manifests:
        families = ", ".join(origin.manifests[0]["settings"].get("families", []))
        limits = [f"It knows what the stages above taught it, at its size: generated problems ({families}). It knows no facts "
                  "about the world and must not be asked for any.",
                  "It is as sure of itself when it is wrong. Nobody has looked at its safety."]
    if origin.manifests and not origin.evaluation:
        limits.append("This stage was not measured.")
    return "\n".join(f"- {line}" for line in [*limits, *notes])
