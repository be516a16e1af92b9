"""The root of TzK's errors for people, and the names that such errors suggest."""

from __future__ import annotations

from collections.abc import Iterable


class TzkError(Exception):
    """Something that the user can put right.

    The message says what was expected, what came, where, and what to do next. The command line prints it as one line
    and exits with status 2.
    """


class Note(UserWarning):
    """Something that went well in another way than one may think.

    The command line prints it as one line.
    """


def nearest(name: str, candidates: Iterable[str]) -> str:
    """`"; did you mean 'x' or 'y'?"` for at most three candidates like `name`, else `""`."""
    import difflib  # only errors need it

    lowered = {candidate.lower(): candidate for candidate in sorted(set(candidates), reverse=True)}
    close = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)
    if not close:
        return ""
    *others, last = [repr(lowered[match]) for match in close]
    return f"; did you mean {', '.join(others) + ' or ' if others else ''}{last}?"
