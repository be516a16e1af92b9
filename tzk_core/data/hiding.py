"""Which training samples keep their label and their C, where a [[knowledge]] table hides those of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tzk_core.data.annotation import Annotation
from tzk_core.data.ordering import natural_key
from tzk_core.data.protocol import Samples
from tzk_core.errors import TzkError
from tzk_core.random_streams import numpy_stream
from tzk_core.settings.table import Amount


@dataclass(frozen=True)
class Kept:
    """Of the training samples of one table: how many keep their label, of how many labels, and the same of C."""

    labelled: int
    labels: int
    characterised: int
    characteristics: int


def hide(
    annotation: Annotation, samples_by_dataset: Mapping[str, Samples], seed: int = 0
) -> tuple[Annotation, dict[str, Kept]]:
    """The annotation of these (training) samples less what its tables hide, and what each such table kept, by its name
    as written.

    A table that says `labelled` keeps the κ of so many samples, and one that says `characterised` the C of so many of
    those; all else of it becomes nan, in the data sets that it can be present in. In other data sets nothing changes.
    One choice holds for every knowledge type of a table: `digit-{label}` hides the same samples for all ten digits.

    Who keeps theirs is drawn by (seed, data set) alone and equally many of each value of the label columns that
    `present` names: the values take turns in natural order, and one that has no sample left is passed over. So a larger
    amount keeps all that a smaller one does; and two tables that name the same columns, such as `digit-{label}` and
    `even` (`label = [0, 2, 4, 6, 8]`), keep the labels of the same samples if their amounts are the same. A table
    without `labelled` keeps all: beside a hidden digit, an `even` that is not hidden says half of it.

    Raises TzkError for more than there are, and for so few that a knowledge type would keep no sample in which it is
    present.
    """
    presence = {name: values.clone() for name, values in annotation.presence.items()}
    characteristics = {
        name: {knowledge: C.clone() for knowledge, C in of.items()} for name, of in annotation.characteristics.items()
    }
    kept = {}
    for pattern, columns in _by_table(annotation).items():
        table, where = annotation.knowledge[columns[0]].table, f"[[knowledge]] '{pattern}'"
        labelled, characterised = table.labelled, table.characterised
        if labelled is None and characterised is None:
            continue
        label_columns = [column for column in annotation.knowledge[columns[0]].present if column != "dataset"]
        data = {
            name: samples
            for name, samples in samples_by_dataset.items()
            if _possible(annotation.knowledge[columns[0]].present, name, samples)
        }
        turns = _Turns(label_columns, data, seed)

        given = np.concatenate([np.empty((0, len(columns))), *(presence[name][:, columns].numpy() for name in data)])
        names = [annotation.names[column] for column in columns]
        labels = ~np.isnan(given).all(axis=1)
        keep = turns.first(labelled, "labelled", labels, given == 1, names, where)
        for name, rows in turns.rows.items():
            hidden = torch.from_numpy(np.flatnonzero(~keep[rows]))
            presence[name][hidden[:, None], torch.tensor(columns)] = torch.nan

        observed = [name for name in names if any(name in of for of in annotation.characteristics.values())]
        known = np.zeros((len(given), len(observed)), dtype=bool)
        for name, rows in turns.rows.items():
            for column, knowledge in enumerate(observed):
                known[rows, column] = ~characteristics[name][knowledge].isnan().any(dim=1).numpy()
        of_labelled = known & keep[:, None]
        keep_C = turns.first(characterised, "characterised", of_labelled.any(axis=1), of_labelled, observed, where)
        for name, rows in turns.rows.items():
            for knowledge in observed:
                characteristics[name][knowledge][torch.from_numpy(~keep_C[rows])] = torch.nan
        kept[pattern] = Kept(
            labelled=int(keep.sum()),
            labels=int(labels.sum()),
            characterised=int((of_labelled.any(axis=1) & keep_C).sum()),
            characteristics=int(known.any(axis=1).sum()),
        )
    return Annotation(annotation.knowledge, presence, characteristics), kept


class _Turns:
    """The samples of some data sets, one after the other, in an order in which the values of label columns take turns.

    rows: data set -> its places among all of these samples.
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
        drawn = [numpy_stream(seed, "labelled", name).permutation(len(samples)) for name, samples in data.items()]
        self._drawn = np.concatenate([np.empty(0, dtype=np.int64), *drawn])

    def first(
        self,
        amount: Amount | None,
        key: str,
        candidates: np.ndarray,
        present: np.ndarray,
        names: Sequence[str],
        where: str,
    ) -> np.ndarray:
        """`(n,)` bool: the first `amount` of the candidates, `(n,)` bool, to have their turn; None is all.

        present, `(n, k)` bool: the candidates that show the knowledge type of each of `names`, each of which has to be
        left with one if it had any.
        """
        if amount is None:
            return candidates
        order = self._order(np.flatnonzero(candidates))
        number = _number(amount, len(order), f"{where}: {key}")
        keep = np.zeros(len(candidates), dtype=bool)
        keep[order[:number]] = True
        had = present.any(axis=0)
        if len(lost := np.flatnonzero(had & ~present[keep].any(axis=0))):
            needed = int(present[order][:, had].argmax(axis=0).max()) + 1
            what = "C is known" if key == "characterised" else "is present"
            raise TzkError(
                f"{where}: {key} = {amount} keeps {number} of {len(order)} samples, none of them one in which "
                f"'{names[lost[0]]}' {what}: expected at least {needed}"
            )
        return keep

    def _order(self, candidates: np.ndarray) -> np.ndarray:
        """Places, `(m,)`, in the order in which they have their turn."""
        value = self._value[candidates]
        by_value = np.lexsort((self._drawn[candidates], value))
        turn = np.empty(len(candidates), dtype=np.int64)
        turn[by_value] = np.arange(len(candidates)) - np.searchsorted(value[by_value], value[by_value])
        return candidates[np.lexsort((value, turn))]


def _by_table(annotation: Annotation) -> dict[str, list[int]]:
    """Name of a table as written -> the columns of its knowledge types."""
    columns: dict[str, list[int]] = {}
    for column, knowledge in enumerate(annotation.knowledge):
        columns.setdefault(knowledge.table.name, []).append(column)
    return columns


def _possible(present: Mapping[str, Sequence[str]], dataset: str, samples: Samples) -> bool:
    """Whether the condition can hold in this data set: elsewhere absence is no label that somebody gave."""
    return bool(present) and all(
        dataset in values if column == "dataset" else column in samples.labels for column, values in present.items()
    )


def _natural_codes(values: np.ndarray) -> np.ndarray:
    """Each value's number among the different ones in natural order."""
    different, inverse = np.unique(values, return_inverse=True)
    number = np.empty(len(different), dtype=np.int64)
    number[sorted(range(len(different)), key=lambda i: natural_key(str(different[i])))] = np.arange(len(different))
    return number[inverse.reshape(-1)]


def _number(amount: Amount, available: int, where: str) -> int:
    """The amount as a number of samples; a share is rounded, but never to none."""
    whole = isinstance(amount, int)
    if available < (amount if whole else 1):
        raise TzkError(
            f"{where} = {amount}, but there are {available} training samples to keep it in: "
            + (f"expected at most {available}, or 1.0 for all" if available else "leave it out")
        )
    return int(amount) if whole else max(1, round(amount * available))
