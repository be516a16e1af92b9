"""The scores beside TzK's in strangers.py, fitted to the same training images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tzk_core.random_streams import seeded, stream

DIRECTIONS, NEIGHBOURS = 64, 6000


class Network:
    """A plain convolutional network for classes; its score is the largest softmax probability.

    Args:
        images: (n, 1, side, side). classes: (n,), integers.
    """

    def __init__(self, images: Tensor, classes: Tensor, *, epochs: int = 4, seed: int = 0) -> None:
        number, side = int(classes.max()) + 1, images.shape[-1] // 4
        with seeded(seed, "network"):
            self.layers = nn.Sequential(
                *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Flatten(), nn.Linear(32 * side * side, 128), nn.ReLU(), nn.Linear(128, number)),
            )
        optimizer, source = torch.optim.Adam(self.layers.parameters(), lr=1e-3), stream(seed, "network")
        for _ in range(epochs):
            for rows in torch.randperm(len(images), generator=source).split(100):
                optimizer.zero_grad()
                functional.cross_entropy(self.layers(images[rows]), classes[rows]).backward()
                optimizer.step()

    @torch.no_grad()
    def log_probabilities(self, images: Tensor) -> Tensor:
        """(n, classes)."""
        return torch.cat([self.layers(part).log_softmax(1) for part in images.split(500)])

    def score(self, images: Tensor) -> Tensor:
        return self.log_probabilities(images).max(1).values


class Nearest:
    """Minus the distance to the nearest training image, in pixels."""

    def __init__(self, images: Tensor) -> None:
        self.images = images[:NEIGHBOURS].flatten(1)

    def score(self, images: Tensor) -> Tensor:
        return -torch.cat([torch.cdist(part, self.images).min(1).values for part in images.flatten(1).split(500)])


class Principal:
    """Minus the distance to the plane of the leading principal directions."""

    def __init__(self, images: Tensor) -> None:
        x = images.flatten(1)
        self.mean = x.mean(0)
        self.axes = torch.linalg.eigh((x - self.mean).T @ (x - self.mean)).eigenvectors[:, -DIRECTIONS:]

    def score(self, images: Tensor) -> Tensor:
        x = images.flatten(1) - self.mean
        return -(x - x @ self.axes @ self.axes.T).norm(dim=1)
