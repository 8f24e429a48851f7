"""What the audit finds of a task's verifier and is as it should be, with the reason."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Exemption:
    """One attack that a task may let through.

    A task writes them down as its attribute `exemptions`: attack -> Exemption.

    limit: the mean grade that the attack may reach.
    """

    reason: str
    limit: float = 1.0
