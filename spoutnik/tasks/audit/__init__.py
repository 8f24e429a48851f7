"""The audit of verifiers: what a policy could learn in place of the task, tried before it is trained.

A verifier is attacked with answers that know nothing of the problem, answers that hedge around the right one, and answers that
are none. It is refused for training where an attack is paid, or where it raises, hangs or executes what it reads.
"""

from spoutnik.tasks.audit.attacks import ATTACKS, Attack
from spoutnik.tasks.audit.cache import cached_audit, kept_audits
from spoutnik.tasks.audit.isolation import audit_tasks
from spoutnik.tasks.audit.report import AttackResult, Example, Report
from spoutnik.tasks.exemptions import Exemption

__all__ = ["ATTACKS", "Attack", "AttackResult", "Example", "Exemption", "Report", "audit_tasks", "cached_audit",
           "kept_audits"]
