"""Rules between tables of a config: names that refer to names, and limits between keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from tzk_core import names as naming
from tzk_core.config.problems import Path
from tzk_core.config.schema import (
    Config,
    DatasetTable,
    EvaluationTable,
    PublishedTable,
)
from tzk_core.errors import nearest
from tzk_core.settings import KnowledgeTable, ObjectiveTable, Table, conflicts
from tzk_core.settings.knowledge import every

BrokenRules = Iterator[tuple[Path, str]]


@dataclass(frozen=True)
class Base:
    """What a spec adds to: a run's config, and all knowledge types in its checkpoint."""

    config: Config
    knowledge: tuple[str, ...]


@dataclass
class Sections:
    """The valid tables of a config or a spec, by their place.

    A spec adds to `base`. A faulty table is reported and left out.
    """

    datasets: dict[int, DatasetTable] = field(default_factory=dict)
    knowledge: dict[int, KnowledgeTable] = field(default_factory=dict)
    published: dict[int, PublishedTable] = field(default_factory=dict)
    objective: ObjectiveTable | None = None
    training: Table | None = None
    evaluation: EvaluationTable | None = None
    whole: bool = True
    """Whether no table was left out, so that an unknown name is really unknown."""
    base: Base | None = None

    @property
    def dataset_names(self) -> list[str]:
        """Of the file and of what it adds to."""
        older = [table.name for table in self.base.config.datasets] if self.base else []
        return list(dict.fromkeys([*_names(self.datasets), *older]))

    @property
    def knowledge_names(self) -> list[str]:
        """The same of knowledge types; those of the file as they are written there."""
        return [*_names(self.knowledge), *(self.base.knowledge if self.base else ())]


def broken_rules(sections: Sections) -> BrokenRules:
    """(path, message) for every rule that these tables break."""
    yield from _dataset_names(sections)
    for index, table in sections.knowledge.items():
        yield from _knowledge_name(index, table)
        yield from _conditions(index, table, sections)
        yield from _characterised(index, table)
        yield from _exclusive(index, table)
    yield from _distinct_knowledge(sections)
    yield from _implied(sections)
    yield from _starts(sections)
    if sections.base is not None:
        yield from _added(sections, sections.base)
    for name, settings in (("objective", sections.objective), ("training", sections.training)):
        if settings is not None:
            yield from (((name, key), message) for key, message in conflicts(settings))
    if sections.evaluation is not None:
        yield from _globs(sections.evaluation, sections)
    for index, row in sections.published.items():
        yield from _published(index, row, sections)


def _names(tables: Mapping[int, DatasetTable] | Mapping[int, KnowledgeTable]) -> list[str]:
    return [table.name for table in tables.values()]


def _dataset_names(sections: Sections) -> BrokenRules:
    seen: dict[str, str] = {}
    for index, table in sections.datasets.items():
        if other := seen.get(naming.key(table.name)):
            yield (
                ("datasets", index, "name"),
                f"two data sets are called '{table.name}'{_alike(table.name, other)}: give one another name (and a "
                "type)",
            )
        seen.setdefault(naming.key(table.name), table.name)


def _knowledge_name(index: int, table: KnowledgeTable) -> BrokenRules:
    name = table.name
    path: Path = ("knowledge", index, "name")
    try:
        columns = naming.columns(name)
        implied = [column for pattern in table.implies for column in naming.columns(pattern)]
    except ValueError as error:
        yield path, f"the name '{name}', or one that it implies, has unmatched braces ({error})"
        return
    # A column's value is checked with the data; the shortest that it can have stands for it here.
    if message := naming.problem(naming.filled(name, dict.fromkeys(columns, "x"))):
        yield path, message
    separate = {
        column for column, value in table.present.items() if value in ("each", ("each",)) and column != "dataset"
    }
    for column in sorted(set(columns) - separate):
        yield path, f'the name has {{{column}}}, so present must say {column} = "each"'
    for column in sorted(separate - {*columns, *implied}):
        yield (
            path,
            f"present says {column} = \"each\", so the name must hold it, as '{column}-{{{column}}}'",
        )


def _conditions(index: int, table: KnowledgeTable, sections: Sections) -> BrokenRules:
    if not table.present and not table.unobserved:
        yield (
            ("knowledge", index, "present"),
            f"nothing says where '{table.name}' is present: write, say, "
            f'present = {{ dataset = "{next(iter(sections.dataset_names), "mnist")}" }}',
        )
    for key in ("present", "unobserved"):
        for name in table.datasets((), key):
            if sections.whole and name not in sections.dataset_names:
                yield (
                    ("knowledge", index, key, "dataset"),
                    _unknown("data set", name, sections.dataset_names),
                )
    if table.observed and len(table.observed) != table.characteristics:
        yield (
            ("knowledge", index, "characteristics"),
            f"observed names {len(table.observed)}, so expected characteristics = {len(table.observed)}, "
            f"got {table.characteristics}",
        )


def _characterised(index: int, table: KnowledgeTable) -> BrokenRules:
    path: Path = ("knowledge", index, "characterised")
    if table.characterised is None:
        return
    if not table.observed:
        yield path, "nothing is to be hidden where no C is observed: name characteristics of the data in observed"
    both = isinstance(table.labelled, int) and isinstance(table.characterised, int)
    if both and table.characterised > table.labelled:  # type: ignore[operator]
        yield (
            path,
            f"C is kept where the label is, so expected at most labelled = {table.labelled}, got {table.characterised}",
        )


def _exclusive(index: int, table: KnowledgeTable) -> BrokenRules:
    if table.exclusive and "each" not in [one for values in table.present.values() for one in every(values)]:
        yield (
            ("knowledge", index, "exclusive"),
            f"'{table.name}' is one knowledge type, and says by exclusive that it is present wherever nobody knows: "
            'expected a table of several, as in present = { dataset = "mnist", label = "each" }',
        )


def _distinct_knowledge(sections: Sections) -> BrokenRules:
    seen: dict[str, str] = {}
    for index, table in sections.knowledge.items():
        if other := seen.get(naming.key(table.name)):
            yield (
                ("knowledge", index, "name"),
                f"two knowledge types are called '{table.name}'{_alike(table.name, other, 'and')}: rename one",
            )
        seen.setdefault(naming.key(table.name), table.name)


def _alike(name: str, other: str, word: str = "as") -> str:
    return "" if other == name else f" ({word} '{other}': names must differ by more than case)"


def _implied(sections: Sections) -> BrokenRules:
    names = sections.knowledge_names
    for index, table in sections.knowledge.items():
        for name in table.implies:
            if name == table.name:
                yield ("knowledge", index, "implies"), f"'{name}' implies itself"
            elif sections.whole and not any(name == other or naming.could_be(name, other) for other in names):
                yield ("knowledge", index, "implies"), _unknown("knowledge type", name, names)


def _starts(sections: Sections) -> BrokenRules:
    names = sections.knowledge_names
    for index, table in sections.knowledge.items():
        if table.start is not None and sections.whole and not any(naming.could_be(table.start, name) for name in names):
            yield ("knowledge", index, "start"), _unknown("knowledge type", table.start, names)


def _added(sections: Sections, base: Base) -> BrokenRules:
    """What a spec may not do to what it adds to."""
    yield from _added_knowledge(sections, base)
    yield from _added_datasets(sections, base.config)
    if sections.evaluation is not None:
        yield from _added_titles(sections.evaluation, base.config.evaluation)


def _added_knowledge(sections: Sections, base: Base) -> BrokenRules:
    named = [table.name for table in base.config.knowledge]  # though its knowledge may have been removed
    older = {naming.key(name): name for name in (*named, *base.knowledge)}
    for index, knowledge in sections.knowledge.items():
        if other := older.get(naming.key(knowledge.name)):
            also = _alike(knowledge.name, other)
            yield (
                ("knowledge", index, "name"),
                f"the run has a knowledge type '{knowledge.name}' already{also}: choose another name",
            )


def _added_datasets(sections: Sections, config: Config) -> BrokenRules:
    weighted = any(table.weight is not None for table in config.datasets)
    known = {table.name: table for table in config.datasets}
    for index, dataset in sections.datasets.items():
        if dataset.name in known:
            for key, ours, theirs in _differing(dataset, known[dataset.name]):
                yield (
                    ("datasets", index, key),
                    f"the run has a data set '{dataset.name}' with {key} = {theirs!r}, got {ours!r}: give it another "
                    "name (and a type), or the run's arguments",
                )
        elif weighted != (dataset.weight is not None):
            wanted = "have a weight each: give this one too" if weighted else "have no weights: leave it out"
            yield ("datasets", index, "weight"), f"the data sets of the run {wanted}"


def _added_titles(evaluation: EvaluationTable, older: EvaluationTable) -> BrokenRules:
    for key in ("partitions", "means"):
        for title, globs in getattr(evaluation, key).items():
            theirs = getattr(older, key).get(title, globs)
            if theirs != globs:
                yield (
                    ("evaluation", key, title),
                    f"the run has '{title}' already, of {', '.join(theirs)}: choose another title",
                )


def _differing(ours: DatasetTable, theirs: DatasetTable) -> Iterator[tuple[str, object, object]]:
    """(key, ours, theirs) for each difference of two data set tables of one name."""
    if ours.type != theirs.type:
        yield "type", ours.type, theirs.type
        return
    if ours.weight is not None and ours.weight != theirs.weight:
        yield "weight", ours.weight, theirs.weight
    for key in dict.fromkeys([*ours.arguments, *theirs.arguments]):
        if ours.arguments.get(key) != theirs.arguments.get(key):
            yield key, ours.arguments.get(key), theirs.arguments.get(key)


def _globs(evaluation: EvaluationTable, sections: Sections) -> BrokenRules:
    names = _names(sections.knowledge)
    if not sections.whole or any("{" in name for name in names):
        return
    for key in ("partitions", "means"):
        for group, globs in getattr(evaluation, key).items():
            for glob in globs:
                if not any(fnmatchcase(name, glob) for name in names):
                    yield ("evaluation", key, group), _unknown("knowledge type", glob, names, verb="matches")


def _published(index: int, row: PublishedTable, sections: Sections) -> BrokenRules:
    if (row.bits_per_dim is None) == (row.bits_per_pixel is None):
        yield (
            ("published", index),
            "expected one of bits_per_dim and bits_per_pixel, in the unit of the source",
        )
    if sections.whole and row.dataset not in _names(sections.datasets):
        yield ("published", index, "dataset"), _unknown("data set", row.dataset, _names(sections.datasets))


def _unknown(what: str, name: str, known: list[str], *, verb: str = "is called") -> str:
    return f"no {what} {verb} '{name}'" + (nearest(name, known) or f" (there is {', '.join(known) or 'none'})")
