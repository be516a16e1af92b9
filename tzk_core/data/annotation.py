"""Which knowledge is present in which sample, as the [[knowledge]] tables of a config say it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tzk_core import names as naming
from tzk_core.data.ordering import natural_key
from tzk_core.data.protocol import Samples
from tzk_core.errors import TzkError, nearest
from tzk_core.settings import KnowledgeTable
from tzk_core.settings.knowledge import Condition as Written
from tzk_core.settings.knowledge import every

EACH = "each"
Condition = dict[str, tuple[str, ...]]  # "dataset" or a label column -> the values that match


@dataclass(frozen=True)
class ExpandedKnowledge:
    """One knowledge type, after `digit-{label}` has become digit-0, digit-1, ...

    table: the table it came from, as written: its name is `digit-{label}` still.
    present, unobserved: conditions; an empty one matches nothing. implies: names of what contains it.
    observed: names of the data's characteristics or label columns that are its C, in order; empty if C is never
        observed.
    values: of those that are label columns the values, in natural order: C is the position of a sample's.
    """

    name: str
    table: KnowledgeTable
    present: Condition
    unobserved: Condition
    implies: tuple[str, ...]
    observed: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Annotation:
    """The knowledge of all data sets' samples.

    presence: data set -> `(n, knowledge)` float32 in {0, 1, nan}, nan where unobserved.
    characteristics: data set -> knowledge name -> `(n, c)` float32, rows of nan where not supplied.
    """

    knowledge: tuple[ExpandedKnowledge, ...]
    presence: dict[str, Tensor]
    characteristics: dict[str, dict[str, Tensor]]

    @property
    def names(self) -> tuple[str, ...]:
        """The knowledge types' names, in the order of the columns of `presence`."""
        return tuple(knowledge.name for knowledge in self.knowledge)

    def of(self, samples_by_dataset: Mapping[str, Samples]) -> Annotation:
        """The same knowledge on other samples: another split of the same data sets."""
        return _annotated(self.knowledge, samples_by_dataset)


def annotate(
    knowledge_tables: Sequence[KnowledgeTable],
    samples_by_dataset: Mapping[str, Samples],
    known: Collection[str] = (),
) -> Annotation:
    """Expand the tables (see `expand`) and annotate these (training) samples with their knowledge, all of it: what the
    tables hide, `hiding.hide` takes out."""
    return _annotated(tuple(expand(knowledge_tables, samples_by_dataset, known)), samples_by_dataset)


def expand(
    tables: Sequence[KnowledgeTable],
    samples_by_dataset: Mapping[str, Samples],
    known: Collection[str] = (),
) -> list[ExpandedKnowledge]:
    """The knowledge types that the tables ask for, in their order.

    A table whose `present` says `column = "each"` becomes one knowledge type for each value (for several such
    columns: each combination) that occurs in these samples, in natural order; its name has `{column}` where
    the value goes, and so may `implies`. What no name can hold, such as the "/" of "Greek/character24", is
    "-" there. Pass the training split, so that what exists does not depend on other data. `known` are names
    of knowledge that exists elsewhere, and that `implies` may name too.

    Raises TzkError for an unknown data set, column, value, characteristic or implied knowledge, and for two
    knowledge types of one name.
    """
    expanded = [knowledge for table in tables for knowledge in _expand_table(table, samples_by_dataset)]
    first: dict[str, str] = {}
    for name in (each.name for each in expanded):
        if other := first.get(naming.key(name)):
            also = "" if other == name else f", and '{other}', which differs by case or in what nobody sees"
            raise TzkError(f"[[knowledge]]: two knowledge types are called '{name}'{also}: give one another name")
        first[naming.key(name)] = name
    _check_implications({knowledge.name: knowledge.implies for knowledge in expanded}, known)
    return expanded


def presence(expanded: Sequence[ExpandedKnowledge], dataset_name: str, samples: Samples) -> Tensor:
    """`(n, knowledge)` float32: 1 where `present` matches, else nan where `unobserved` matches, else 0.

    A condition matches where the data set and every column it names have one of its values. A label that the
    data leaves empty is not known: where it decides, the knowledge is unobserved.
    """
    columns = [_presence_column(knowledge, dataset_name, samples) for knowledge in expanded]
    return torch.stack(columns, dim=1) if columns else torch.zeros(len(samples), 0)


def characteristics_of(
    expanded: Sequence[ExpandedKnowledge], dataset_name: str, samples: Samples
) -> dict[str, Tensor]:
    """knowledge name -> C as observed, `(n, c)` float32, for the knowledge types whose table says `observed`.

    A row is nan where the knowledge is not known to be present, or where the data does not supply all of it.
    """
    result = {}
    for knowledge in expanded:
        if not knowledge.observed:
            continue
        present = _presence_column(knowledge, dataset_name, samples)
        C = torch.stack([_characteristic(knowledge, name, samples) for name in knowledge.observed], dim=1)
        C[(present != 1) | C.isnan().any(dim=1)] = torch.nan
        result[knowledge.name] = C
    return result


def _characteristic(knowledge: ExpandedKnowledge, name: str, samples: Samples) -> Tensor:
    """A characteristic as the data supply it, or the position of a label among its column's values, `(n,)` float32;
    nan where there is none."""
    unknown = torch.full((len(samples),), torch.nan)
    if name not in knowledge.values:
        return samples.characteristics.get(name, unknown).float()
    position = {value: float(number) for number, value in enumerate(knowledge.values[name])}
    labels = samples.labels.get(name, ())
    return torch.tensor([position.get(label, torch.nan) for label in labels]) if len(labels) else unknown


def _annotated(
    knowledge: tuple[ExpandedKnowledge, ...], samples_by_dataset: Mapping[str, Samples]
) -> Annotation:
    return Annotation(
        knowledge,
        presence={name: presence(knowledge, name, samples) for name, samples in samples_by_dataset.items()},
        characteristics={
            name: characteristics_of(knowledge, name, samples) for name, samples in samples_by_dataset.items()
        },
    )


def _presence_column(knowledge: ExpandedKnowledge, dataset_name: str, samples: Samples) -> Tensor:
    present, undecided = _match(knowledge.present, dataset_name, samples)
    unobserved, _ = _match(knowledge.unobserved, dataset_name, samples)
    column = np.where(unobserved | undecided, np.nan, 0.0)
    return torch.as_tensor(np.where(present, 1.0, column), dtype=torch.float32)


def _match(condition: Condition, dataset_name: str, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Where the condition holds, `(n,)` bool, and where a label that is not known decides, `(n,)` bool."""
    possible = np.full(len(samples), bool(condition))
    known = np.full(len(samples), True)
    for column, values in condition.items():
        if column == "dataset":
            possible &= dataset_name in values
        elif column not in samples.labels:
            possible &= False
        else:
            number_of, numbers = samples.coded[column]
            empty = numbers == number_of.get("", -1)
            known &= ~empty
            possible &= np.isin(numbers, [number_of[value] for value in values if value in number_of]) | empty
    return possible & known, possible & ~known


def _expand_table(table: KnowledgeTable, data: Mapping[str, Samples]) -> Iterator[ExpandedKnowledge]:
    where = f"[[knowledge]] '{table.name}'"
    present = _condition(table.present, data, f"{where}: present")
    unobserved = _condition(table.unobserved, data, f"{where}: unobserved")
    if not present and not unobserved:
        raise TzkError(
            f"{where}: nothing says in which samples it is present: write, say, "
            f"present = {{ dataset = '{next(iter(data), 'mnist')}' }}"
        )
    each = [column for column, values in present.items() if values == (EACH,) and column != "dataset"]
    _check_placeholders(table.name, table.implies, each, where)
    _check_observed(table, data, where)
    supplied = {name for samples in data.values() for name in samples.characteristics}
    columns = {column: _values(column, data) for column in table.observed if column not in supplied}
    combinations = list(_combinations(each, present, data))
    _check_names(table.name, combinations, where)
    for values in combinations:
        filled = present | {column: (value,) for column, value in values.items()}
        filled_unobserved = {
            column: (values[column],) if column in values and allowed == (EACH,) else allowed
            for column, allowed in unobserved.items()
        }
        yield ExpandedKnowledge(
            name=naming.filled(table.name, values),
            table=table,
            present=filled,
            unobserved=filled_unobserved,
            implies=tuple(naming.filled(implied, values) for implied in table.implies),
            observed=table.observed,
            values=columns,
        )


def _condition(written: Written, data: Mapping[str, Samples], where: str) -> Condition:
    """The condition a config wrote, checked against the data: known data sets, columns and values only."""
    condition = {column: every(values) for column, values in written.items()}
    for name in condition.get("dataset", ()):
        if name not in data:
            raise TzkError(
                f"{where}: no data set '{name}': there is {_listed(data)}{nearest(name, list(data))}"
            )
    eligible = {name: data[name] for name in condition.get("dataset", data)}
    columns = sorted({column for samples in eligible.values() for column in samples.labels})
    for column, values in condition.items():
        if column == "dataset":
            continue
        if column not in columns:
            raise TzkError(
                f"{where}: no label column '{column}' in {_listed(eligible)}: "
                f"there is {_listed(columns)}{nearest(column, columns)}"
            )
        if values == (EACH,):
            continue
        occurring = _values(column, eligible)
        for value in values:
            if value not in occurring:
                raise TzkError(
                    f"{where}: no sample of {_listed(eligible)} has {column} = '{value}': "
                    f"there is {_listed(occurring)}{nearest(value, occurring)}"
                )
    return condition


def _values(column: str, data: Mapping[str, Samples]) -> tuple[str, ...]:
    """The values of a label column that occur in these samples, in natural order."""
    labels = [samples.labels[column] for samples in data.values() if column in samples.labels]
    return tuple(sorted(set(np.concatenate(labels).tolist()) - {""}, key=natural_key))


def _combinations(
    each: Sequence[str], present: Condition, data: Mapping[str, Samples]
) -> Iterator[dict[str, str]]:
    """Each combination of values of the columns `each` among samples that match the rest of the condition."""
    if not each:
        yield {}
        return
    rest = {column: values for column, values in present.items() if column not in each}
    found: set[tuple[str, ...]] = set()
    for name, samples in data.items():
        if all(column in samples.labels for column in each):
            matching = _match(rest, name, samples)[0] if rest else np.full(len(samples), True)
            columns = [samples.labels[column][matching].tolist() for column in each]
            found |= set(zip(*columns, strict=True))
    for values in sorted(found, key=lambda values: tuple(map(natural_key, values))):
        if all(values):
            yield dict(zip(each, values, strict=True))


def _check_placeholders(name: str, implies: Sequence[str], each: Sequence[str], where: str) -> None:
    """That every column that is "each" has its place in the name, or in what is implied, as the alphabet of a character
    has that occurs in one alphabet only."""
    found: set[str] = set()
    for text in (name, *implies):
        found |= _placeholders(text, where)
    for column in sorted(found - set(each)):
        raise TzkError(f'{where}: the name has {{{column}}}, so `present` must say {column} = "{EACH}"')
    for column in sorted(set(each) - found):
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
    supplied = sorted({name for samples in data.values() for name in (*samples.characteristics, *samples.labels)})
    for name in table.observed:
        if name not in supplied:
            raise TzkError(
                f"{where}: observed: no data set has a characteristic or a label column '{name}': "
                f"there is {_listed(supplied)}{nearest(name, supplied)}"
            )
    wanted = len(table.observed)
    if wanted and table.characteristics != wanted:
        raise TzkError(
            f"{where}: characteristics = {table.characteristics}, but observed names {wanted} of them: "
            f"expected characteristics = {wanted}"
        )


def _check_names(name: str, combinations: Sequence[Mapping[str, str]], where: str) -> None:
    """That what becomes of labels within a name can be one, and leaves the names of one table distinct."""
    first: dict[str, Mapping[str, str]] = {}
    for values in combinations:
        filled = naming.filled(name, values)
        advice = "or write a table for each value, with a name of its own"
        if message := naming.problem(filled):
            raise TzkError(f"{where}: of {_worded(values)}: {message}. Rename the label, {advice}")
        if (other := first.setdefault(naming.key(filled), values)) is not values:
            raise TzkError(
                f"{where}: {_worded(other)} and {_worded(values)} would both be called '{filled}' (what no name can "
                f"hold is '{naming.STAND_IN}' in it, and some file systems see no difference of case): rename one of "
                f"the labels, {advice}"
            )


def _worded(values: Mapping[str, str]) -> str:
    """`label = 'a' and kind = 'b'`, long labels cut."""
    short = {column: value if len(value) <= 40 else value[:40] + "..." for column, value in values.items()}
    return " and ".join(f"{column} = '{value}'" for column, value in short.items())


def _check_implications(implies: Mapping[str, Sequence[str]], known: Collection[str]) -> None:
    for name, implied in implies.items():
        for other in implied:
            if other not in implies and other not in known:
                raise TzkError(
                    f"[[knowledge]] '{name}': implies '{other}', which is not a knowledge type"
                    f"{nearest(other, [*implies, *known])}"
                )
    for name in implies:
        reached, waiting = set(), list(implies[name])
        while waiting:
            other = waiting.pop()
            if other not in reached:
                reached.add(other)
                waiting.extend(implies.get(other, ()))
        if name in reached:
            raise TzkError(f"[[knowledge]] '{name}': implies itself: take `implies` out of one of the circle")


def _listed(names: Any, most: int = 12) -> str:
    names = [f"'{name}'" for name in names]
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return ", ".join(names) if names else "none"
