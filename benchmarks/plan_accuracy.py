"""How far off `spoutnik run --dry-run` is: tokens and core-seconds of each stage, predicted now and used by a finished run.

    python benchmarks/plan_accuracy.py runs/nano

The run should be of this machine, made by one run from its first stage on. Wanted: core-seconds of every stage within 25 %. The
last line is the same as JSON.
"""

import argparse
import json
from pathlib import Path

from spoutnik.files import read_json
from spoutnik.recipe.plan import evaluation_core_seconds, making_core_seconds
from spoutnik.recipe.schema import load_recipe
from spoutnik.recipe.work import evaluation_tokens, stage_work, validation_tokens

WANTED = 0.25


def rows(out: Path) -> list[dict]:
    recipe, source = load_recipe(out / "recipe.yaml"), str(out / "recipe.yaml")
    found = []
    for name, folder in read_json(out / "run.json")["stages"].items():
        manifest, work = read_json(out / folder / "manifest.json"), stage_work(recipe, name)
        bill = manifest["bill"]
        row = {"stage": name, "trained": (work.trained, bill["tokens_trained"]),
               "generated": (work.generated + validation_tokens(recipe, name), bill["tokens_generated"]),
               "wasted": (work.wasted, bill["tokens_wasted"]),
               "core_seconds": (making_core_seconds(recipe, name, source), bill["core_seconds"])}
        evaluations = list((out / "evaluations").glob(f"{name}-{manifest['content'][:12]}-*/evaluation.json"))
        if evaluations:
            asked = read_json(evaluations[0])["bill"]
            row["evaluation_tokens"] = evaluation_tokens(recipe, name), asked["tokens_generated"]
            row["evaluation_core_seconds"] = evaluation_core_seconds(recipe, name, source), asked["core_seconds"]
        found.append(row)
    return found


def shown(pair: tuple[float, float] | None) -> str:
    if pair is None or not any(pair):
        return f"{'':>32}"
    predicted, used = pair
    return f"{predicted:12,.0f} {used:12,.0f} " + (f"{predicted / used - 1:+6.0%}" if used else "      ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    found = rows(parser.parse_args().run)
    keys = ("trained", "generated", "wasted", "core_seconds", "evaluation_tokens", "evaluation_core_seconds")
    for key in keys:
        print(f"\n{key.replace('_', ' ')}: predicted, used, error")
        for row in found:
            print(f"  {row['stage']:20} {shown(row.get(key))}")
    errors = {row["stage"]: row["core_seconds"][0] / row["core_seconds"][1] - 1 for row in found}
    beyond = [stage for stage, error in errors.items() if abs(error) > WANTED]
    total = [sum(row["core_seconds"][place] for row in found) for place in (0, 1)]
    print(f"\nall stages: {total[0]:,.0f} predicted, {total[1]:,.0f} used ({total[0] / total[1] - 1:+.0%}); beyond "
          f"{WANTED:.0%}: {', '.join(beyond) or 'none'}")
    print(json.dumps({"core_second_errors": errors, "beyond": beyond, "stages": found}))


if __name__ == "__main__":
    main()
