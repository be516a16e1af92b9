"""Maps of pixels by shares of components that start as those of data."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from tzk_plugin_glow.knots import histogram
from tzk_plugin_glow.pixels import PixelMap


class FittedMap(PixelMap, nn.Module):
    """A map by logits of shares, less those of the shares in data.

    fitted: whether data were seen; a buffer, so that a map which was loaded is not fitted again.
    """

    fitted: Tensor

    def start(self) -> Tensor:
        return torch.zeros(self.count)

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        if self.fitted or not values.numel():
            return
        self._take(histogram(values, self.levels))
        self.fitted.fill_(value=True)

    @abstractmethod
    def _take(self, counts: Tensor) -> None:
        """Set components and shares from counts of the grey levels, (levels,) in float64."""
