"""Code as a task: programs run in a sandbox, verdicts are made outside it."""
