"""Pictures of what a model decodes.

They are samples, and the plane of C of a knowledge type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tzk_core.knowledge import Knowledge
from tzk_core.model import TzK

SIDE = 21
"""Steps of the plane along each characteristic."""

REACH = 2.0
"""Standard deviations of p(C given κ=1) that the plane reaches to either side."""

CHUNK = 128
"""Images that are decoded together."""


@dataclass(frozen=True)
class Plane:
    """Decodings over the first one or two characteristics, the others in the middle.

    Attributes:
        values: C of every row of `images`, (rows * columns, c).
        images: (rows * columns, *shape), row by row: the first characteristic grows to the right, the second downwards
            in the order of the rows, from its largest value.
    """

    knowledge: str
    rows: int
    columns: int
    values: Tensor
    images: Tensor


def has_plane(knowledge: Knowledge) -> bool:
    """Whether C is continuous and has at least one dimension."""
    return knowledge.characteristics > 0 and knowledge.support() is None


@torch.no_grad()
def plane(model: TzK, name: str, side: int = SIDE) -> Plane:
    """Decode the plane of C of a knowledge type.

    It is decoded from the middle of p(z given C, κ=1).
    """
    knowledge = model.find(name)
    half = side // 2
    steps = torch.arange(-half, side - half) * (REACH / max(half, 1))  # with an exact middle
    upwards = steps.flip(0) if knowledge.characteristics > 1 else steps[:1] * 0
    second, first = torch.meshgrid(upwards, steps, indexing="ij")
    noise = torch.zeros(first.numel(), knowledge.characteristics)
    noise[:, 0] = first.reshape(-1)
    if knowledge.characteristics > 1:
        noise[:, 1] = second.reshape(-1)
    C = knowledge.imagine(noise.to(model.like))
    return Plane(name, len(upwards), side, C.cpu(), decoded(model, name, C))


@torch.no_grad()
def decoded(model: TzK, name: str, C: Tensor) -> Tensor:
    """T at C, (n, *shape), from the middle of p(z given C, κ=1).

    It is of the model's own type.
    """
    knowledge = model.find(name)
    parts = []
    for rows in C.to(model.like).split(CHUNK):
        z = knowledge.decode(rows, rows.new_zeros(len(rows), *model.latent_shape))
        parts.append(model.flow.transform.inverse(z)[0].cpu())
    return torch.cat(parts)


def place_on_plane(knowledge: Knowledge, C: Tensor) -> Tensor:
    """The place of C on the plane, (n, 2) in [0, 1].

    It is from the left and from the top; what is beyond lies on its edge.
    """
    standard = knowledge.characteristics_prior.standardise(C).clamp(-REACH, REACH)
    across = (standard[:, 0] + REACH) / (2 * REACH)
    if knowledge.characteristics < 2:
        return torch.stack([across, torch.full_like(across, 0.5)], 1)
    return torch.stack([across, 1 - (standard[:, 1] + REACH) / (2 * REACH)], 1)


@torch.no_grad()
def drawn(model: TzK, names: Sequence[str | None], *, count: int, temperature: float, seed: int) -> dict[str, Tensor]:
    """Samples, (count, *shape), by name, "prior" for None."""
    return {
        name or "prior": model.sample(count, name, temperature=temperature, seed=seed).float().cpu() for name in names
    }


def blown_share(samples: Tensor, reference: Tensor) -> float:
    """The share of samples that look like none of the reference.

    A sample is blown if it is not finite, or if a statistic of it lies further out than any reference sample by more
    than half of their range: mean, standard deviation and, of images, the mean difference between neighbours.

    Args:
        samples, reference: (n, *shape) and (m, *shape).
    """
    finite = samples.flatten(1).isfinite().all(1)
    reference = reference[reference.flatten(1).isfinite().all(1)]  # what has missing values is no measure
    if not len(reference):
        return (~finite).double().mean().item()
    theirs, own = _statistics(torch.nan_to_num(samples, nan=0.0, posinf=1e9, neginf=-1e9)), _statistics(reference)
    low, high = own.amin(0), own.amax(0)
    room = 0.5 * (high - low).clamp_min(1e-6)
    outside = ((theirs < low - room) | (theirs > high + room)).any(1)
    return (outside | ~finite).double().mean().item()


def change_of(plane: Plane, reference: Tensor) -> float:
    """How much the plane changes, relative to the reference.

    It is the standard deviation over the plane by that over the reference, means over dimensions.
    """
    return (plane.images.flatten(1).std(0).mean() / reference.flatten(1).std(0).mean().clamp_min(1e-9)).item()


def _statistics(T: Tensor) -> Tensor:
    """Mean, standard deviation and roughness, (n, 2 or 3)."""
    flat = T.double().flatten(1)
    columns = [flat.mean(1), flat.std(1) if flat.shape[1] > 1 else flat[:, 0]]
    if T.ndim == 4 and min(T.shape[2:]) > 1:
        across, down = T.double().diff(dim=3).abs().flatten(1), T.double().diff(dim=2).abs().flatten(1)
        columns.append((across.mean(1) + down.mean(1)) / 2)
    return torch.stack(columns, 1)
