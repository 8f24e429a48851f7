"""`python -m spoutnik`: the command line."""

from spoutnik.commands.main import main

main()
