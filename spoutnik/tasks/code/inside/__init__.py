"""What runs inside the sandbox, which sees this folder and nothing else of the project.

It stands there as a package of its own, so its modules use the standard library and each other alone (relative imports).
"""
