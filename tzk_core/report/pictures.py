"""Pictures of a run: samples, reconstructions through C, the plane of C, and training curves."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tzk_core.report import columns, curves, grid, scatter, views

MEMBERS = 20
"""The most knowledge types of a group that are shown, from its first on."""


def draw(experiment: views.Experiment, folder: Path, results: Mapping[str, Any]) -> None:
    """Write all pictures of a finished run to `folder`/samples.

    Images become grids, two-dimensional data scatter plots and a density, and other vectors marginals and pairs of
    their columns. Data of any other shape have training curves only. All samples use the config's seed, so that the
    same model gives the same pictures.

    Args:
        folder: of the run, with its metrics.csv.
        results: the contents of results.json, whose bits per dim stand beside samples.
    """
    samples = folder / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    shape = tuple(experiment.model.shape)
    if len(shape) == 3 and shape[0] in (1, 3):
        _draw_images(experiment, samples, results)
    elif shape == (2,):
        _draw_planar(experiment, samples)
        _draw_density(experiment, samples)
    elif len(shape) == 1:
        _draw_columns(experiment, samples)
    if (folder / "metrics.csv").exists():
        curves.draw(folder / "metrics.csv", samples / "training-curves.png")


def _draw_images(experiment: views.Experiment, folder: Path, results: Mapping[str, Any]) -> None:
    model = experiment.model
    sample, caption = _sampler(experiment)
    across = max(4, min(10, 640 // max(model.shape)))  # fewer where images are large
    many = max(4, min(16, 1024 // max(model.shape)))
    _, tests = views.observations_to_show(experiment, 4 * across)

    grid.save(sample(across * across), folder / "samples-prior.png", across, caption=caption)
    for name in singles(experiment):
        samples = sample(across * across, name)
        grid.save(samples, folder / f"samples-{file_name(name)}.png", across, caption=caption)
        if name in tests:
            path = folder / f"reconstructions-{file_name(name)}.png"
            _save_pairs(model, {name: tests[name]}, path, across=across)
        _save_plane(experiment, name, folder / f"plane-of-C-{file_name(name)}.png", side=across)

    for group, members in experiment.groups.items():
        shown = list(members[:MEMBERS])
        samples = torch.cat([sample(across, name) for name in shown])
        bits = {name: views.bits_per_dim(results, name) for name in shown}
        labels = [name if bits[name] is None else f"{name}\n{bits[name]:.2f} bits/dim" for name in shown]
        path = folder / f"samples-{file_name(group)}.png"
        grid.save(samples, path, across, row_labels=labels, caption=caption)
        pairs = {name: tests[name][:across] for name in shown if name in tests}
        if pairs:
            _save_pairs(model, pairs, folder / f"reconstructions-{file_name(group)}.png", across=across)
        last = members[-1]  # among the digits it is 9, as in the paper (Fig. 4)
        large = sample(many * many, last)
        grid.save(large, folder / f"samples-{file_name(last)}-large.png", many, caption=caption)
        _save_plane(experiment, last, folder / f"plane-of-C-{file_name(last)}.png", side=across)


def _sampler(experiment: views.Experiment) -> tuple[Callable[..., torch.Tensor], str]:
    """The model's `sample` at the config's seed and temperature, and a caption.

    The caption is empty at temperature 1.
    """
    temperature = experiment.config.pictures.temperature
    sample = partial(experiment.model.sample, seed=experiment.config.seed, temperature=temperature)
    return sample, "" if temperature == 1 else f"samples at temperature {temperature:g}"


def _titled(name: str, caption: str) -> str:
    return f"{name}, {caption.removeprefix('samples ')}" if caption else name


def _save_pairs(model: Any, tests: Mapping[str, torch.Tensor], path: Path, *, across: int) -> None:
    """Save rows of test images, each above its reconstruction through C, by knowledge type."""
    rows, labels = [], []
    for name, T in tests.items():
        through = views.through_characteristics(model, name, T).to(T)
        for first in range(0, len(T), across):
            for row in (T[first : first + across], through[first : first + across]):
                blank = row.new_ones(across - len(row), *row.shape[1:])
                rows.append(torch.cat([row, blank]))
            labels += [f"{name}, test", "through C"]
    grid.save(torch.cat(rows), path, across, row_labels=labels, rows_together=2)


def _save_plane(experiment: views.Experiment, name: str, path: Path, *, side: int) -> None:
    """Save the plane of C at even quantiles of its prior.

    Only C in R² has one. C1 is to the right, C2 upwards. Observed characteristics have their names.
    """
    model = experiment.model
    if model.knowledge[name].characteristics != 2:
        return
    quantiles = (torch.arange(side) + 0.5) / side
    second, first = torch.meshgrid(quantiles.flip(0), quantiles, indexing="ij")
    images = views.at_quantiles(model, name, torch.stack([first, second], -1).reshape(-1, 2))
    labels = [f"{100 * quantile:.3g} %" for quantile in quantiles.tolist()]
    across, upwards = views.characteristic_names(experiment, name)
    rows, columns = [f"{upwards} at {text}" for text in labels[::-1]], [f"{across} at\n{text}" for text in labels]
    grid.save(images, path, side, row_labels=rows, column_labels=columns)


def _draw_columns(experiment: views.Experiment, folder: Path) -> None:
    """Draw samples over test data, column by column and in pairs, of the prior and of knowledge."""
    sample, caption = _sampler(experiment)
    datasets, tests = views.observations_to_show(experiment, 2000)
    observed, names = torch.cat(list(datasets.values())), views.column_names(experiment)
    paths = {"": folder / "samples-prior.png"}
    paths |= {name: folder / f"samples-{file_name(name)}.png" for name in singles(experiment)}
    for name, path in paths.items():
        samples = sample(2000, name or None)
        title = _titled(name or "prior", caption)
        data = tests.get(name, observed)
        columns.marginals(data, {title: samples}, path, names=names)
        if len(names) > 1:
            pair = path.with_name(path.name.replace("samples-", "pairs-", 1))
            as_many = samples[: len(data)]  # more would hide the data
            columns.pairs(data, as_many, pair, names=names, title=title)
    for group, members in experiment.groups.items():
        by_member = {name: sample(1000, name) for name in members[:MEMBERS]}
        path = folder / f"samples-{file_name(group)}.png"
        columns.marginals(observed, by_member, path, names=names)
    if len(names) == 1:
        _draw_density(experiment, folder)


def _draw_density(experiment: views.Experiment, folder: Path) -> None:
    """Draw p(T), and p(T given κ=1) of knowledge, of one or two dimensions."""
    model, names = experiment.model, views.column_names(experiment)
    datasets, tests = views.observations_to_show(experiment, 1000)
    observed = torch.cat(list(datasets.values()))
    for name in ("", *singles(experiment)):
        path = folder / f"density-{file_name(name) if name else 'prior'}.png"

        def log_prob(points: torch.Tensor, name: str = name) -> torch.Tensor:
            z, logabsdet = model.flow.encode(points.to(model.like))
            inside = logabsdet.isfinite() & z.flatten(1).isfinite().all(1)
            values = torch.full_like(logabsdet, -torch.inf)
            if inside.any():
                values[inside] = model.log_prob(points.to(model.like)[inside], name or None)
            return values

        data = tests.get(name, observed)
        columns.density(log_prob, data, path, names=names, title=f"density: {name or 'prior'}")


def _draw_planar(experiment: views.Experiment, folder: Path) -> None:
    sample, caption = _sampler(experiment)
    datasets, tests = views.observations_to_show(experiment, 2000)
    prior = {"": sample(sum(map(len, datasets.values())))}
    scatter.beside(datasets, prior, folder / "samples-prior.png", title=_titled("prior", caption))
    for name in singles(experiment):
        samples = {name: sample(2000, name)}
        observed = {name: tests[name]} if name in tests else datasets
        path = folder / f"samples-{file_name(name)}.png"
        scatter.beside(observed, samples, path, title=_titled(name, caption))
        _draw_planar_plane(experiment, name, tests=tests, folder=folder)
    for group, members in experiment.groups.items():
        shown = list(members[:MEMBERS])
        samples = {name: sample(500, name) for name in shown}
        observed = {name: tests[name][:500] for name in shown if name in tests} or datasets
        path = folder / f"samples-{file_name(group)}.png"
        scatter.beside(observed, samples, path, title=_titled(file_name(group), caption))
        _draw_planar_plane(experiment, members[-1], tests=tests, folder=folder)


def _draw_planar_plane(
    experiment: views.Experiment, name: str, *, tests: Mapping[str, torch.Tensor], folder: Path
) -> None:
    """Draw where C takes test points, and for C in R² its plane."""
    model = experiment.model
    if name in tests:
        T = tests[name][:300]
        through = views.through_characteristics(model, name, T)
        path = folder / f"reconstructions-{file_name(name)}.png"
        scatter.moved(T, through, path, title=f"{name}, through C")
    if model.knowledge[name].characteristics == 2:
        fine, coarse = torch.linspace(0.02, 0.98, 97), torch.linspace(0.05, 0.95, 13)
        fixed, swept = (part.reshape(-1) for part in torch.meshgrid(coarse, fine, indexing="ij"))
        lines = [
            views.at_quantiles(model, name, torch.stack(pair, -1)).reshape(len(coarse), len(fine), 2)
            for pair in ((swept, fixed), (fixed, swept))
        ]
        path = folder / f"plane-of-C-{file_name(name)}.png"
        names = views.characteristic_names(experiment, name)
        scatter.net(lines[0], lines[1], path, title=f"{name}, the plane of C", names=names)


def singles(experiment: views.Experiment) -> list[str]:
    """Knowledge types with their own pictures: those of data sets, then others in no group."""
    grouped = {name for members in experiment.groups.values() for name in members}
    others = [name for name in experiment.knowledge_names if name not in grouped]
    return list(dict.fromkeys([*experiment.dataset_knowledge.values(), *others]))


def file_name(knowledge: str) -> str:
    """Part of a file name for a knowledge type or a group: `digit-all` for `digit-{label}`."""
    return re.sub(r"[^\w.+-]+", "-", re.sub(r"\{[^}]*\}", "all", knowledge)).strip("-.") or "knowledge"
