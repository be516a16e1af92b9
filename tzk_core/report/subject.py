"""The subject of pictures, a trained model on its test split.

With it is what a picture says of itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from tzk_core.report import views


@dataclass(frozen=True)
class Drawn:
    """A file of samples/.

    Attributes:
        file: its name in the folder.
        caption: one line below the picture.
        alt: its contents in words, for those who cannot see it.
    """

    file: str
    caption: str
    alt: str


class Subject:
    """A trained model, its test data and its results.

    Attributes:
        experiment: with the model, the config, and the samples of every split (`samples(dataset, "test")`).
        results: the contents of results.json.
        log: metrics.csv of the run; None without one.
    """

    def __init__(self, experiment: views.Experiment, results: Mapping[str, Any], log: Path | None = None) -> None:
        self.experiment, self.results, self.log = experiment, results, log
        self._tests = cache(lambda count: views.observations_to_show(experiment, count))

    @property
    def model(self) -> Any:
        """The trained `TzK`."""
        return self.experiment.model

    @property
    def images(self) -> bool:
        """Whether T is grey or RGB images."""
        shape = tuple(self.model.shape)
        return len(shape) == 3 and shape[0] in (1, 3)

    @property
    def planar(self) -> bool:
        """Whether T is points in the plane."""
        return tuple(self.model.shape) == (2,)

    @property
    def vectors(self) -> bool:
        """Whether T is vectors."""
        return len(self.model.shape) == 1

    def sample(self, count: int, name: str | None = None) -> Tensor:
        """Samples of p(T) or p(T given a knowledge type), (count, *shape).

        They have the temperature of the config.

        The config's seed makes them, so that the same model gives the same pictures.
        """
        names = () if name is None else (name,)
        return self.model.sample(count, *names, seed=self.experiment.config.seed, temperature=self._temperature)

    def tests(self, count: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Up to `count` test observations by data set, and by present knowledge type.

        They are spread over the split.
        """
        return self._tests(count)

    @cached_property
    def _temperature(self) -> float:
        return self.experiment.config.pictures.temperature

    @property
    def temperature(self) -> str:
        """`at temperature 0.7`; empty at 1."""
        return "" if self._temperature == 1 else f"at temperature {self._temperature:g}"

    @property
    def singles(self) -> list[str]:
        """Knowledge types with their own pictures: those of data sets, then others in no group."""
        grouped = {name for members in self.experiment.groups.values() for name in members}
        others = [name for name in self.experiment.knowledge_names if name not in grouped]
        return list(dict.fromkeys([*self.experiment.dataset_knowledge.values(), *others]))
