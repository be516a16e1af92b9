"""Run commands of `tzk` in this interpreter: in one of its own, importing torch alone takes seconds."""

from __future__ import annotations

from click.testing import CliRunner, Result

from tzk_core.cli import main


def tzk(*words: object) -> Result:
    """Invoke `tzk words`, whatever its exit status; raises what the command did not turn into a sentence."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output, result.output
    return result


def output_of(*words: object, status: int = 0) -> str:
    """What `tzk words`, which ends with `status`, prints to stdout and stderr."""
    result = tzk(*words)
    assert result.exit_code == status, f"tzk {' '.join(map(str, words))}\n{result.output}"
    return result.output


def refused(*words: object) -> str:
    """The message of a command that ends with one error and prints no result."""
    result = tzk(*words)
    assert result.exit_code == 2 and result.stdout == "", result.output
    return result.stderr
