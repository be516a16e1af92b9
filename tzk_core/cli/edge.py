"""The edge of the program: errors become sentences, and any text can be printed."""

from __future__ import annotations

import codecs
import errno
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tzk_core.errors import Note, TzkError
from tzk_core.files import shown_path

USERS, OURS = 2, 1
"""Exit statuses: for what the user can put right, and for a fault of the program."""

_ADVICE = {
    errno.EACCES: "ask for permission to it, or name another place",
    errno.EPERM: "ask for permission to it, or name another place",
    errno.EROFS: "name a place that can be written",
    errno.ENOSPC: "make room there, or name another place",
    errno.EDQUOT: "make room there, or name another place",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), or name a place on another file system",
    errno.ENOENT: "it may have been moved or deleted meanwhile",
    errno.ENOTDIR: "a file lies where a folder is expected",
    errno.EISDIR: "a folder lies where a file is expected",
    errno.EEXIST: "name another place, or delete it",
    errno.ENAMETOOLONG: "give a shorter name or path",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ELOOP: "correct the links on the way to it",
}
_LONG = re.compile(r"\S{300,}")
"""What no sentence needs whole: a name or path of thousands of letters."""

_MEMORY = "not enough memory: try a smaller batch_size, fewer importance samples, fewer samples at a time"
_SHAPES = ("shape", "size", "dimension", "mat1", "broadcast", "view")
_STAND_INS = str.maketrans(
    {"κ": "kappa", "λ": "lambda", "σ": "sigma", "–": "-", "−": "-", "…": "...", "→": "->", "≥": ">=", "≤": "<="}
    | {"±": "+-", "×": "x", "·": ".", "“": '"', "”": '"', "‘": "'", "’": "'"}
)


def debugging() -> bool:
    """Whether TZK_DEBUG asks for tracebacks."""
    return os.environ.get("TZK_DEBUG", "") not in ("", "0")


def sentence(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit status."""
    if debugging():
        traceback.print_exception(error)
    known = _known(error)
    if known is not None:
        return known, USERS
    return (
        f"this should not happen: {type(error).__name__}: {_first_line(error)} {_place(error)}. It is a fault of TzK "
        "or a plugin: TZK_DEBUG=1 shows the whole way to it",
        OURS,
    )


def _known(error: Exception) -> str | None:
    """The sentence of an error of the user's; None for a fault of the program."""
    if isinstance(error, TzkError):
        return _LONG.sub(lambda match: shown_path(match[0]), str(error))
    if isinstance(error, OSError):
        return _of_the_system(error)
    return _of_python(error) or _of_nflows(error) or _of_shapes(error) or None


def _of_python(error: Exception) -> str:
    """The sentence of an error of Python's own, or "" for another."""
    first = _first_line(error)
    if isinstance(error, MemoryError) or _is_memory(error):
        return _MEMORY + (f" ({first})" if first else "")
    if isinstance(error, RecursionError):
        return "something is nested too deep to be followed: brackets of a file, or parts of a flow"
    if isinstance(error, UnicodeError):
        return f"a text is not {getattr(error, 'encoding', 'UTF-8')}, as is expected ({first}): save it as UTF-8"
    if isinstance(error, ValueError) and "embedded null" in first:
        return "a path or name has a NUL character in it, which no file can have: give another one"
    if isinstance(error, ImportError):
        return f"a module cannot be imported: {first}: install what is missing, or see `tzk doctor`"
    return ""


def _of_shapes(error: Exception) -> str:
    """The sentence of torch's error about shapes, or "" for another."""
    first = _first_line(error)
    if isinstance(error, RuntimeError) and any(word in first for word in _SHAPES):
        return f"layers and data do not fit each other: {first} {_place(error)}"
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


@contextmanager
def printable() -> Iterator[None]:
    """Within the block, stdout and stderr take any text.

    Letters that their encoding lacks are replaced. A `Note` is a line on stderr.
    """
    codecs.register_error("tzk", _stand_in)
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="tzk")
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(  # noqa: PLR0917 -- the signature of `warnings.showwarning`
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, Note):
                print(f"note: {message}", file=sys.stderr)
            else:
                shown(message, category, filename, lineno, file, line)

        warnings.simplefilter("always", Note)
        warnings.showwarning = show
        yield


@contextmanager
def script() -> Iterator[None]:
    """Within the block of a script, an error ends it as it ends a command.

    It prints one sentence on stderr, and sets its status.
    """
    with printable():
        try:
            yield
        except Exception as error:
            message, status = sentence(error)
            print(f"error: {message}", file=sys.stderr)
            sys.exit(status)


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    text = missing.translate(_STAND_INS)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


def _of_the_system(error: OSError) -> str:
    files = (name for name in (error.filename, error.filename2) if isinstance(name, str | bytes))
    names = [shown_path(os.fsdecode(name)) for name in files]
    reason = error.strerror or str(error) or type(error).__name__
    if not names and error.errno == errno.ENOENT and _is_nowhere():
        return "the folder in which the program was started is gone: go to another one"
    advice = _ADVICE.get(error.errno or 0, "")
    return f"{' and '.join(names) + ': ' if names else ''}{reason}" + (f": {advice}" if advice else "")


def _is_nowhere() -> bool:
    """Whether the working folder was removed."""
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def _is_memory(error: Exception) -> bool:
    """torch has errors of its own for it, and is not imported to tell."""
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error) or "out of memory" in str(error)
    )


def _of_nflows(error: Exception) -> str:
    return {
        "InputOutsideDomain": "an observation or a latent lies outside the domain of a layer: images are expected in "
        "[0, 1], dequantised, and what a spline without tails takes within its bounds",
        "InverseNotAvailable": "a layer of this flow has no inverse, so that one can evaluate it but draw no samples",
    }.get(type(error).__name__, "")


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"(in {Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
