"""The program: `tzk`, and `python -m tzk_core`.

Ctrl-C while the program itself is imported ends it as it ends a command.
"""

import sys


def main() -> None:
    """Run the program with the arguments of the process."""
    try:
        from tzk_core.cli import main as program  # within the block, where an interrupt is expected

        program()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    sys.argv[0] = "tzk"  # what help calls it
    main()
