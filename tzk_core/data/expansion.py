"""The knowledge types that [[knowledge]] tables of a config stand for, checked against the data."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tzk_core import names as naming
from tzk_core.data.conditions import DATASET, EACH, Condition, checked_condition, listed, matching, values_of
from tzk_core.data.ordering import natural_key
from tzk_core.data.protocol import Samples
from tzk_core.errors import TzkError, nearest
from tzk_core.settings import KnowledgeTable


@dataclass(frozen=True)
class ExpandedKnowledge:
    """One knowledge type, such as digit-0 from a table named `digit-{label}`.

    table: its table as written, whose name is the pattern, `digit-{label}`.
    present, unobserved: conditions; an empty one matches nothing.
    implies: names of the knowledge types that contain it.
    observed: the data's characteristics or label columns that are its C, in order; empty if C is never observed.
    values: by label column of these, its values in natural order; C is the position of a sample's value.
    """

    name: str
    table: KnowledgeTable
    present: Condition
    unobserved: Condition
    implies: tuple[str, ...]
    observed: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def expand(
    tables: Sequence[KnowledgeTable],
    samples_by_dataset: Mapping[str, Samples],
    known: Collection[str] = (),
) -> list[ExpandedKnowledge]:
    """The knowledge types of these tables, in their order.

    A table whose `present` says `column = "each"` becomes one knowledge type for each value that occurs in these
    samples, in natural order; for several such columns, for each combination. Its name has `{column}` in place of the
    value, and so may `implies`. Characters that a name cannot have, such as the "/" of "Greek/character24", become "-".

    Args:
        samples_by_dataset: the training split, so that the knowledge types do not depend on other data.
        known: names of knowledge types that exist elsewhere, which `implies` may name too.

    Raises:
        TzkError: for an unknown data set, column, value, characteristic or implied knowledge type, and for two
            knowledge types of one name.
    """
    expanded = [knowledge for table in tables for knowledge in _expand_table(table, samples_by_dataset)]
    first: dict[str, str] = {}
    for knowledge in expanded:
        name = knowledge.name
        if other := first.get(naming.key(name)):
            also = "" if other == name else f", and '{other}', which differs by case or in invisible characters"
            raise TzkError(f"[[knowledge]]: two knowledge types are called '{name}'{also}: rename one of them")
        first[naming.key(name)] = name
    _check_implications({knowledge.name: knowledge.implies for knowledge in expanded}, known)
    return expanded


def _expand_table(table: KnowledgeTable, data: Mapping[str, Samples]) -> Iterator[ExpandedKnowledge]:
    """The knowledge types of one table."""
    where = f"[[knowledge]] '{table.name}'"
    present = checked_condition(table.present, data, where=f"{where}: present")
    unobserved = checked_condition(table.unobserved, data, where=f"{where}: unobserved")
    if not present and not unobserved:
        raise TzkError(
            f"{where}: nothing says in which samples it is present: write, say, "
            f"present = {{ dataset = '{next(iter(data), 'mnist')}' }}"
        )
    columns = [column for column, values in present.items() if values == (EACH,) and column != DATASET]
    _check_placeholders(table.name, table.implies, columns=columns, where=where)
    _check_observed(table, data, where)
    characteristics = {name for samples in data.values() for name in samples.characteristics}
    combinations = list(_combinations(columns, present, data))
    _check_names(table.name, combinations, where)
    label_values = {column: values_of(column, data) for column in table.observed if column not in characteristics}
    for values in combinations:
        yield ExpandedKnowledge(
            name=naming.filled(table.name, values),
            table=table,
            present=present | {column: (value,) for column, value in values.items()},
            unobserved={
                column: (values[column],) if column in values and allowed == (EACH,) else allowed
                for column, allowed in unobserved.items()
            },
            implies=tuple(naming.filled(implied, values) for implied in table.implies),
            observed=table.observed,
            values=label_values,
        )


def _combinations(columns: Sequence[str], present: Condition, data: Mapping[str, Samples]) -> Iterator[dict[str, str]]:
    """Combinations of values of these columns, in samples that match the rest of the condition."""
    if not columns:
        yield {}
        return
    rest = {column: values for column, values in present.items() if column not in columns}
    combinations: set[tuple[str, ...]] = set()
    for name, samples in data.items():
        if all(column in samples.labels for column in columns):
            rows = matching(rest, name, samples)[0] if rest else np.ones(len(samples), dtype=bool)
            combinations |= set(zip(*(samples.labels[column][rows].tolist() for column in columns), strict=True))
    for values in sorted(combinations, key=lambda values: tuple(map(natural_key, values))):
        if all(values):
            yield dict(zip(columns, values, strict=True))


def _check_placeholders(pattern: str, implies: Sequence[str], *, columns: Sequence[str], where: str) -> None:
    """Check that every column with "each" has its place.

    That is in the name, or in what is implied. The latter is enough for the alphabet of a character that occurs in one
    alphabet only.
    """
    placeholders: set[str] = set()
    for text in (pattern, *implies):
        placeholders |= _placeholders(text, where)
    for column in sorted(placeholders - set(columns)):
        raise TzkError(f'{where}: the name has {{{column}}}, so `present` must say {column} = "{EACH}"')
    for column in sorted(set(columns) - placeholders):
        raise TzkError(
            f'{where}: `present` says {column} = "{EACH}", so the name must say where the value goes, '
            f"as in '{column}-{{{column}}}'"
        )


def _placeholders(text: str, where: str) -> set[str]:
    try:
        return set(naming.columns(text))
    except ValueError as error:
        raise TzkError(f"{where}: the name has an unmatched brace ({error})") from error


def _check_observed(table: KnowledgeTable, data: Mapping[str, Samples], where: str) -> None:
    """Check that the data have what is observed, and that C has as many dimensions."""
    supplied = sorted({name for samples in data.values() for name in (*samples.characteristics, *samples.labels)})
    for name in table.observed:
        if name not in supplied:
            raise TzkError(
                f"{where}: observed: no data set has a characteristic or a label column '{name}': "
                f"there is {listed(supplied)}{nearest(name, supplied)}"
            )
    count = len(table.observed)
    if count and table.characteristics != count:
        raise TzkError(
            f"{where}: characteristics = {table.characteristics}, but observed names {count} of them: "
            f"expected characteristics = {count}"
        )


def _check_names(pattern: str, combinations: Sequence[Mapping[str, str]], where: str) -> None:
    """Check that the names of one table can be names, and differ."""
    first: dict[str, Mapping[str, str]] = {}
    for values in combinations:
        name = naming.filled(pattern, values)
        advice = "or write a table for each value, with a name of its own"
        if message := naming.problem(name):
            raise TzkError(f"{where}: of {_shortened(values)}: {message}. Rename the label, {advice}")
        if (other := first.setdefault(naming.key(name), values)) is not values:
            raise TzkError(
                f"{where}: {_shortened(other)} and {_shortened(values)} would both be called '{name}' (what no name "
                f"can hold is '{naming.STAND_IN}' in it, and some file systems see no difference of case): rename one "
                f"of the labels, {advice}"
            )


def _shortened(values: Mapping[str, str]) -> str:
    """`label = 'a' and style = 'b'`, with long labels cut."""
    short = {column: value if len(value) <= 40 else value[:40] + "..." for column, value in values.items()}
    return " and ".join(f"{column} = '{value}'" for column, value in short.items())


def _check_implications(implies: Mapping[str, Sequence[str]], known: Collection[str]) -> None:
    """Check that every implied knowledge type exists, and that none implies itself."""
    for name, implied in implies.items():
        for other in implied:
            if other not in implies and other not in known:
                raise TzkError(
                    f"[[knowledge]] '{name}': implies '{other}', which is not a knowledge type"
                    f"{nearest(other, [*implies, *known])}"
                )
    for name in implies:
        if name in _reachable(name, implies):
            raise TzkError(f"[[knowledge]] '{name}': implies itself: take `implies` out of one of the circle")


def _reachable(name: str, implies: Mapping[str, Sequence[str]]) -> set[str]:
    """All that a knowledge type implies, directly or not."""
    reached, waiting = set(), list(implies[name])
    while waiting:
        other = waiting.pop()
        if other not in reached:
            reached.add(other)
            waiting.extend(implies.get(other, ()))
    return reached
