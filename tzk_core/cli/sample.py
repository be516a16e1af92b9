"""`tzk sample RUN`: samples of a trained model, from the prior or with knowledge."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from tzk_core.cli import output
from tzk_core.errors import TzkError, nearest
from tzk_core.runs.folder import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

    from tzk_core.model import TzK
    from tzk_core.model.smc import Population


PART = 1024
"""Samples in memory at a time, however many are drawn."""

LARGEST_PICTURE = {3: 10_000, 1: 1_000_000}
"""How many samples a picture shows, by the number of axes of one: images in a grid, or points."""


class Characteristics(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click alone
    """Numbers with commas between them, perhaps those of a name: (name or "", numbers)."""

    name = "[name=]numbers"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[float, ...]]:
        name, _, written = str(value).rpartition("=")
        try:
            numbers = tuple(float(text) for text in written.split(","))
        except ValueError:
            self.fail(
                f"expected numbers with commas between them, such as 1.5,-0.3 or digit-7=1.5,-0.3; got {value!r}",
                param,
                ctx,
            )
        if not all(map(math.isfinite, numbers)):
            self.fail(f"expected finite numbers, got {value!r}", param, ctx)
        return name, numbers


@click.command(name="sample")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--knowledge", multiple=True, help="A knowledge type, such as digit-7; several are all meant. None: the prior."
)
@click.option("--without", multiple=True, help="A knowledge type that is to be absent; may be given several times.")
@click.option(
    "--among",
    multiple=True,
    help="Knowledge types of which exactly one is present: samples start as those of one of them. Given twice or more.",
)
@click.option("-n", "--number", type=click.IntRange(min=1), default=64, show_default=True, help="How many samples.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same samples.")
@click.option("--temperature", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Scales the noise.")
@click.option(
    "--characteristics",
    multiple=True,
    type=Characteristics(),
    help="C of the knowledge, such as 1.5,-0.3, or of one of several, digit-7=1.5,-0.3; drawn if not given.",
)
@click.option(
    "--side",
    type=click.Choice(["decoder", "encoder"]),
    default="encoder",
    show_default=True,
    help="Of several: weigh by p(K given z)/p(K), which is bounded, or by p(z given K)/p(z).",
)
@click.option(
    "--guidance",
    type=click.FloatRange(min=1),
    default=1.0,
    show_default=True,
    help="Power of all ratios: above 1 samples are clearer, and less varied than what is asked for.",
)
@click.option(
    "--particles", type=click.IntRange(min=2), default=1024, show_default=True, help="Of several: how many to weigh."
)
@click.option(
    "--sampler", default="smc", show_default=True, help="Of several: what samples them; rejection is exact and slow."
)
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A .png or .npz file; default NAME.png.",
)
def command(
    *,
    run: Path,
    knowledge: tuple[str, ...],
    without: tuple[str, ...],
    among: tuple[str, ...],
    number: int,
    seed: int,
    temperature: float,
    characteristics: tuple[tuple[str, tuple[float, ...]], ...],
    side: Literal["decoder", "encoder"],
    guidance: float,
    particles: int,
    sampler: str,
    file: Path | None,
) -> None:
    """Draw samples of a run as a picture, or write them as an array.

    A picture is a grid of images, or a scatter plot of points in the plane. Several --knowledge are all present, every
    --without is absent: then it also prints how many particles are behind the samples. Any data goes into an .npz file,
    as the array `T` of shape (n, *shape).
    """
    import tzk_core  # imports torch, which --help does without

    model = tzk_core.load(RunFolder.open(run).path)
    C = _by_name(model, knowledge, characteristics)
    title = _title(knowledge, without)
    file = _checked_file(file, title, tuple(model.shape), number=number)
    reports: list[str] = []
    if len(knowledge) > 1 or without or among or (knowledge and guidance != 1):
        compose = partial(
            _compose,
            model,
            knowledge,
            without,
            among=among,
            C=C,
            side=side,
            temperature=temperature,
            guidance=guidance,
            particles=particles,
            sampler=sampler,
        )
        batches = _populations(compose, number, seed, size=max(PART, particles), reports=reports)
    else:
        batches = _samples(model, (*knowledge, None)[0], number, C=C, temperature=temperature, seed=seed)
    try:
        _write(batches, file, title, number=number)
    except OSError as error:
        raise TzkError(f"{file} cannot be written: {error.strerror or error}") from None
    if len(reports) > 1:
        reports[0] = f"the first of {output.count(len(reports), 'population')}:\n{reports[0]}"
    output.say((reports[0] if reports else "") + str(file))


def _checked_file(file: Path | None, title: str, shape: tuple[int, ...], *, number: int) -> Path:
    """The file to write; `TzkError`, before anything is sampled, if it cannot hold the samples."""
    drawable = len(shape) == 3 and shape[0] in (1, 3) or shape == (2,)
    file = file or Path(f"{title}{'.png' if drawable and not _undrawable(shape) else '.npz'}")
    if file.suffix not in (".png", ".npz"):
        raise TzkError(f"expected -o to name a .png or .npz file, got {file}")
    if file.suffix == ".png" and not drawable:
        raise TzkError(f"samples of shape {shape} are no picture: name an .npz file with -o")
    if file.suffix == ".png" and (missing := _undrawable(shape)):
        raise TzkError(f"{missing}; or name an .npz file with -o")
    if not file.parent.is_dir():
        raise TzkError(f"{file} cannot be written: there is no folder {file.parent}")
    if file.suffix == ".png" and number > (most := LARGEST_PICTURE[len(shape)]):
        raise TzkError(f"a picture shows at most {most:,} of these samples: name an .npz file with -o for {number:,}")
    return file


def _samples(
    model: TzK, name: str | None, number: int, *, C: dict[str, Tensor], temperature: float, seed: int
) -> Iterator[Tensor]:
    """Samples of the prior (None) or of one knowledge type, a batch at a time."""
    import torch

    for start, size in _parts(number, PART):
        fixed = C[name].expand(size, -1) if name in C else None
        with torch.no_grad():
            yield model.sample(
                size, knowledge=name, characteristics=fixed, temperature=temperature, seed=_seed_at(start, seed)
            )


def _populations(
    compose: Callable[..., tuple[Tensor, str]], number: int, seed: int, *, size: int, reports: list[str]
) -> Iterator[Tensor]:
    """Samples of a composition, a population at a time, each of which adds to `reports`."""
    for start, count in _parts(number, size):
        samples, report = compose(number=count, seed=_seed_at(start, seed))
        reports.append(report)
        yield samples


def _seed_at(start: int, seed: int) -> int:
    """The seed of the samples from `start` on; the first are those of `seed` itself."""
    import torch

    from tzk_core.random_streams import stream

    return seed if start == 0 else int(torch.randint(2**62, (), generator=stream(seed, "sample", "from", start)))


def _parts(number: int, most: int) -> Iterator[tuple[int, int]]:
    """The parts, (start, size), in which `number` samples are taken, to limit memory."""
    return ((start, min(most, number - start)) for start in range(0, number, most))


def _by_name(
    model: TzK, knowledge: tuple[str, ...], options: tuple[tuple[str, tuple[float, ...]], ...]
) -> dict[str, Tensor]:
    """C by knowledge type, as --characteristics has it. Raises `TzkError` that names the option."""
    import torch  # not needed to say what the command takes

    by_name: dict[str, Tensor] = {}
    for written, numbers in options:
        if not knowledge:
            raise TzkError("--characteristics needs --knowledge: they are characteristics of a knowledge type")
        if not written and len(knowledge) > 1:
            example = f"{knowledge[0]}={','.join(map(str, numbers))}"
            raise TzkError(f"--characteristics of one of several knowledge types takes its name: {example}")
        name = written or knowledge[0]
        if name not in knowledge:
            raise TzkError(f"--characteristics of {name!r}, which --knowledge does not name{nearest(name, knowledge)}")
        if name in by_name:
            raise TzkError(f"--characteristics of {name!r} are given twice: which ones?")
        expected = model.find(name).characteristics
        if len(numbers) != expected:
            raise TzkError(f"{name} has {expected} characteristics; got {len(numbers)} by --characteristics")
        by_name[name] = torch.tensor(numbers, dtype=model.like.dtype)
    return by_name


def _compose(
    model: TzK,
    knowledge: tuple[str, ...],
    without: tuple[str, ...],
    *,
    among: tuple[str, ...],
    C: dict[str, Tensor],
    side: Literal["decoder", "encoder"],
    temperature: float,
    guidance: float,
    number: int,
    particles: int,
    sampler: str,
    seed: int,
) -> tuple[Tensor, str]:
    """Samples of a composition, and what to say of the particles that they come from."""
    chosen_density: dict[str, Any] = {"side": side, "temperature": temperature, "guidance": guidance, "among": among}
    composition = model.compose(*knowledge, without=without, characteristics=C, **chosen_density)
    if len(composition.present) < 2 and not composition.absent and not among and guidance == 1:
        samples = model.sample(number, knowledge, C or None, temperature=temperature, seed=seed)
        return samples, f"{composition} is all that counts: it implies the rest\n"
    chosen = {"type": "smc", "particles": max(number, particles)} if sampler == "smc" else sampler
    population = composition.populate(seed, n=number, sampler=chosen)
    rows = [
        ("members", str(composition)),
        ("effective sample size", f"{population.ess:.0f} of {len(population.noise):,} particles"),
        ("in one step", f"{population.importance_ess:.0f}, had they been weighed at once"),
        *_steps_of(sampler, population),
        ("log normaliser", f"{population.log_normaliser:.2f} ± {population.standard_error:.2f} nats"),
        *(
            ("discriminators agree", f"{share:.0%} on {'not ' if name in composition.absent else ''}{name}")
            for name, share in composition.agreement(population).items()
        ),
    ]
    return composition.sample(number, population, seed), output.fields(rows) + "\n"


def _steps_of(sampler: str, population: Population) -> list[tuple[str, str]]:
    """What to say of how a population came about."""
    if sampler != "smc":
        return [("sampler", sampler), ("acceptance", f"{population.acceptance:.2%}")]
    return [
        ("tempering", output.count(population.steps, "step")),
        ("ancestors", f"{population.ancestors:,} distinct"),
        ("acceptance", f"{population.acceptance:.0%} of the last moves"),
    ]


def _title(knowledge: tuple[str, ...], without: tuple[str, ...]) -> str:
    """`digit-3-and-thick-not-slanted`; `prior` where nothing is asked for."""
    return "-".join(["-and-".join(knowledge) or "prior", *(f"not-{name}" for name in without)])


def _undrawable(shape: tuple[int, ...]) -> str:
    """Why samples of this shape are not drawn here; "" if they are.

    Points are drawn by a plugin, which may be missing.
    """
    if shape != (2,):
        return ""
    try:
        _scatter()
    except ModuleNotFoundError as error:
        return f"points are drawn by a plugin: {error}"
    return ""


def _scatter() -> Any:
    """The module that draws points, by the name that `tzk_core.moved` forwards."""
    return importlib.import_module("tzk_core.report.scatter")


def _write(parts: Iterable[Tensor], file: Path, title: str, *, number: int) -> None:
    """Write samples into an .npz file as they come, or into one picture."""
    import torch  # imports where that file is written

    if file.suffix == ".npz":
        from tzk_core.data.packed import write_array

        write_array(file, "T", (part.cpu().numpy() for part in parts), count=number)
        return
    samples = torch.cat(list(parts))
    if samples.ndim == 4:
        from tzk_core.report import grid

        grid.save(samples, file, columns=math.ceil(math.sqrt(len(samples))))
    else:
        _scatter().alone({title: samples}, file, title=title)
