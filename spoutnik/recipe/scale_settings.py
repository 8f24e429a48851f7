"""What a recipe says about the processes that run it, and nothing about how many there are."""

from pydantic import Field, model_validator

from spoutnik.train.settings import Settings


class ScaleSettings(Settings):
    """How a run is divided among processes (`torchrun ... -m spoutnik run`, docs/scale.md) and cores. Without this section
    each sum over a batch has as many parts as there are processes and cores, and its last digits depend on their number."""

    reproducible: bool = True
    """The same bytes on any number of processes and cores: each sum over a batch has a fixed order."""
    virtual_shards: int = Field(default=8, ge=1, le=4096)
    """Into how many parts each batch is divided then, a power of two, and the most processes that can work on it. Another
    number is another order of the same sums, and makes other artifacts."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds in which no process finishes a piece of work (a micro-batch, a step of sampling), after which the run is taken to
    hang: it ends, and the stacks of all processes are in OUT/stacks. Changes no key."""

    @model_validator(mode="after")
    def _a_binary_tree(self) -> "ScaleSettings":
        shards = self.virtual_shards
        if shards & (shards - 1):
            lower = 1 << (shards.bit_length() - 1)
            raise ValueError(f"virtual_shards = {shards}: is no power of two. Write {lower} or {2 * lower}")
        if not self.reproducible and "virtual_shards" in self.model_fields_set:
            raise ValueError("virtual_shards is of reproducible sums, and reproducible is false. Leave one of them out")
        return self

    @property
    def fixed_shards(self) -> int | None:
        """None where sums are divided as processes and cores are."""
        return self.virtual_shards if self.reproducible else None
