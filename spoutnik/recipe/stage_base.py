"""What the stages of a recipe have in common."""

from pydantic import ConfigDict, ValidationInfo, field_validator

from spoutnik.train.settings import StrictModel, refuse_truth

LARGEST_SEED = 2 ** 32 - 1  # with a step's number still an integer that every generator takes


class StageBase(StrictModel):
    """A stage; each kind has its own keys."""

    model_config = ConfigDict(populate_by_name=True)

    @field_validator("seed", "general", "dialogue_share", "echo_share", "held_out_share", mode="before", check_fields=False)
    @classmethod
    def _numbers_are_numbers(cls, value: object, info: ValidationInfo) -> object:  # not of "*": `kind` decides the class
        return refuse_truth(cls, value, info)

    @property
    def inputs(self) -> dict[str, str]:
        """Role -> name of the stage it comes from."""
        return {role: name for role in ("start", "reward_model", "traces") if (name := getattr(self, role, None)) is not None}


class ConversingStage(StageBase):
    """A model that converses."""

    examples: list[str] | None = None
    """Of the recipe's families, those whose questions its card shows (all of them where it says nothing)."""
