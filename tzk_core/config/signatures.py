"""The arguments of a registered part, read from its source without importing it.

A part whose text does not show its signature is imported and inspected instead: a decorated function, or a class that
inherits its constructor from another module.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tzk_core.plugins import Registered

NOTHING: Any = inspect.Parameter.empty


@dataclass(frozen=True)
class Argument:
    """One parameter.

    annotation, default: as text; "" if there is none.
    value: the default where it is a plain literal, else NOTHING.
    """

    name: str
    annotation: str
    default: str
    value: Any = NOTHING

    @property
    def required(self) -> bool:
        return not self.default


@dataclass(frozen=True)
class Signature:
    """What a part's constructor takes; `open` says that it takes any other keyword as well."""

    arguments: tuple[Argument, ...]
    open: bool
    docstring: str
    file: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(argument.name for argument in self.arguments)


def signature(part: Registered) -> Signature:
    """The signature of a part's target.

    Raises:
        TzkError: if the target has to be imported and cannot be.
    """
    return _from_text(part.spec.target) or _from_object(part.load())


def _from_text(target: str) -> Signature | None:
    """The signature as the target's file shows it, or None where it does not."""
    module, _, attribute = target.partition(":")
    file = _source(module)
    if file is None:
        return None
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None
    definitions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    node = definitions.get(attribute)
    constructor = _constructor(node, definitions) if node else None
    if node is None or constructor is None:
        return None
    bound = 1 if isinstance(node, ast.ClassDef) else 0
    return Signature(
        arguments=tuple(_written_arguments(constructor.args, bound)),
        open=constructor.args.kwarg is not None,
        docstring=_documentation(ast.get_docstring(node), ast.get_docstring(constructor)),
        file=str(file),
    )


def _source(module: str) -> Path | None:
    """The file of a module, located without importing it or the packages around it."""
    package, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def _constructor(node: ast.stmt, definitions: dict[str, Any], seen: tuple[str, ...] = ()) -> ast.FunctionDef | None:
    """The function whose parameters a call takes.

    A class may inherit it from a class of the same file.
    """
    if isinstance(node, ast.FunctionDef):
        return None if node.decorator_list else node
    if not isinstance(node, ast.ClassDef) or node.decorator_list or node.keywords or node.name in seen:
        return None
    methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
    if "__new__" in methods:
        return None
    if "__init__" in methods:
        return _constructor(methods["__init__"], definitions)
    if len(node.bases) != 1 or not isinstance(node.bases[0], ast.Name):
        return None
    inherited = definitions.get(node.bases[0].id)
    return _constructor(inherited, definitions, (*seen, node.name)) if inherited else None


def _written_arguments(arguments: ast.arguments, bound: int) -> Iterator[Argument]:
    positional = arguments.posonlyargs + arguments.args
    padding: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    defaults = [*padding, *arguments.defaults]
    pairs = [
        *list(zip(positional, defaults, strict=True))[bound:],
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    for argument, default in pairs:
        annotation = ast.unparse(argument.annotation) if argument.annotation else ""
        if default is None:
            yield Argument(argument.arg, annotation, "")
            continue
        try:
            value = ast.literal_eval(default)
        except ValueError:
            value = NOTHING
        yield Argument(argument.arg, annotation, ast.unparse(default), value)


def _from_object(target: Any) -> Signature:
    """The signature of an imported object; one without a signature takes any keyword."""
    try:
        parameters: Iterable[inspect.Parameter] = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return Signature((), open=True, docstring=inspect.getdoc(target) or "", file=_file(target))
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return Signature(
        arguments=tuple(_inspected(p) for p in parameters if p.kind in named),
        open=any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters),
        docstring=_documentation(inspect.getdoc(target), _own_doc(target)),
        file=_file(target),
    )


def _inspected(parameter: inspect.Parameter) -> Argument:
    annotation = parameter.annotation
    if annotation is NOTHING:
        text = ""
    else:
        text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    if parameter.default is NOTHING:
        return Argument(parameter.name, text, "")
    plain = isinstance(parameter.default, bool | int | float | str | tuple | list | None)
    return Argument(parameter.name, text, repr(parameter.default), parameter.default if plain else NOTHING)


def _own_doc(target: Any) -> str | None:
    return target.__init__.__doc__ if inspect.isclass(target) and "__init__" in vars(target) else None


def _file(target: Any) -> str:
    try:
        return inspect.getsourcefile(target) or ""
    except TypeError:
        return ""


def _documentation(*docstrings: str | None) -> str:
    return "\n\n".join(dict.fromkeys(inspect.cleandoc(text) for text in docstrings if text))
