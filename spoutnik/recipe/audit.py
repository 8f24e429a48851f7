"""The audit of the verifiers that a recipe rewards with, before anything is trained."""

from collections.abc import Callable, Sequence

from spoutnik.errors import UserError
from spoutnik.recipe.schema import Recipe
from spoutnik.recipe.stage_kinds import GRPOStage, RejectStage
from spoutnik.tasks import Task
from spoutnik.tasks.audit import Report, cached_audit, kept_audits
from spoutnik.validation import did_you_mean


class UnfitVerifiers(UserError):
    """The audit refuses them. reports: theirs, for commands that have other remedies than a recipe."""

    def __init__(self, message: str, reports: Sequence[Report]):
        super().__init__(message)
        self.reports = reports


def audit_rewards(recipe: Recipe, source: str, stages: Sequence[str], say: Callable[[str], None]) -> None:
    """Audits each task that one of these stages rewards or selects by. Reports are kept, so it takes no time twice; nothing of
    what the stages make depends on it.

    Raises:
        UnfitVerifiers: a verifier is not fit to train on, and the recipe does not exempt its task.
        UserError: it exempts what is none of its tasks, or without a reason.
    """
    _check_exemptions(recipe, source)
    rewarded = [name for name in stages if isinstance(recipe.stages[name], GRPOStage | RejectStage)]
    tasks = {task.name: task for name in rewarded for task in recipe.tasks_of(recipe.stages[name])}
    for note in dict.fromkeys(note for task in tasks.values() for each in (task, *task.parts) for note in each.notes):
        say(note)
    if not tasks:
        return
    say(audit_line(list(tasks.values()), recipe.exempt, source))


def reward_reports(recipe: Recipe) -> list[Report]:
    """The audits, as far as they are kept, of all tasks that the recipe's stages reward or select by."""
    rewarded = [stage for stage in recipe.stages.values() if isinstance(stage, GRPOStage | RejectStage)]
    tasks = {task.name: task for stage in rewarded for task in recipe.tasks_of(stage)}
    return kept_audits(list(tasks.values()))


def _check_exemptions(recipe: Recipe, source: str) -> None:
    names = [task.name for task in recipe.tasks_of()]
    for name, reason in recipe.exempt.items():
        if name not in names:
            raise UserError(f"{source}: exempt.{name}: there is no such task in this recipe.{did_you_mean(name, names)} Its "
                            f"tasks are {', '.join(names)}.")
        if not reason.strip():
            raise UserError(f"{source}: exempt.{name}: is empty. Write why the task is trained on all the same.")


def audit_line(tasks: Sequence[Task], exempt: dict[str, str], source: str) -> str:
    """One line for tasks that pass. exempt: task -> why it is trained on although it does not.

    Raises:
        UnfitVerifiers: one is refused.
    """
    reports = list(cached_audit(tasks))
    refused = [report for report in reports if report.refusals]
    if wrong := [report for report in refused if report.task not in exempt]:
        raise UnfitVerifiers("\n".join(_refusal(report, source) for report in wrong), wrong)
    notes = [f"{report.task} is exempted ({exempt[report.task]})" for report in refused]
    best = max((each for report in reports if report not in refused and (each := _best(report))), default=None)
    if best is not None:
        notes.append(f"the most that is paid to an answer without thought is {best[0]:.2f}, at {best[1]}")
    return f"verifiers audited: {', '.join(report.task for report in reports)}" + (f"; {'; '.join(notes)}" if notes else "")


def _best(report: Report) -> tuple[float, str] | None:
    blind = report.best_blind
    return None if blind is None else (blind.mean, f"{report.task} for {blind.form}")


def _refusal(report: Report, source: str) -> str:
    return (f"{source}: the verifier of '{report.task}' is not fit to train on. {' '.join(report.refusals)} Mend it (spoutnik "
            f"audit {report.task} shows more), leave the task out, or train on it all the same and write down why: a key "
            f"`exempt` of the recipe, {{{report.task}: the reason}}.")
