"""Several runs in one table: their likelihoods, sizes and training times.

    python examples/baselines/table.py runs/maf runs/maf-class runs/vae

Prints Markdown, a table for each data set, best first. A row is p(T) of a shared flow, or p(T given κ=1) of a knowledge
type on the samples that have it. The shared flow of recipe "logit", which only preprocesses, has no row. With "C summed
out" the class is not known: p(T) = mean over y of p(T given y), as published for class-conditional networks. With
"label known" it is: the mean over classes of log p(T given its own class). These are two quantities. Parameters are
those of the row's own parts, with encoder and discriminator, and a dash where a run has no checkpoint; seconds are
wall-clock time. Published rows and the per-pixel histogram are in italics, once per table.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tzk_core
from tzk_core.cli import edge
from tzk_core.report.table import FEWEST, aligned

HEADER = ["model", "row", "bits/pixel", "bits/dim", "±", "estimate", "parameters", "steps", "batch", "seconds"]
OURS = ("prior", "knowledge", "mixture")


def rows_of(folder: Path) -> Iterator[tuple[str, float, list[str]]]:
    """Data set, sort key and cells of the rows of one run."""
    results, run = (json.loads((folder / name).read_text()) for name in ("results.json", "run.json"))
    config = tomllib.loads((folder / "config.toml").read_text())
    sizes = parameters_of(folder) if (folder / "checkpoint").is_dir() else {}
    trained = [f"{config['training'][key]:,}" for key in ("steps", "batch_size")]
    trained.append(f"{run['timings']['training_seconds']:.0f}")
    for row in results["rows"]:
        ours = row["kind"] in OURS
        if row["kind"] == "prior" and config["flow"].get("recipe") == "logit":
            continue
        size = sizes.get("", 0) + sizes.get(row["knowledge"] or "", 0) if row["knowledge"] else sizes.get("", 0)
        name = run["name"] if ours else f"*{row['name']}*"
        units = [decimals(row.get(key)) for key in ("bits_per_pixel", "bits_per_dim")]
        yield (
            row["dataset"],
            row.get("bits_per_dim") or row.get("bits_per_pixel") or 0.0,
            [name, quantity(row) if ours else row["kind"], *units, error(row), estimate(row)]
            + ([f"{size:,}" if size else "—", *trained] if ours else ["—"] * 4),
        )


def parameters_of(folder: Path) -> dict[str, int]:
    """Numbers of parameters by knowledge type; the shared flow has the empty name."""
    model = tzk_core.load(folder)
    parts = {"": model.flow, **dict(model.named_knowledge())}
    return {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}


def quantity(row: Mapping[str, Any]) -> str:
    """The name of a row, and whether its class is known or summed out."""
    if row["kind"] == "knowledge" and row["name"] != row["knowledge"]:  # a mean over several knowledge types
        return f"{row['name']}, label known"
    return f"{row['name']}, C summed out" if row["estimate"].startswith("exact sum over C") else str(row["name"])


def error(row: Mapping[str, Any]) -> str:
    """The standard error in bits per dim.

    "too few" stands for samples that are too few to compare.
    """
    if (row.get("count") or FEWEST) < FEWEST:
        return "too few"
    if row.get("standard_error") is None or not row.get("bits_per_image"):
        return "—"
    return decimals(row["standard_error"] * row["bits_per_dim"] / row["bits_per_image"])


def estimate(row: Mapping[str, Any]) -> str:
    """How the likelihood was estimated, and with how many samples."""
    samples = row.get("importance_samples")
    return f"{row['estimate']}, {samples} samples" if samples else str(row["estimate"])


def decimals(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="finished run folders")
    by_dataset: dict[str, dict[tuple[str, ...], float]] = {}
    for folder in parser.parse_args().runs:
        for dataset, bits, cells in rows_of(folder):
            by_dataset.setdefault(dataset, {})[tuple(cells)] = bits
    for dataset, rows in by_dataset.items():
        cells = [list(row) for row in sorted(rows, key=rows.__getitem__)]
        print(f"## {dataset}\n\n{aligned(HEADER, cells, numeric=(2, 3, 4, 6, 7, 8, 9))}\n")


if __name__ == "__main__":
    with edge.script():
        main()
