"""Hidden labels and characteristics of training samples, as [[knowledge]] tables ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tzk_core.data.annotation import Annotation
from tzk_core.data.conditions import DATASET
from tzk_core.data.ordering import natural_key
from tzk_core.data.protocol import Samples
from tzk_core.errors import TzkError
from tzk_core.random_streams import numpy_stream
from tzk_core.settings import KnowledgeTable
from tzk_core.settings.table import Amount


@dataclass(frozen=True)
class Kept:
    """What one table keeps: `labelled` of all `labels`, and `characterised` of all `characteristics`."""

    labelled: int
    labels: int
    characterised: int
    characteristics: int


def hide(
    annotation: Annotation, samples_by_dataset: Mapping[str, Samples], seed: int = 0
) -> tuple[Annotation, dict[str, Kept]]:
    """Hide labels and C of training samples, as their tables ask for.

    A table with `labelled` keeps the κ of so many samples, and one with `characterised` the C of so many of those. The
    rest becomes nan, in the data sets in which the knowledge can be present; other data sets do not change. One choice
    holds for every knowledge type of a table: `digit-{label}` hides the same samples for all ten digits.

    The choice depends on (seed, data set) alone, with equally many samples of each value of the label columns that
    `present` names. The values take turns in natural order; one that has no sample left is passed over. A larger amount
    therefore keeps all that a smaller one does. Two tables with the same columns and amount, such as `digit-{label}`
    and `even` (`label = [0, 2, 4, 6, 8]`), keep the labels of the same samples. A table without `labelled` keeps all:
    an `even` that is not hidden gives away half of a hidden digit.

    Returns:
        The annotation with nan where it is hidden, and what was kept, by the name of the table as written.

    Raises:
        TzkError: for an amount larger than the number of candidates, or so small that a knowledge type would keep no
            sample in which it is present.
    """
    annotation = Annotation(
        annotation.knowledge,
        {name: values.clone() for name, values in annotation.presence.items()},
        {
            name: {knowledge: C.clone() for knowledge, C in table.items()}
            for name, table in annotation.characteristics.items()
        },
    )
    kept = {}
    for pattern, columns in _by_table(annotation).items():
        table = annotation.knowledge[columns[0]].table
        if table.labelled is None and table.characterised is None:
            continue
        present = annotation.knowledge[columns[0]].present
        data = {name: samples for name, samples in samples_by_dataset.items() if _possible(present, name, samples)}
        turns = _Turns([column for column in present if column != DATASET], data, seed)
        labels, is_labelled = _hide_labels(annotation, columns, turns)
        characteristics, is_characterised = _hide_characteristics(annotation, columns, turns, is_labelled=is_labelled)
        kept[pattern] = Kept(
            labelled=int(is_labelled.sum()),
            labels=int(labels.sum()),
            characterised=int(is_characterised.sum()),
            characteristics=int(characteristics.sum()),
        )
    return annotation, kept


def _hide_labels(annotation: Annotation, columns: Sequence[int], turns: _Turns) -> tuple[np.ndarray, np.ndarray]:
    """Hide κ of the knowledge types of one table, in place.

    Returns:
        Where samples have a label, and where they keep it, (n,) bool each.
    """
    presence = annotation.presence
    before = [np.empty((0, len(columns))), *(presence[name][:, columns].numpy() for name in turns.rows)]
    observed = np.concatenate(before)
    names = [annotation.names[column] for column in columns]
    has_label = ~np.isnan(observed).all(axis=1)
    table = annotation.knowledge[columns[0]].table
    keeps = turns.first(table.labelled, has_label, observed == 1, names=names, where=_where(table, "labelled"))
    for name, rows in turns.rows.items():
        hidden = torch.from_numpy(np.flatnonzero(~keeps[rows]))
        presence[name][hidden[:, None], torch.tensor(columns)] = torch.nan
    return has_label, keeps


def _hide_characteristics(
    annotation: Annotation, columns: Sequence[int], turns: _Turns, *, is_labelled: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Hide C of the knowledge types of one table, in place.

    Samples without a label lose theirs.

    Returns:
        Where samples have a C, and where they keep it, (n,) bool each.
    """
    characteristics = annotation.characteristics
    names = [annotation.names[column] for column in columns]
    names = [name for name in names if any(name in table for table in characteristics.values())]
    known = np.zeros((len(is_labelled), len(names)), dtype=bool)
    for dataset, rows in turns.rows.items():
        for column, name in enumerate(names):
            known[rows, column] = ~characteristics[dataset][name].isnan().any(dim=1).numpy()
    of_labelled = known & is_labelled[:, None]
    candidates = of_labelled.any(axis=1)
    table = annotation.knowledge[columns[0]].table
    where, state = _where(table, "characterised"), "C is known"
    keeps = turns.first(table.characterised, candidates, of_labelled, names=names, where=where, state=state)
    for dataset, rows in turns.rows.items():
        for name in names:
            characteristics[dataset][name][torch.from_numpy(~keeps[rows])] = torch.nan
    return np.asarray(known.any(axis=1)), candidates & keeps


def _where(table: KnowledgeTable, key: str) -> str:
    """The place of a key in the config, for messages."""
    return f"[[knowledge]] '{table.name}': {key}"


class _Turns:
    """Samples of several data sets, in turns of the values of label columns.

    rows: by data set, its positions among all of these samples.
    """

    def __init__(self, columns: Sequence[str], data: Mapping[str, Samples], seed: int) -> None:
        stops = np.cumsum([0, *map(len, data.values())]).tolist()
        self.rows = {name: slice(*ends) for name, ends in zip(data, zip(stops, stops[1:], strict=False), strict=False)}
        codes = [
            _natural_codes(np.concatenate([samples.labels[column] for samples in data.values()]))
            for column in (columns if data else ())
        ]
        codes.append(np.repeat(np.arange(len(data)), np.diff(stops)))
        self._value = np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
        ranks = [numpy_stream(seed, "labelled", name).permutation(len(samples)) for name, samples in data.items()]
        self._rank = np.concatenate([np.empty(0, dtype=np.int64), *ranks])

    def first(
        self,
        amount: Amount | None,
        candidates: np.ndarray,
        present: np.ndarray,
        *,
        names: Sequence[str],
        where: str,
        state: str = "is present",
    ) -> np.ndarray:
        """The first `amount` of the candidates to have their turn, (n,) bool.

        Args:
            amount: None for all.
            candidates: (n,) bool.
            present: (n, k) bool, the candidates in which the knowledge types of `names` are present.
            where: the place in the config, with which messages begin.
            state: what `present` says of a knowledge type, for the message.

        Raises:
            TzkError: if a knowledge type would lose all of its candidates, or the amount is too large.
        """
        if amount is None:
            return candidates
        order = self._order(np.flatnonzero(candidates))
        number = _number(amount, len(order), where)
        keep = np.zeros(len(candidates), dtype=bool)
        keep[order[:number]] = True
        had = present.any(axis=0)
        if len(lost := np.flatnonzero(had & ~present[keep].any(axis=0))):
            needed = int(present[order][:, had].argmax(axis=0).max()) + 1
            raise TzkError(
                f"{where} = {amount} keeps {number} of {len(order)} samples, none of them one in which "
                f"'{names[lost[0]]}' {state}: expected at least {needed}"
            )
        return keep

    def _order(self, candidates: np.ndarray) -> np.ndarray:
        """Positions, (m,), in the order of their turns."""
        value = self._value[candidates]
        by_value = np.lexsort((self._rank[candidates], value))
        turn = np.empty(len(candidates), dtype=np.int64)
        turn[by_value] = np.arange(len(candidates)) - np.searchsorted(value[by_value], value[by_value])
        return candidates[np.lexsort((value, turn))]


def _by_table(annotation: Annotation) -> dict[str, list[int]]:
    """Columns of knowledge types, by the name of their table as written."""
    columns: dict[str, list[int]] = {}
    for column, knowledge in enumerate(annotation.knowledge):
        columns.setdefault(knowledge.table.name, []).append(column)
    return columns


def _possible(present: Mapping[str, Sequence[str]], dataset: str, samples: Samples) -> bool:
    """Whether the condition can hold in this data set; elsewhere absence is not a label."""
    return bool(present) and all(
        dataset in values if column == DATASET else column in samples.labels for column, values in present.items()
    )


def _natural_codes(values: np.ndarray) -> np.ndarray:
    """The positions of values among the different ones, in natural order."""
    different, inverse = np.unique(values, return_inverse=True)
    number = np.empty(len(different), dtype=np.int64)
    number[sorted(range(len(different)), key=lambda i: natural_key(str(different[i])))] = np.arange(len(different))
    return number[inverse.reshape(-1)]


def _number(amount: Amount, available: int, where: str) -> int:
    """The amount as a number of samples; a share is rounded, but not to 0.

    Raises:
        TzkError: if it is larger than what is available.
    """
    whole = isinstance(amount, int)
    if available < (amount if whole else 1):
        raise TzkError(
            f"{where} = {amount}, but there are {available} training samples to keep it in: "
            + (f"expected at most {available}, or 1.0 for all" if available else "leave it out")
        )
    return int(amount) if whole else max(1, round(amount * available))
