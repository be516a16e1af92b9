"""Types of annotations, read from their syntax tree: no source text is executed."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Literal, Optional, Union

_NAMES: dict[str, Any] = {
    **{t.__name__: t for t in (bool, int, float, str, list, tuple, dict, set, object)},
    "Any": Any,
    "Literal": Literal,
    "Mapping": Mapping,
    "Optional": Optional,
    "Path": Path,
    "Sequence": Sequence,
    "Union": Union,
}
"""The types that a TOML value can have."""


def type_of(annotation: str) -> Any:
    """The type that an annotation names, of `_NAMES`, in brackets and between bars.

    Raises:
        LookupError: for whatever else the annotation holds.
    """
    try:
        return _type(ast.parse(annotation, mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:  # also such as list[1, 2, 3] and int | 3
        raise LookupError(annotation) from error


def _type(node: ast.expr) -> Any:
    match node:
        case ast.Name(id=name):
            return _NAMES[name]
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):  # an annotation within quotation marks
            return type_of(text)
        case ast.Constant(value=value) if value is ...:
            return ...
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return reduce(or_, (_type(side) for side in (left, right)))
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inside):
            return Literal[tuple(map(ast.literal_eval, _items(inside)))]
        case ast.Subscript(value=outer, slice=inside):
            types = tuple(map(_type, _items(inside)))
            return _type(outer)[types if len(types) > 1 or isinstance(inside, ast.Tuple) else types[0]]
    raise LookupError(ast.unparse(node))


def _items(inside: ast.expr) -> list[ast.expr]:
    return inside.elts if isinstance(inside, ast.Tuple) else [inside]
