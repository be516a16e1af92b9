"""Which partitions and means an evaluation has samples for, from their labels alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor

from tzk_core.errors import TzkError

SHOWN = 8
"""So many names at most are listed in one sentence."""


@dataclass(frozen=True)
class Fit:
    """How knowledge types fit samples as a partition of them.

    decided: where the presence of all is known, (n,) bool.
    none: how many decided samples have none of them.
    several: how many samples are known to have more than one, decided or not.
    """

    decided: Tensor
    none: int
    several: int

    @classmethod
    def of(cls, presence: Tensor) -> Fit:
        """The fit of knowledge types with these columns, (n, members) in {0, 1, nan}."""
        decided, count = ~presence.isnan().any(1), presence.nansum(1)
        return cls(decided, int((decided & (count == 0)).sum()), int((count > 1).sum()))

    @property
    def whole(self) -> bool:
        """Whether it is a partition: all decided samples have just one, and some are decided."""
        return bool(self.decided.any()) and not self.none and not self.several

    @property
    def undecided(self) -> int:
        """How many samples have labels that do not decide."""
        return int((~self.decided).sum())

    def __str__(self) -> str:
        if not self.decided.any() and not self.several:
            return f"the labels of none of {len(self.decided)} samples decide"
        return f"{self.none} of {len(self.decided)} samples have none of them, and {self.several} have several"


@dataclass(frozen=True)
class Labels:
    """Presence in one split of every data set, (n, knowledge) in {0, 1, nan}."""

    split: str
    knowledge: tuple[str, ...]
    presence: Mapping[str, Tensor]

    def of(self, dataset: str, names: Iterable[str]) -> Tensor:
        """The columns of these knowledge types, (n, names)."""
        return self.presence[dataset][:, [self.knowledge.index(name) for name in names]]

    def present(self, dataset: str) -> set[str]:
        """The knowledge types that any sample of a data set is known to have."""
        any_sample = (self.presence[dataset] == 1).any(0).tolist()
        return {name for name, here in zip(self.knowledge, any_sample, strict=True) if here}

    def problems(self, partitions: Mapping[str, Sequence[str]], means: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """A sentence for every partition and mean that no data set can be evaluated by."""
        for title, members in partitions.items():
            fits = {dataset: Fit.of(self.of(dataset, members)) for dataset in self.presence}
            if not any(fit.whole for fit in fits.values()):
                details = "; ".join(f"in {dataset!r} {fit}" for dataset, fit in fits.items())
                yield (
                    f"[evaluation.partitions] {title!r} partitions no data set: it needs exactly one of its knowledge "
                    f"types present in each sample of one; of the {self.split} split, {details}"
                )
        for title, members in means.items():
            missing = {dataset: [m for m in members if m not in self.present(dataset)] for dataset in self.presence}
            if all(missing.values()):
                details = "; ".join(f"{dataset!r} has none of {listed(names)}" for dataset, names in missing.items())
                yield (
                    f"[evaluation.means] {title!r} is of no data set: it needs all of its knowledge types present in "
                    f"samples of one; of the {self.split} split, {details}"
                )

    def notes(self, partitions: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """A sentence for everything that is evaluated partly or not at all."""
        for title, members in partitions.items():
            for dataset, presence in self.presence.items():
                fit = Fit.of(self.of(dataset, members))
                if fit.whole and fit.undecided:
                    yield (
                        f"The partition {title!r} is evaluated on {len(presence) - fit.undecided} of {len(presence)} "
                        f"samples of {dataset!r} ({self.split}): the labels of the others do not say which they have."
                    )
        here = {dataset: self.present(dataset) for dataset in self.presence}
        if absent := [name for name in self.knowledge if not any(name in names for names in here.values())]:
            yield (
                f"Present in no sample of the {self.split} split, so that there is no likelihood given it: "
                f"{listed(absent)}."
            )
        for dataset, names in here.items():
            if self.knowledge and not names:
                yield (
                    f"No sample of {dataset!r} ({self.split}) is known to have any knowledge: of it there is the prior "
                    "alone."
                )


def matched(globs: Mapping[str, Sequence[str]], names: Sequence[str]) -> dict[str, list[str]]:
    """By title, the names that any of its globs matches, in their order.

    Raises:
        TzkError: for a glob that matches none.
    """
    for title, patterns in globs.items():
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise TzkError(
                    f"[evaluation] {title!r}: no knowledge type matches {pattern!r}; there is "
                    f"{listed(names) or 'no knowledge'}"
                )
    return {
        title: [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
        for title, patterns in globs.items()
    }


def listed(names: Sequence[str]) -> str:
    """The first few of some names, and how many more there are."""
    shown = ", ".join(names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
