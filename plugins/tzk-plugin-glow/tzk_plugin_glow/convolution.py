"""The invertible 1×1 convolution (Glow, Section 3.2) as P L U."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tzk_core.errors import TzkError
from tzk_core.random_streams import stream
from tzk_core.transforms.bounds import soft_bound, soft_bound_inverse
from tzk_core.transforms.layer import Layer


class PointwiseConvolution(Layer):
    """The product of the channels at every place with W = P L U.

    P is a fixed permutation, L a unit lower triangle, U an upper triangle with the diagonal ± exp(s), so that
    log|det| = height · width · Σ s. The inverse solves both triangles.

    shape: (channels, height, width).
    initialisation: "orthogonal" for a random rotation, sampled by `seed`, or "identity" for W = 1.
    bound: of s, smoothly, on both sides.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(
        self, shape: tuple[int, ...], initialisation: str = "orthogonal", seed: int = 0, *, bound: float = 5.0
    ) -> None:
        super().__init__()
        if len(shape) != 3:
            raise TzkError(f"pointwise-convolution expects (channels, height, width); got {tuple(shape)}")
        if initialisation not in ("identity", "orthogonal"):
            raise TzkError(f"pointwise-convolution starts from 'identity' or 'orthogonal'; got {initialisation!r}")
        self.output_shape = tuple(shape)
        self.bound = bound
        channels = shape[0]
        rotation = torch.eye(channels, dtype=torch.float64)
        if initialisation == "orthogonal":
            generator = stream(seed, "pointwise-convolution")
            rotation = torch.linalg.qr(torch.randn(channels, channels, generator=generator, dtype=torch.float64)).Q
        permute, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        log_diagonal = soft_bound_inverse(diagonal.abs().log(), bound)
        self.triangles = nn.Parameter((lower.tril(-1) + upper.triu(1)).float())
        self.raw_log_diagonal = nn.Parameter(log_diagonal.float())
        self.register_buffer("permutation", permute.argmax(1))
        self.register_buffer("sign", diagonal.sign().float())

    @property
    def log_diagonal(self) -> Tensor:
        return soft_bound(self.raw_log_diagonal, self.bound)

    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """L and U, (channels, channels), and log|det| of one place."""
        log_diagonal = self.log_diagonal
        lower = self.triangles.tril(-1) + torch.eye(len(self.sign), dtype=self.sign.dtype, device=self.sign.device)
        upper = self.triangles.triu(1) + torch.diag_embed(self.sign * log_diagonal.exp())
        return lower, upper, log_diagonal.sum()

    def weight(self) -> Tensor:
        """W = P L U, (channels, channels)."""
        lower, upper, _ = self._factors()
        return (lower @ upper)[self.permutation]

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper, logabsdet = self._factors()
        weight = (lower @ upper)[self.permutation]
        outputs = functional.conv2d(inputs, weight[:, :, None, None])
        return outputs, (inputs.shape[2] * inputs.shape[3] * logabsdet).expand(inputs.shape[0])

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper, logabsdet = self._factors()
        columns = inputs.transpose(0, 1).flatten(1)[torch.argsort(self.permutation)]
        solved = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        solved = torch.linalg.solve_triangular(upper, solved, upper=True)
        outputs = solved.unflatten(1, (inputs.shape[0], *inputs.shape[2:])).transpose(0, 1).contiguous()
        return outputs, (-inputs.shape[2] * inputs.shape[3] * logabsdet).expand(inputs.shape[0])
