"""The learners beside TzK in incremental.py.

They see one class after the other and keep no images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from tzk_core.random_streams import seeded, stream


class Learner(Protocol):
    """Learns classes one by one; images are (n, channels, height, width) in [0, 1]."""

    def learn(self, images: Tensor) -> None:
        """Learn the next class from its images alone."""

    def scores(self, images: Tensor) -> Tensor:
        """The score of every class so far, (n, classes); the largest wins."""

    def bytes(self) -> int:
        """Bytes kept for the class learnt last."""


class ByClass:
    """Scores of every class by itself.

    Its column of the same images is computed once, as nothing can change it.
    """

    def __init__(self) -> None:
        self._images: Tensor | None = None
        self._prepared: Tensor | None = None
        self._columns: list[Tensor] = []

    def count(self) -> int:
        """The number of classes so far."""
        raise NotImplementedError

    def prepare(self, images: Tensor) -> Tensor:
        """What all classes see of the images."""
        return images.flatten(1)

    def column(self, number: int, prepared: Tensor) -> Tensor:
        """The scores of one class, (n,)."""
        raise NotImplementedError

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        if self._prepared is None or images is not self._images:
            self._images, self._prepared, self._columns = images, self.prepare(images), []
        for number in range(len(self._columns), self.count()):
            self._columns.append(self.column(number, self._prepared))
        return torch.stack(self._columns, 1)


class NearestMean:
    """The class whose mean image is nearest."""

    def __init__(self) -> None:
        self.means: list[Tensor] = []

    def learn(self, images: Tensor) -> None:
        self.means.append(images.flatten(1).mean(0))

    def scores(self, images: Tensor) -> Tensor:
        return -torch.cdist(images.flatten(1), torch.stack(self.means))

    def bytes(self) -> int:
        return self.means[-1].nbytes


class StreamingLDA:
    """Means of the classes, and one covariance within them (Hayes and Kanan 2020).

    Every class updates the covariance.

    With random Fourier features it is RanDumb (Prabhu et al. 2024), here with a whole class as one batch.
    """

    def __init__(self, features: Callable[[Tensor], Tensor], shrinkage: float) -> None:
        self.features, self.shrinkage = features, shrinkage
        self.means: list[Tensor] = []
        self.scatter: Tensor | None = None
        self.count = 0

    def learn(self, images: Tensor) -> None:
        mean = sum(self.features(part).sum(0) for part in images.split(1000)) / len(images)
        assert isinstance(mean, Tensor)
        self.means.append(mean)
        if self.scatter is None:
            self.scatter = torch.zeros(len(mean), len(mean))
        for part in images.split(1000):
            deviations = self.features(part) - mean
            self.scatter.addmm_(deviations.T, deviations)
        self.count += len(images)

    def scores(self, images: Tensor) -> Tensor:
        assert self.scatter is not None
        covariance = self.scatter / self.count
        identity = torch.eye(len(covariance)) * covariance.diagonal().mean()
        root = torch.linalg.cholesky((1 - self.shrinkage) * covariance + self.shrinkage * identity)
        means = torch.stack(self.means, 1)
        weights = torch.cholesky_solve(means, root)
        bias = 0.5 * (means * weights).sum(0)
        return torch.cat([self.features(part) @ weights - bias for part in images.split(1000)])

    def bytes(self) -> int:
        return self.means[-1].nbytes


def fourier(dims: int, number: int, *, width: float, seed: int) -> Callable[[Tensor], Tensor]:
    """Random Fourier features of exp(-width |x - x'|²), of flat x (Rahimi and Recht 2007)."""
    generator = stream(seed, "fourier")
    directions = math.sqrt(2 * width) * torch.randn(dims, number, generator=generator)
    phases = 2 * math.pi * torch.rand(number, generator=generator)
    return lambda images: math.sqrt(2 / number) * torch.cos(images.flatten(1) @ directions + phases)


class Autoencoder(nn.Module):
    """A variational autoencoder of grey levels as Bernoulli means (Kingma and Welling 2014)."""

    def __init__(self, dims: int, hidden: int, latents: int) -> None:
        super().__init__()
        self.latents = latents
        self.encoder = nn.Sequential(nn.Linear(dims, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latents))
        self.decoder = nn.Sequential(nn.Linear(latents, hidden), nn.ReLU(), nn.Linear(hidden, dims))

    def log_weights(self, x: Tensor, noise: Tensor) -> Tensor:
        """log p(x, u) - log q(u given x) of u sampled from q.

        Args:
            noise: (samples, n, latents).

        Returns:
            (samples, n).
        """
        mean, log_deviation = self.encoder(x).chunk(2, -1)
        u = mean + log_deviation.exp() * noise
        log_likelihood = -functional.binary_cross_entropy_with_logits(
            self.decoder(u), x.expand(len(noise), *x.shape), reduction="none"
        ).sum(-1)
        return log_likelihood + (0.5 * (noise.square() - u.square()) + log_deviation).sum(-1)


class AutoencoderPerClass(ByClass):
    """A small variational autoencoder for each class, and Bayes.

    The method is that of van de Ven, Li and Tolias (2021).
    """

    def __init__(self, *, hidden: int = 200, latents: int = 20, epochs: int = 5, samples: int = 10, seed: int = 0):
        super().__init__()
        self.hidden, self.latents, self.epochs, self.samples, self.seed = hidden, latents, epochs, samples, seed
        self.models: list[Autoencoder] = []

    def learn(self, images: Tensor) -> None:
        x, number = images.flatten(1), len(self.models)
        with seeded(self.seed, "autoencoder", number):
            model = Autoencoder(x.shape[1], self.hidden, self.latents)
        source = stream(self.seed, "autoencoder", number)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(x), generator=source).split(64):
                noise = torch.randn(1, len(rows), self.latents, generator=source)
                optimizer.zero_grad()
                (-model.log_weights(x[rows], noise).mean()).backward()
                optimizer.step()
        self.models.append(model)

    def count(self) -> int:
        return len(self.models)

    def column(self, number: int, prepared: Tensor) -> Tensor:
        source = stream(self.seed, "importance", number)
        parts = []
        for x in prepared.split(500):
            noise = torch.randn(self.samples, len(x), self.latents, generator=source)
            parts.append(self.models[number].log_weights(x, noise).logsumexp(0))
        return torch.cat(parts)

    def bytes(self) -> int:
        return sum(value.nbytes for value in self.models[-1].state_dict().values())
