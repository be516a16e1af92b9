"""`python -m tzk_core` is the command `tzk`."""

from tzk_core.cli import main

if __name__ == "__main__":
    main(prog_name="tzk")
