"""Presence and observed characteristics of knowledge types, by sample."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tzk_core.data.conditions import matching
from tzk_core.data.expansion import ExpandedKnowledge, expand
from tzk_core.data.protocol import Samples
from tzk_core.settings import KnowledgeTable


@dataclass(frozen=True)
class Annotation:
    """The knowledge of the samples of all data sets.

    presence: (n, knowledge) float32 in {0, 1, nan} by data set, nan where unobserved.
    characteristics: (n, c) float32 by data set and knowledge type, rows of nan where C is not observed.
    """

    knowledge: tuple[ExpandedKnowledge, ...]
    presence: dict[str, Tensor]
    characteristics: dict[str, dict[str, Tensor]]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the knowledge types, in the order of the columns of `presence`."""
        return tuple(knowledge.name for knowledge in self.knowledge)

    def of(self, samples_by_dataset: Mapping[str, Samples]) -> Annotation:
        """Annotate other samples, such as another split of the same data sets."""
        return _annotated(self.knowledge, samples_by_dataset)


def annotate(
    knowledge_tables: Sequence[KnowledgeTable],
    samples_by_dataset: Mapping[str, Samples],
    known: Collection[str] = (),
) -> Annotation:
    """Expand tables and annotate training samples with all of their knowledge.

    Nothing is hidden here; that is left to `hiding.hide`. The arguments and errors are those of `expand`.
    """
    return _annotated(tuple(expand(knowledge_tables, samples_by_dataset, known)), samples_by_dataset)


def presence(expanded: Sequence[ExpandedKnowledge], dataset_name: str, samples: Samples) -> Tensor:
    """1 where `present` matches, else nan where `unobserved` matches, else 0; (n, knowledge) float32.

    A condition matches where the data set, and every column that it names, have one of its values. An empty label is
    not known: where it decides, the knowledge is unobserved.
    """
    columns = [_presence_column(knowledge, dataset_name, samples) for knowledge in expanded]
    return torch.stack(columns, dim=1) if columns else torch.zeros(len(samples), 0)


def characteristics_of(expanded: Sequence[ExpandedKnowledge], dataset_name: str, samples: Samples) -> dict[str, Tensor]:
    """Observed C by knowledge type, (n, c) float32, for those whose table says `observed`.

    A row is nan where the knowledge is not known to be present, or where the data do not have all of its C.
    """
    characteristics = {}
    for knowledge in expanded:
        if not knowledge.observed:
            continue
        present = _presence_column(knowledge, dataset_name, samples)
        C = torch.stack([_characteristic(knowledge, name, samples) for name in knowledge.observed], dim=1)
        C[(present != 1) | C.isnan().any(dim=1)] = torch.nan
        characteristics[knowledge.name] = C
    return characteristics


def _characteristic(knowledge: ExpandedKnowledge, name: str, samples: Samples) -> Tensor:
    """One dimension of C, (n,) float32, nan where it is not known.

    It is a characteristic of the data, or the position of a label among the values of its column.
    """
    unknown = torch.full((len(samples),), torch.nan)
    if name not in knowledge.values:
        return samples.characteristics.get(name, unknown).float()
    position = {value: float(number) for number, value in enumerate(knowledge.values[name])}
    labels = samples.labels.get(name, ())
    return torch.tensor([position.get(label, torch.nan) for label in labels]) if len(labels) else unknown


def _annotated(knowledge: tuple[ExpandedKnowledge, ...], samples_by_dataset: Mapping[str, Samples]) -> Annotation:
    return Annotation(
        knowledge,
        presence={name: presence(knowledge, name, samples) for name, samples in samples_by_dataset.items()},
        characteristics={
            name: characteristics_of(knowledge, name, samples) for name, samples in samples_by_dataset.items()
        },
    )


def _presence_column(knowledge: ExpandedKnowledge, dataset_name: str, samples: Samples) -> Tensor:
    present, undecided = matching(knowledge.present, dataset_name, samples)
    unobserved, _ = matching(knowledge.unobserved, dataset_name, samples)
    column = np.where(unobserved | undecided, np.nan, 0.0)
    return torch.as_tensor(np.where(present, 1.0, column), dtype=torch.float32)
