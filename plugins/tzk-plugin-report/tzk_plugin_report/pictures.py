"""Pictures of a page, from what was measured: with their captions and alternative texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tzk_core.units import NATS_PER_BIT
from tzk_plugin_report import held_out, marginals
from tzk_plugin_report.measuring import DATA_SETS, Measured, Placed
from tzk_plugin_report.sprites import Sprite, is_image, sprite

PLANES_BYTES = 2_000_000
"""Of all sprites of planes together; in text they take a third more."""

SAMPLES_BYTES = 900_000
PLACED_BYTES = 500_000
LARGEST_SPRITE = 150_000
COLUMNS = 8
VALUES = 8
"""Dimensions of a sample that is no image, from the first on, that are shown as numbers."""

TOGETHER = 8
"""Reconstructions of a knowledge type."""


@dataclass(frozen=True)
class Shown:
    sprite: Sprite
    caption: str
    alt: str


FIRST_ROWS = 10
"""Knowledge types of the first picture."""

FIRST_BYTES = 150_000


def first(measured: Measured, evaluated: Sequence[str]) -> Shown | None:
    """A row of samples for each member of the largest group.

    None without a group, or without images.

    Samples given a class are recognised by those who know the data, where samples of p(T) may not be.

    Args:
        evaluated: the knowledge types of the results, whose groups go first: of `tzk add` they are the new ones.
    """
    if not is_image(tuple(measured.model.shape)):
        return None
    groups = [found for found in measured.confusions if set(found.names) <= set(measured.samples)]
    if not groups:
        return None
    best = max(groups, key=lambda g: (set(g.names) <= set(evaluated), g.title != DATA_SETS, len(g.names)))
    members = list(best.names[:FIRST_ROWS])
    rows = torch.cat([measured.samples[name][:COLUMNS] for name in members])
    caption = f"Samples at temperature {measured.temperature:g}, a row for each of {', '.join(members)}."
    alt = f"{len(members)} rows of {COLUMNS} samples, one for each of {', '.join(members)}"
    return Shown(sprite(rows, COLUMNS, gap=1, budget=FIRST_BYTES), caption, alt)


def samples(measured: Measured) -> list[Shown]:
    """Samples of every knowledge type, those of groups first, and of the prior.

    There are none where data are no images.
    """
    if not is_image(tuple(measured.model.shape)):
        return []
    budget = _budget(SAMPLES_BYTES, len(measured.samples))
    return [
        Shown(
            sprite(images, COLUMNS, gap=1, budget=budget),
            name,
            f"{len(images)} samples of {'the prior' if name == 'prior' else name} at temperature "
            f"{measured.temperature:g}",
        )
        for name, images in _recognisable(measured)
    ]


def _recognisable(measured: Measured) -> list[tuple[str, Tensor]]:
    """Samples by name, of classes first, of all data last."""
    grouped = {name for found in measured.confusions for name in found.names if found.title != DATA_SETS}
    order = {True: 0, False: 1}
    named = [(name, images) for name, images in measured.samples.items() if name != "prior"]
    ordered = sorted(named, key=lambda pair: order[pair[0] in grouped])
    return [*ordered, ("prior", measured.samples["prior"])]


def reconstructions(measured: Measured) -> list[Shown]:
    """Test images above what is left of them through C."""
    if not is_image(tuple(measured.model.shape)):
        return []
    return [_pairs(name, placed) for name, placed in measured.placed.items()]


def _pairs(name: str, placed: Placed) -> Shown:
    count = min(TOGETHER, len(placed.through))
    rows = torch.cat([placed.T[:count], placed.through[:count]])
    alt = f"{count} test images of {name} above their reconstructions through C"
    return Shown(sprite(rows, count, gap=1, budget=20_000), name, alt)


def planes(measured: Measured) -> list[dict[str, Any]]:
    """The planes of C for the data of the page."""
    images = is_image(tuple(measured.model.shape))
    budget = _budget(PLANES_BYTES, len(measured.planes))
    placed_budget = _budget(PLACED_BYTES, len(measured.planes))
    return [
        {
            "name": name,
            "rows": plane.rows,
            "columns": plane.columns,
            "axes": list(measured.axes[name]),
            "C": marginals.rounded(plane.values),
            "sprite": vars(sprite(plane.images, plane.columns, budget=budget)) if images else None,
            "columns_of_T": None if images else list(measured.columns[: marginals.MOST]),
            "T": None if images else [row[: marginals.MOST] for row in marginals.rounded(plane.images)],
            "placed": _placed(measured.placed.get(name), images=images, budget=placed_budget),
        }
        for name, plane in measured.planes.items()
    ]


def _placed(placed: Placed | None, *, images: bool, budget: int) -> dict[str, Any] | None:
    if placed is None:
        return None
    return {
        "places": marginals.rounded(placed.places),
        "C": marginals.rounded(placed.C),
        "sprite": vars(sprite(placed.T, COLUMNS, budget=budget)) if images else None,
    }


def confusions(measured: Measured) -> list[dict[str, Any]]:
    """Confusion tables, cells in per cent and in one of five steps of colour."""
    return [
        {
            "title": confusion.title,
            "names": confusion.names,
            "sentence": _sentence(confusion),
            "rows": [
                {"name": name, "count": f"{int(count):,}", "cells": [_heat(value) for value in row]}
                for name, count, row in zip(
                    confusion.names, confusion.counts.tolist(), confusion.shares.tolist(), strict=True
                )
            ],
        }
        for confusion in measured.confusions
    ]


def _sentence(confusion: held_out.Confusion) -> str:
    right = (confusion.shares.diagonal().nan_to_num() * confusion.counts).sum() / confusion.counts.sum()
    text = f"{100 * right.item():.1f} % of {int(confusion.counts.sum()):,} test samples are taken for what they are"
    if worst := confusion.worst():
        text += f"; most often confused: {worst[0]}, taken for {worst[1]} in {100 * worst[2]:.1f} %"
    return text + "."


def _heat(value: float) -> dict[str, Any]:
    if math.isnan(value):
        return {"text": "—", "step": 0}
    step = sum(value >= bound for bound in (0.005, 0.05, 0.2, 0.5))
    return {"text": f"{100 * value:.0f}" if value >= 0.005 else "", "step": step}


def surprises(measured: Measured) -> list[dict[str, Any]]:
    """The least likely test samples of every data set."""
    return [
        {
            "dataset": dataset,
            "summary": f"half of {len(encoded.bits):,} test samples have "
            + _likelihood(encoded, encoded.bits.median().item(), most="at most", least="at least"),
            "shown": [
                _surprise(dataset, encoded, surprise, columns=measured.columns)
                for surprise in held_out.least_likely(encoded, columns=measured.columns)
            ],
        }
        for dataset, encoded in measured.encoded.items()
    ]


def _surprise(
    dataset: str, encoded: held_out.Encoded, surprise: held_out.Surprise, *, columns: Sequence[str]
) -> dict[str, Any]:
    T = encoded.split.T[surprise.index].float()
    known = [
        name
        for name, value in zip(encoded.split.knowledge, encoded.split.presence[surprise.index].tolist(), strict=True)
        if value == 1
    ]
    images = is_image(tuple(T.shape))
    return {
        "sprite": sprite(T.unsqueeze(0), 1, budget=4_000) if images else None,
        "numbers": ", ".join(
            f"{name} = {value:.4g}" for name, value in zip(columns, T.flatten()[:VALUES].tolist(), strict=False)
        ),
        "alt": f"test sample {surprise.index} of {dataset}",
        "likelihood": _likelihood(encoded, surprise.bits),
        "known": ", ".join(known),
        "why": "; ".join(surprise.reasons),
    }


def distributions(measured: Measured) -> list[dict[str, Any]]:
    """Histograms of test data and of samples.

    They are of data that are no images, where there are test data.
    """
    shape = tuple(measured.model.shape)
    if is_image(shape) or not measured.encoded:
        return []
    tests = {"prior": torch.cat([encoded.split.T for encoded in measured.encoded.values()])}
    tests |= {name: placed for name in measured.samples if (placed := _tests_of(measured, name)) is not None}
    return [
        {
            "name": name,
            "histograms": [
                (histogram, column_name(measured, histogram.dimension))
                for histogram in marginals.histograms(tests[name], measured.samples[name])
            ],
            "scatter": marginals.scatter(tests[name], measured.samples[name]) if math.prod(shape) == 2 else None,
            "axes": [column_name(measured, dimension) for dimension in (0, 1)] if math.prod(shape) == 2 else [],
        }
        for name in measured.samples
        if name in tests
    ]


def _tests_of(measured: Measured, name: str) -> Tensor | None:
    parts = [
        encoded.split.T[encoded.split.rows(name)]
        for encoded in measured.encoded.values()
        if name in encoded.split.knowledge
    ]
    parts = [part for part in parts if len(part)]
    return torch.cat(parts) if parts else None


def _likelihood(encoded: held_out.Encoded, bits: float, *, most: str = "", least: str = "") -> str:
    """Bits/dim after `most`; of real-valued data log p(T) in nats, after `least`."""
    if encoded.split.levels is not None:
        return f"{most} {bits:.2f} bits/dim".strip()
    nats = -bits * math.prod(encoded.split.T.shape[1:]) * NATS_PER_BIT
    return f"log p(T) of {least} {nats:.2f} nats".replace("  ", " ")


def column_name(measured: Measured, dimension: int) -> str:
    """The name of a dimension of T."""
    return measured.columns[dimension] if dimension < len(measured.columns) else f"T{dimension + 1}"


def _budget(total: int, count: int) -> int:
    """Bytes of each of `count` sprites."""
    return min(LARGEST_SPRITE, total // max(1, count))
