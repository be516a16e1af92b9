"""The structure of a manifest, as pydantic models.

It is checked whole before any of it is used.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints, ValidationError, model_validator

from tzk_core import names as naming
from tzk_core.parts import KEYS

FORMAT = 1
TOGETHER_FORMAT = 2
"""Of a checkpoint with the files of all knowledge types in one."""

CORE = "core.safetensors"
TRAINER = "trainer.pt"
TOGETHER_FILE = "knowledge.bin"
"""Files of knowledge types, one after the other."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
CHECKED_AT_ONCE = 1000
"""So many knowledge types of a manifest are checked at a time."""

DEEPEST = 100
"""Arguments of a part are nested so deep at most."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class PartEntry(_Strict):
    """A registered part and its arguments, which may hold parts again."""

    name: str
    plugin: str
    distribution: str
    version: str
    arguments: dict[str, Any]
    state_version: PositiveInt = 1

    @model_validator(mode="after")
    def _parts_within(self) -> Self:
        _check_within(self.arguments, DEEPEST)
        return self


class FlowEntry(_Strict):
    """What the shared flow was built from: one recipe, or layers."""

    shape: list[PositiveInt] = Field(min_length=1)
    base: str | PartEntry
    recipe: PartEntry | None
    layers: list[PartEntry]


class CoreEntry(_Strict):
    hash: Sha256
    parts: FlowEntry | None
    file: Literal["core.safetensors"]
    sha256: Sha256


class KnowledgeEntry(_Strict):
    """A knowledge type.

    offset, size: its bytes of the file that holds all types; None for a file of its own.
    """

    part: PartEntry | None
    implies: list[str]
    core: Sha256
    file: str
    sha256: Sha256
    offset: int | None = Field(default=None, ge=0)
    size: int | None = Field(default=None, ge=0)


class TrainerEntry(_Strict):
    file: Literal["trainer.pt"]
    sha256: Sha256
    step: int | None = Field(default=None, ge=0)


class Manifest(_Strict):
    """manifest.json. sha256: that of the manifest without it; None where an older version wrote it."""

    format: Literal[1, 2]
    core: CoreEntry
    knowledge: dict[str, KnowledgeEntry]
    trainer: TrainerEntry | None = None
    sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _names(self) -> Self:
        folded: dict[str, str] = {}
        for name, entry in self.knowledge.items():
            if wrong := naming.problem(name):
                raise ValueError(f"knowledge is called {wrong}")
            expected = TOGETHER_FILE if self.format == TOGETHER_FORMAT else file_of(name)
            if entry.file != expected:
                raise ValueError(f"the file of {name!r} is expected as {expected}; got {entry.file[:80]!r}")
            if (entry.offset is None or entry.size is None) == (self.format == TOGETHER_FORMAT):
                raise ValueError(f"offset and size of {name!r} belong to format {TOGETHER_FORMAT}, and to no other")
            if (other := folded.setdefault(naming.key(name), name)) != name:
                raise ValueError(one_file(other, name))
        return self


def file_of(name: str) -> str:
    """The file of a knowledge type."""
    return f"knowledge/{name}.safetensors"


def one_file(first: str, second: str) -> str:
    """What is wrong with two names that differ by case alone."""
    return f"{first!r} and {second!r} would be one file where a file system folds case"


def first_problem(model: type[BaseModel], value: Any) -> str:
    """What is wrong first with the structure of a value, and where; "" if nothing is."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(each)[:40] for each in first["loc"])
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    return ""


def manifest_problem(value: Any) -> str:
    """What is wrong first with a manifest, checked some types at a time.

    Models of pydantic take ten times the memory of what they check.
    """
    known = value.get("knowledge") if isinstance(value, dict) else None
    if not isinstance(known, dict) or len(known) <= CHECKED_AT_ONCE:
        return first_problem(Manifest, value) or _gap(value)
    names = list(known)
    folded: dict[str, str] = {}
    for start in range(0, len(names), CHECKED_AT_ONCE):
        some = {name: known[name] for name in names[start : start + CHECKED_AT_ONCE]}
        if wrong := first_problem(Manifest, {**value, "knowledge": some}):
            return wrong
        for name in some:
            if (other := folded.setdefault(naming.key(name), name)) != name:
                return one_file(other, name)
    return _gap(value)


def _gap(manifest: dict[str, Any]) -> str:
    return gap(manifest["knowledge"], 0, manifest["format"])


def gap(known: dict[str, Any], start: int, form: int) -> str:
    """What is wrong where knowledge types in one file do not follow each other.

    "" if nothing is.

    Args:
        start: the byte at which the first begins.
        form: the format of the manifest.
    """
    end = start
    for name, entry in known.items() if form == TOGETHER_FORMAT else ():
        if entry["offset"] != end:
            return f"{name!r} is expected at byte {end} of {TOGETHER_FILE}; got {entry['offset']}"
        end += entry["size"]
    return ""


def _check_within(value: Any, deepest: int) -> None:
    """Check the parts in the arguments of a part.

    Raises:
        ValueError: where what stands for one is none, or is nested too deep.
    """
    if deepest == 0:
        raise ValueError(f"arguments are nested more than {DEEPEST} deep")
    if isinstance(value, dict) and set(value) == KEYS:
        PartEntry.model_validate(value)
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            _check_within(each, deepest - 1)
