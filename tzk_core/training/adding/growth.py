"""Training of new knowledge types on a fixed model, which gains all or none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tzk_core.build import start_from
from tzk_core.data.dequantise import dequantise
from tzk_core.errors import TzkError
from tzk_core.inputs import check_domain
from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.collection import KnowledgeDict
from tzk_core.model import TzK
from tzk_core.modes import evaluating
from tzk_core.objective import Objective, mental_capacity
from tzk_core.random_streams import stream
from tzk_core.tensors import like_of
from tzk_core.training.adding.negatives import Negatives, Source, balanced, own_samples
from tzk_core.training.adding.untouched import Comparison, check, compare, fingerprints
from tzk_core.training.initialisation import fit_priors
from tzk_core.training.observers import Observer, Progress
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer
from tzk_core.world import ALONE, World

STARTED_FROM = 4096
"""As many samples, at most, a closed-form start sees of the knowledge, and of what contains it."""

PROBES = 16
"""As many observations the model is compared on, before and after."""

LAST_BATCHES = 4
"""Over as many batches what the report says of the new knowledge is averaged."""


@dataclass(frozen=True)
class Report:
    """What became of the model.

    added: names of the new knowledge. unchanged: by older knowledge type, and under None of the prior, what it was
    before and is now, which is the same. inconsistency: by new knowledge g, E |log p_enc - log p_dec| in nats, which
    nothing holds down, as the shared flow cannot follow. gain: by new knowledge the mean of
    log p(z given C) - log p(z), in nats. Both are of training data.
    """

    added: tuple[str, ...]
    unchanged: dict[str | None, Comparison]
    inconsistency: dict[str, float]
    gain: dict[str, float]


def train_addition(
    model: TzK,
    knowledge: Mapping[str, Knowledge],
    sources: Mapping[str, Source],
    *,
    settings: Settings,
    negatives: Negatives,
    seed: int = 0,
    folder: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    observers: Sequence[Observer] = (),
    exclusive: Sequence[Sequence[str]] = (),
    start: Mapping[str, str] | None = None,
    world: World = ALONE,
) -> Report:
    """Train `knowledge` on `sources` and add it to `model`.

    The columns of the sources' presence are the names of `knowledge`.

    The new types are trained in a model of their own with the same shared flow, which encodes and is not trained. Older
    types are out of reach, and no step knows how many there are. Whatever is raised meanwhile, the model has the
    knowledge types that it had.

    Args:
        folder: receives metrics.csv.
        exclusive: groups of new knowledge of which a sample has exactly one where no label says which.
        start: by new knowledge, the older type whose weights it starts from, in the place of a start in closed form.
        world: the processes that do all of this together, the first of which has the folder and observers.

    Raises:
        TzkError: before anything is trained, for names, shapes and samples that do not fit; afterwards, if something
            older has changed.
    """
    names = tuple(knowledge)
    for name, module in knowledge.items():
        model.check_addition(name, module)
    _check_present(sources, names)
    probes = _probes(sources, seed).to(like_of(model, *knowledge.values()))
    before = fingerprints(model, probes, seed)
    with evaluating(model.flow):  # a layer that counts its batches, as batch norm does, would change
        trainer = addition_trainer(
            model,
            knowledge,
            sources,
            settings=settings,
            negatives=negatives,
            seed=seed,
            exclusive=exclusive,
            start=start,
            world=world,
        )
        trainer.run(folder, progress, checkpoints=False, observers=observers)
        inconsistency, gain = _last(trainer)
    with _all_or_none(model, knowledge):
        unchanged = compare(before, fingerprints(model, probes, seed))
        check(unchanged)
    return Report(names, unchanged, inconsistency, gain)


@contextmanager
def _all_or_none(model: TzK, knowledge: Mapping[str, Knowledge]) -> Iterator[None]:
    """Add `knowledge` before the block, and take it out where anything is raised."""
    try:
        for name, module in knowledge.items():
            model.add(name, module)
        yield
    except BaseException:
        for name, module in knowledge.items():
            if name in model.knowledge and model.knowledge[name] is module:
                del model.knowledge[name]
        raise


def addition_trainer(
    model: TzK,
    knowledge: Mapping[str, Knowledge],
    sources: Mapping[str, Source],
    *,
    settings: Settings,
    negatives: Negatives,
    seed: int = 0,
    exclusive: Sequence[Sequence[str]] = (),
    start: Mapping[str, str] | None = None,
    world: World = ALONE,
) -> Trainer:
    """The trainer of `knowledge`, in a model of its own with `model`'s shared flow.

    Its data are gathered, its closed-form start is made, and no step is taken. Arguments are as of `train_addition`.
    """
    like = like_of(model, *knowledge.values())
    alone = TzK(model.flow)
    for name, module in knowledge.items():
        alone.add(name, module.to(like.device, like.dtype))
    started = {name for name, other in (start or {}).items() if _started(alone.find(name), model.find(other))}
    all_levels = {source.levels for source in sources.values()}
    if len(all_levels) > 1:
        raise TzkError(f"samples that are added together have one number of grey levels; got {all_levels}")
    (levels,) = all_levels
    batches = balanced(
        sources,
        own_samples(model, negatives, seed, levels=levels, bounds=_bounds(sources)),
        tuple(knowledge),
        negatives=negatives,
        batch_size=settings.batch_size,
        seed=seed,
        own_levels=levels,
        exclusive=exclusive,
    )
    _start(model, alone, sources, population=batches.population(), seed=seed, started=started, built_on=start or {})
    # the constraint is off: it would have the conditionals alone follow a flow that cannot follow them
    free = settings.model_copy(update=dict.fromkeys(("multiplier", "multiplier_max", "multiplier_rate"), 0.0))
    return Trainer(alone, batches, free, seed=seed, levels=levels, trained=tuple(knowledge), world=world)


def _started(module: Knowledge, other: Knowledge) -> bool:
    """Start new knowledge from the older type that it is part of.

    Returns:
        Whether that is all; else its closed form goes on from there.
    """
    build_on = getattr(module, "build_on", None)
    if build_on is not None and type(module) is not type(other):
        build_on(other)
        return False
    start_from(module, other)
    return True


def _check_present(sources: Mapping[str, Source], names: tuple[str, ...]) -> None:
    for column, name in enumerate(names):
        if not any((source.presence[:, column] == 1).any() for source in sources.values()):
            raise TzkError(
                f"knowledge type {name!r} is present in none of the samples that it would be trained on: "
                "expected at least one"
            )


def _bounds(sources: Mapping[str, Source]) -> tuple[float, float]:
    """Between which values the data lie, as they are encoded."""
    T = [source.samples.T for source in sources.values() if source.levels is None]
    return (min(values.min().item() for values in T), max(values.max().item() for values in T)) if T else (0.0, 1.0)


def _probes(sources: Mapping[str, Source], seed: int) -> Tensor:
    """A few observations from each source, (at most PROBES, *shape), dequantised."""
    share = max(1, PROBES // len(sources))
    picked = []
    for title, source in sources.items():
        generator = stream(seed, "probes", title)
        rows = torch.randperm(len(source.samples), generator=generator)[:share]
        picked.append(dequantise(source.samples.T[rows], generator, source.levels))
    return torch.cat(picked)[:PROBES]


@torch.no_grad()
def _start(
    model: TzK,
    alone: TzK,
    sources: Mapping[str, Source],
    *,
    population: Tensor,
    seed: int,
    started: Collection[str],
    built_on: Mapping[str, str],
) -> None:
    """Fit the priors of the knowledge in `alone`, and start each type in closed form.

    Types in `started` have their start already.

    Args:
        population: p(κ=1) of each, as it is trained on.
        built_on: by new knowledge, the older type that it starts from; else all that contains it is the reference.
    """
    names = tuple(name for name, _ in alone.named_knowledge())
    everything = KnowledgeDict({**dict(model.named_knowledge()), **dict(alone.named_knowledge())})
    for name, share in zip(names, population, strict=True):
        seen = [source.characteristics[name] for source in sources.values() if name in source.characteristics]
        fit_priors(alone.find(name), share, torch.cat(seen) if seen else None)
        if name in started:
            continue
        around = everything.implied_by(name)
        around = {built_on[name]} if built_on.get(name) in around else around
        z = _closed_form(alone, name, sources, around=around, seed=seed)
        if not seen:
            alone.find(name).start_characteristics(z, stream(seed, "characteristics", name))


def _closed_form(alone: TzK, name: str, sources: Mapping[str, Source], *, around: set[str], seed: int) -> Tensor:
    """Start one knowledge type from its latents, beside those of the types `around` it.

    These are the older types that contain it.

    Returns:
        The latents, z, (at most STARTED_FROM, *latent_shape).
    """
    names = tuple(known for known, _ in alone.named_knowledge())
    column = names.index(name)
    of = {title: source.presence[:, column] == 1 for title, source in sources.items()}
    inside = {title: _inside(source, around, names) for title, source in sources.items()}
    grouped = all(name in source.groups for source in sources.values())
    if grouped:  # a class that is not known is no class
        inside = {title: rows & (sources[title].groups[name] >= 0) for title, rows in inside.items()}
    z, _ = _latents(alone, sources, of, generator=stream(seed, "start", name))
    reference, places = _latents(alone, sources, inside, generator=stream(seed, "start, reference", name))
    groups = [sources[title].groups[name][rows] for title, rows in places] if grouped else []
    alone.find(name).start(z, reference, torch.cat(groups).to(z.device) if groups else None)
    return z


def _inside(source: Source, implied: set[str], names: Sequence[str]) -> Tensor:
    """Where all of `implied` that this source knows of is present, (n,) bool.

    False everywhere if it knows of none.
    """
    columns = [source.presence[:, i] for i, name in enumerate(names) if name in implied]
    columns += [column for name, column in source.containing.items() if name in implied]
    if not columns:
        return torch.zeros(len(source.samples), dtype=torch.bool)
    return (torch.stack(columns) == 1).all(0)


def _latents(
    alone: TzK,
    sources: Mapping[str, Source],
    chosen: Mapping[str, Tensor],
    *,
    generator: torch.Generator,
    chunk: int = 512,
) -> tuple[Tensor, list[tuple[str, Tensor]]]:
    """z of the chosen samples, the data sets in proportion.

    Returns:
        z, (at most STARTED_FROM, *latent_shape), and which samples these are, in their order: data sets with positions
            in them.
    """
    like = next(alone.parameters())
    total = sum(int(rows.sum()) for rows in chosen.values())
    encoded, places = [torch.empty(0, *alone.latent_shape).to(like)], []
    for title, mask in chosen.items():
        rows = torch.nonzero(mask).squeeze(1)
        share = len(rows) if total <= STARTED_FROM else len(rows) * STARTED_FROM // total
        rows = rows[torch.randperm(len(rows), generator=generator)[:share]]
        places.append((title, rows))
        for part in rows.split(chunk) if len(rows) else ():
            T = dequantise(sources[title].samples.T[part], generator, sources[title].levels)
            z, logabsdet = alone.flow.encode(T.to(like))
            check_domain(logabsdet)
            encoded.append(z)
    return torch.cat(encoded), places


@torch.no_grad()
def _last(trainer: Trainer) -> tuple[dict[str, float], dict[str, float]]:
    """Inconsistency and gain of each new type, in nats, over the next batches."""
    measured: tuple[dict[str, list[float]], dict[str, list[float]]] = {}, {}
    like = trainer.model.like
    for step in range(trainer.step, trainer.step + LAST_BATCHES):
        observations = trainer.batches.batch(step).to(like.device, like.dtype)
        noise, objective = trainer.noise_of(step), Objective(fixed_flow=True)
        capacity = mental_capacity(trainer.model, observations, noise, objective=objective)
        for batches, values in zip(measured, (capacity.inconsistency, capacity.conditional), strict=True):
            for name, value in values.items():
                batches.setdefault(name, []).append(float(value))
    inconsistency, gain = ({name: sum(means) / len(means) for name, means in batches.items()} for batches in measured)
    return inconsistency, gain
