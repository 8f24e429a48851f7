"""`spoutnik`, and `python -m spoutnik`: the command line. Ctrl-C while it is still being read ends as quietly as later."""

import sys


def main() -> None:
    try:
        from spoutnik.commands.main import main as run
    except KeyboardInterrupt:
        print("\nInterrupted. Nothing was done.", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
