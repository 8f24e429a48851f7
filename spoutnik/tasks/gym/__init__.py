"""reasoning-gym: its sets as tasks of their own, asked in its words and graded by its scorers; and four of them in our wording,
as an outside check of our families."""

from spoutnik.tasks.gym.conversion import SETTINGS, gym_problems, gym_score
from spoutnik.tasks.gym.sets import EXCLUDED, SETS
from spoutnik.tasks.gym.task import GymTask

__all__ = ["EXCLUDED", "SETS", "SETTINGS", "GymTask", "gym_problems", "gym_score"]
