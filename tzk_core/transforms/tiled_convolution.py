"""The paper's tiled invertible convolution (Fig. 2b); with 1×1 tiles, that of Glow (Fig. 2a)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tzk_core.errors import TzkError
from tzk_core.random_streams import stream
from tzk_core.transforms.bounds import soft_bound, soft_bound_inverse
from tzk_core.transforms.layer import Layer
from tzk_core.transforms.shrinkage import shrunk_covariance
from tzk_core.transforms.triangles import Triangles, few


class TiledConvolution(Layer):
    """One shared invertible matrix for every tile of (channels, height, width).

    A tile, as a vector, is multiplied by W = P L U: a fixed permutation P, a unit lower triangle L, and an upper
    triangle U whose diagonal is ± exp(s). Then log|det| = (number of tiles) Σ s.

    Args:
        shape: (channels, height, width); a vector, (n,), counts as n channels of one pixel.
        tile: the side of a tile, in pixels.
        channels: the channels of a tile, None for all; the matrix is d×d with d = channels · tile².
        initialisation: "identity" starts at W = 1, "orthogonal" at a random rotation. Identity is the default: mixing
            first smears the background spike that the first SymLog has to unfold.
        seed: of the random rotation.
        bound: a smooth bound on |s|.

    Raises:
        TzkError: if the tile does not divide the shape, or the initialisation is unknown.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        tile: int = 1,
        channels: int | None = None,
        *,
        initialisation: str = "identity",
        seed: int = 0,
        bound: float = 5.0,
    ) -> None:
        super().__init__()
        image = (shape[0], 1, 1) if len(shape) == 1 else tuple(shape)
        span = image[0] if channels is None else channels
        if span < 1 or tile < 1:
            raise TzkError(f"a tile of tiled-convolution spans at least 1 pixel and 1 channel; got {tile} and {span}")
        if len(image) != 3 or image[0] % span or image[1] % tile or image[2] % tile:
            raise TzkError(
                f"tiled-convolution expects (channels, height, width) divisible by its tile "
                f"({span}, {tile}, {tile}); got {tuple(shape)}"
            )
        self.output_shape = tuple(shape)
        self.tiles = (image[0] // span, image[1] // tile, image[2] // tile)
        self.tile = (span, tile, tile)
        self.bound = bound
        dims = math.prod(self.tile)
        self.triangles = nn.Parameter(torch.zeros(dims, dims))
        self.raw_log_diagonal = nn.Parameter(torch.zeros(dims))
        self.register_buffer("permutation", torch.arange(dims))
        self.register_buffer("sign", torch.ones(dims))
        self.permuted = initialisation == "orthogonal"
        if self.permuted:
            self._initialise_orthogonal(seed)
        elif initialisation != "identity":
            raise TzkError(f"tiled-convolution starts from 'identity' or 'orthogonal'; got {initialisation!r}")

    @torch.no_grad()
    def _initialise_orthogonal(self, seed: int) -> None:
        dims = len(self.sign)
        gaussian = torch.randn(dims, dims, generator=stream(seed, "tiled-convolution"), dtype=torch.float64)
        rotation = torch.linalg.qr(gaussian).Q
        permute, lower, upper = torch.linalg.lu(rotation)
        self.permutation.copy_(permute.argmax(1))
        self.sign.copy_(upper.diagonal().sign())
        self.raw_log_diagonal.copy_(soft_bound_inverse(upper.diagonal().abs().log(), self.bound))
        self.triangles.copy_(lower.tril(-1) + upper.triu(1))

    @torch.no_grad()
    def whiten(self, inputs: Tensor) -> None:
        """Set W so that the elements of a tile leave uncorrelated.

        Their mean variance is unchanged.

        W is the inverse square root of the covariance of all tiles, scaled to a mean variance of 1. Of all whitening
        matrices the symmetric one is the closest to the identity (Kessy, Lewin and Strimmer 2018). The covariance is
        shrunk, so that few samples give a W close to a diagonal.

        Args:
            inputs: (batch, *shape), not necessarily centred.
        """
        tiles = self.to_tiles(inputs - inputs.mean(0)).double()
        covariance = shrunk_covariance(tiles / tiles.square().mean().sqrt().clamp_min(1e-6))
        variances, axes = torch.linalg.eigh(covariance)
        root = torch.linalg.cholesky(axes * variances.rsqrt() @ axes.T)  # W = R Rᵀ = (R / r) (r Rᵀ), r its diagonal
        diagonal = root.diagonal()
        self.permutation.copy_(torch.arange(len(diagonal)))
        self.sign.fill_(1)
        self.raw_log_diagonal.copy_(soft_bound_inverse(2 * diagonal.log(), self.bound))
        self.triangles.copy_((root / diagonal).tril(-1) + (root * diagonal).T.triu(1))

    @property
    def adjacent(self) -> bool:
        """Whether the elements of a tile lie together in memory, and leave so."""
        return self.tiles[1:] == (1, 1) and not self.permuted

    @property
    def log_diagonal(self) -> Tensor:
        """s, (d,)."""
        return soft_bound(self.raw_log_diagonal, self.bound)

    def _factors(self) -> tuple[Tensor, Tensor]:
        """L and U, (d, d) each."""
        diagonal = self.sign * self.log_diagonal.exp()
        if torch.compiler.is_compiling():  # the compiler joins backward by itself
            identity = torch.eye(len(diagonal), dtype=diagonal.dtype, device=diagonal.device)
            return self.triangles.tril(-1) + identity, self.triangles.triu(1) + identity * diagonal
        lower, upper = Triangles.apply(self.triangles, diagonal)
        return lower, upper

    def weight(self) -> Tensor:
        """W = P L U, (d, d)."""
        lower, upper = self._factors()
        return (lower @ upper)[self.permutation]

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows = self.to_tiles(inputs)
        # with few rows, two products cost less than forming W first
        lower, upper = self._factors()
        outputs = rows @ upper.T @ lower.T if _few(rows) else rows @ (lower @ upper).T
        if self.permuted:
            outputs = outputs.index_select(1, self.permutation)
        return self.from_tiles(outputs, inputs), self._logabsdet(inputs.shape[0])

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows = self.to_tiles(inputs)
        if self.permuted:
            rows = rows.index_select(1, torch.argsort(self.permutation))
        lower, upper = self._factors()
        solved = torch.linalg.solve_triangular(lower, rows.T, upper=False, unitriangular=True)
        outputs = torch.linalg.solve_triangular(upper, solved, upper=True).T
        return self.from_tiles(outputs, inputs), -self._logabsdet(inputs.shape[0])

    def _logabsdet(self, batch: int) -> Tensor:
        return (math.prod(self.tiles) * self.log_diagonal.sum()).expand(batch)

    def to_tiles(self, inputs: Tensor) -> Tensor:
        """(batch, *shape) to (batch · tiles, d)."""
        sides = [side for pair in zip(self.tiles, self.tile, strict=True) for side in pair]
        return inputs.reshape(-1, *sides).permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, math.prod(self.tile))

    def from_tiles(self, rows: Tensor, like: Tensor) -> Tensor:
        """(batch · tiles, d) to the shape of `like`, (batch, *shape)."""
        return rows.view(-1, *self.tiles, *self.tile).permute(0, 1, 4, 2, 5, 3, 6).reshape(like.shape)


def _few(rows: Tensor) -> bool:
    """Whether there are fewer rows than columns.

    In a graph that is compiled for any number of rows: whether there can be.
    """
    if not torch.compiler.is_compiling():
        return few(rows)
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # slow to load, and the compiler has it

    return not statically_known_true(rows.shape[0] >= rows.shape[1])
