"""The pictures of a run, and their list in samples/pictures.json.

They are the registered ones that its config names.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tzk_core.errors import Note, TzkError
from tzk_core.moved import home
from tzk_core.plugins import Picture, Registered, UnknownPart, registry
from tzk_core.plugins.isolation import worded
from tzk_core.protection import protected
from tzk_core.report import images, views
from tzk_core.report.subject import Drawn, Subject
from tzk_core.storage import atomic
from tzk_core.strict_json import json_text
from tzk_core.version import CORE_PLUGIN

INDEX = "pictures.json"


def draw(experiment: views.Experiment, folder: Path, results: Mapping[str, Any]) -> list[Drawn]:
    """Write the pictures of a finished run to `folder`/samples, and their list beside them.

    Args:
        folder: of the run, with its metrics.csv.
        results: the contents of results.json, whose bits per dim stand beside samples.
    """
    samples = folder / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    log = folder / "metrics.csv"
    subject = Subject(experiment, results, log if log.exists() else None)
    parts = list(_found(experiment.config.pictures.draw))
    listed = [(part, drawn) for part in parts for drawn in _drawn(part, subject, samples)]
    index = [{"picture": part.qualified_name, **vars(drawn)} for part, drawn in listed]
    atomic.write(samples / INDEX, json_text(index) + "\n")
    return [drawn for _, drawn in listed]


def _found(names: Iterable[str]) -> Iterator[Registered]:
    """The registered pictures of these names.

    Those that the core had once are left out where their plugin is not installed, with a note, or disabled.
    """
    disabled = {record.name for record in registry().plugins if record.state == "disabled"}
    missing: list[str] = []
    for name in names:
        try:
            yield registry().find(Picture, name)
        except UnknownPart as error:
            where = home(Picture.kind, name)
            if where is None:
                raise
            if where.plugin not in disabled:
                missing.append(str(error))
    if missing:
        warnings.warn(Note(f"left out: {'; '.join(missing)}"), stacklevel=2)


def pictures_in(folder: Path) -> list[Drawn]:
    """The pictures of a run folder, as its index lists them.

    There are none if it has no index, or a damaged one.
    """
    try:
        listed = json.loads((folder / "samples" / INDEX).read_text(encoding="utf-8"))
        return [Drawn(entry["file"], entry["caption"], entry["alt"]) for entry in listed]
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return []


def _drawn(part: Registered, subject: Subject, folder: Path) -> list[Drawn]:
    """What a part draws. Of a plugin's, what goes wrong is reported."""
    if part.plugin == CORE_PLUGIN:
        return list(part.load()(subject, folder))
    try:
        with protected():
            return list(checked(part.load()(subject, folder), folder))
    except Exception as error:
        who = f"picture {part.name!r} of plugin {part.plugin!r} ({part.distribution} {part.version})"
        warnings.warn(f"the {who} is left out: {worded(error)}", Note, stacklevel=2)
        return []


def checked(drawings: Iterable[Drawn], folder: Path) -> Iterator[Drawn]:
    """The drawings of a part.

    Raises:
        TzkError: for what is no `Drawn`, a file that is not in `folder`, and a missing caption or alternative text.
    """
    for drawn in drawings:
        if not isinstance(drawn, Drawn):
            raise TzkError(f"expected tzk_core.report.subject.Drawn; got {drawn!r}")
        if not isinstance(drawn.file, str) or Path(drawn.file).name != drawn.file:
            raise TzkError(f"expected the name of a file in samples/; got {drawn.file!r}")
        if not (folder / drawn.file).is_file():
            raise TzkError(f"it should have written {drawn.file!r} to samples/; there is no such file")
        for key in ("caption", "alt"):
            text = getattr(drawn, key)
            if not isinstance(text, str) or not text.strip() or "\n" in text:
                raise TzkError(f"{drawn.file}: {key} should be a line of text; got {text!r}")
        yield drawn


def samples(subject: Subject, folder: Path) -> Iterator[Drawn]:
    """Samples of the prior and of knowledge.

    They are grids of images, or what a plugin draws of vectors.
    """
    yield from images.samples(subject, folder) if subject.images else _of_vectors("samples", subject, folder)


def reconstructions(subject: Subject, folder: Path) -> Iterator[Drawn]:
    """Test data beside their reconstructions through C, by knowledge type."""
    name = "reconstructions"
    yield from images.reconstructions(subject, folder) if subject.images else _of_vectors(name, subject, folder)


def planes(subject: Subject, folder: Path) -> Iterator[Drawn]:
    """The plane of C, of knowledge types with two characteristics."""
    yield from images.planes(subject, folder) if subject.images else _of_vectors("plane-of-c", subject, folder)


def _of_vectors(name: str, subject: Subject, folder: Path) -> Iterator[Drawn]:
    """What the registered picture of this name and "-of-vectors" draws.

    Nothing is drawn where no plugin has one.
    """
    with contextlib.suppress(UnknownPart):
        yield from _drawn(registry().find(Picture, f"{name}-of-vectors"), subject, folder)
