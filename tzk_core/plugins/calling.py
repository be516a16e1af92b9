"""Calls of registered parts, with the core's arguments and those of a config."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from tzk_core.errors import TzkError, nearest
from tzk_core.plugins.registry import Registered


def call_part(part: Registered, arguments: Mapping[str, Any], *supplied: Any) -> Any:
    """Call the target of a part.

    What the core supplies goes by position, so that no argument of a part can be mistaken for it.

    Returns:
        What the target returns.

    Raises:
        TzkError: if the part cannot be imported, does not take its arguments, or raises.
    """
    target = part.load()
    what = f"{part.spec.kind} {part.name!r} ({part.distribution} {part.version})"
    taken = _taken(target, len(supplied))
    for key in arguments:
        if taken is not None and key not in taken:
            hint = nearest(key, taken) or f" (it takes {', '.join(taken) or 'none'})"
            raise TzkError(f"{what} takes no argument {key!r}{hint}")
    try:
        return target(*supplied, **arguments)
    except TzkError:
        raise
    except Exception as error:  # plugins raise whatever they like
        raise TzkError(f"{what}: {error or type(error).__name__}") from error


def _taken(target: Any, supplied: int) -> list[str] | None:
    """The arguments that a target takes by keyword.

    None where it takes any, or has no signature.
    """
    try:
        parameters = list(inspect.signature(target).parameters.values())[supplied:]
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters if parameter.kind in _BY_KEYWORD]


_BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
