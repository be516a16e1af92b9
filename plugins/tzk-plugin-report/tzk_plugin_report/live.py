"""A model that answers: samples with several knowledge types, and what an image shows."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tzk_plugin_outside.evidence import dequantised, evidence
from tzk_plugin_outside.reading import read_all, readers_of

from tzk_core.config import Config
from tzk_core.data.images import SUFFIXES
from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.units import bits_per_dim
from tzk_plugin_report import decoding, marginals
from tzk_plugin_report.sprites import is_image, sprite

MOST = 64
"""Samples of one answer."""

BEST = 5
"""Knowledge types that an image is told to show."""

BUDGET = 400_000


@dataclass(frozen=True)
class Wanted:
    """What samples have to be.

    Attributes:
        present, absent: names of knowledge types.
        characteristics: C of some of `present`, by name.
    """

    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    characteristics: Mapping[str, Tensor] | None = None
    temperature: float = 1.0
    count: int = 32
    seed: int = 0

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Wanted:
        """Read what the page sends.

        Raises:
            TzkError: for anything else than the keys and types that it sends.
        """
        if unknown := set(asked) - {"present", "absent", "characteristics", "temperature", "count", "seed"}:
            raise TzkError(f"unknown keys {', '.join(sorted(unknown))}")
        characteristics = asked.get("characteristics") or {}
        if not isinstance(characteristics, Mapping):
            raise TzkError("characteristics: expected an object, numbers by knowledge type")
        return cls(
            present=_names(asked.get("present", []), "present"),
            absent=_names(asked.get("absent", []), "absent"),
            characteristics={str(name): _numbers(values, str(name)) for name, values in characteristics.items()},
            temperature=_number(asked.get("temperature", 1.0), "temperature", within=(0, 10)),
            count=int(_number(asked.get("count", 32), "count", within=(1, MOST))),
            seed=int(_number(asked.get("seed", 0), "seed", within=(0, 2**31))),
        )


class Live:
    """A model, and the data sets as which it reads images."""

    def __init__(self, model: TzK, config: Config) -> None:
        self.model, self.config = model, config
        self.readers = readers_of(config, tuple(model.shape))

    def described(self) -> dict[str, Any]:
        """What the page offers to choose."""
        types = []
        for name, knowledge in self.model.named_knowledge():
            prior = knowledge.characteristics_prior
            fixed = decoding.has_plane(knowledge)
            types.append(
                {
                    "name": name,
                    "axes": self._axes(name) if fixed else [],
                    "middle": prior.mean_.double().tolist() if fixed else [],
                    "scale": prior.scale.double().tolist() if fixed else [],
                }
            )
        return {
            "types": types,
            "images": is_image(tuple(self.model.shape)),
            "datasets": list(self.readers),
            "temperature": self.config.pictures.temperature,
        }

    def _axes(self, name: str) -> list[str]:
        """Names of characteristics: those that the config observes, else C1, C2, ..."""
        count = self.model.find(name).characteristics
        for table in self.config.knowledge:
            stem = table.name.split("{")[0]
            if (
                table.observed
                and len(table.observed) == count
                and (name == table.name or (stem and name.startswith(stem)))
            ):
                return list(table.observed)
        return [f"C{i + 1}" for i in range(count)]

    @torch.no_grad()
    def sample(self, wanted: Wanted) -> dict[str, Any]:
        """Samples, as a picture or as numbers.

        Raises:
            TzkError: for unknown names, contradictions, and C of a wrong length.
        """
        T, particles = self._sampled(wanted)
        caption = " and ".join([*wanted.present, *(f"not {name}" for name in wanted.absent)]) or "the prior"
        caption = f"{len(T)} samples of {caption}, temperature {wanted.temperature:g}{particles}"
        answer: dict[str, Any] = {"caption": caption}
        if is_image(tuple(self.model.shape)):
            return answer | {"sprite": vars(sprite(T, 8, gap=1, budget=BUDGET))}
        return answer | {"rows": [row[: marginals.MOST] for row in marginals.rounded(T[:8])]}

    def _sampled(self, wanted: Wanted) -> tuple[Tensor, str]:
        """Samples, and how good those of a composition are.

        That is by how many particles they come from, and by what its discriminators say of them.
        """
        C = dict(wanted.characteristics) if wanted.characteristics else None
        if len(wanted.present) < 2 and not wanted.absent:
            drawn = self.model.sample(wanted.count, wanted.present, C, temperature=wanted.temperature, seed=wanted.seed)
            return drawn, ""
        composition = self.model.compose(
            *wanted.present, without=wanted.absent, characteristics=C, temperature=wanted.temperature
        )
        population = composition.populate(wanted.seed, n=wanted.count)
        share = min(composition.agreement(population).values())
        particles = f"{population.ess:.0f} of {len(population.noise):,} particles are effective"
        return (
            composition.sample(wanted.count, population, wanted.seed),
            f": {particles}, and the discriminator that agrees least gives {share:.0%}",
        )

    @torch.no_grad()
    def posterior(self, content: bytes, name: str, like: str | None) -> dict[str, Any]:
        """The knowledge that an image shows, and its score.

        It has p(κ=1 given T) and C of every knowledge type, the best first.

        Args:
            name: of the file; its suffix says how the image is written.
            like: the data set to read it as.

        Raises:
            TzkError: if it cannot be read as the data sets read images.
        """
        suffix = Path(name).suffix.lower()
        if suffix not in SUFFIXES:
            raise TzkError(f"expected an image ({' '.join(SUFFIXES)}); got a file that ends in {suffix or 'nothing'}")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"image{suffix}"
            file.write_bytes(content)
            try:
                read = read_all(file, self.readers, like)
            except TzkError as error:  # who dropped an image knows it by its own name
                raise TzkError(str(error).removeprefix("score: ").replace(str(file), name)) from None
        levels = next(iter(self.readers.values())).levels
        T = dequantised(read.T, levels, self.config.seed).to(self.model.like)
        names = tuple(self.model.knowledge)
        samples = self.config.evaluation.importance_samples
        scored = evidence(
            self.model, T, names, importance_samples=samples, seed=self.config.seed, levels=levels, first=0
        )
        posteriors = self.model.posterior(T)
        order = scored.log_ratio[0].argsort(descending=True).tolist() if names else []
        bits = bits_per_dim(float(scored.log_prob[0]), math.prod(self.model.shape), levels)
        return {
            "bits_per_dim": bits,
            "sprite": vars(sprite(T, 1, budget=20_000)),
            "best": [
                {
                    "name": names[i],
                    "gain_nats": float(scored.log_ratio[0, i]),
                    "presence": float(scored.log_presence[0, i].exp()),
                    "C": marginals.rounded(posteriors[names[i]].mean)[0],
                    "deviation": marginals.rounded(posteriors[names[i]].deviation)[0],
                    "axes": self._axes(names[i]),
                }
                for i in order[:BEST]
            ],
        }


def _names(value: Any, key: str) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(name, str) for name in value):
        raise TzkError(f"{key}: expected a list of names; got {value!r}")
    return tuple(value)


def _numbers(values: Any, key: str) -> Tensor:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TzkError(f"characteristics of {key}: expected a list of numbers; got {values!r}")
    return torch.tensor([_number(value, key, within=(-1e6, 1e6)) for value in values])


def _number(value: Any, key: str, *, within: tuple[float, float]) -> float:
    low, high = within
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise TzkError(f"{key}: expected a number from {low:g} to {high:g}; got {value!r}")
    return float(value)
