"""`tzk sample RUN`: draws samples from a trained model, from the prior or given knowledge."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tzk_core.cli import output
from tzk_core.cli.run_folder import RunFolder
from tzk_core.errors import TzkError

if TYPE_CHECKING:
    from torch import Tensor


class Numbers(click.ParamType):
    """Numbers with commas between them."""

    name = "numbers"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        try:
            numbers = tuple(float(text) for text in str(value).split(","))
        except ValueError:
            self.fail(
                f"expected numbers with commas between them, such as 1.5,-0.3; got {value!r}", param, ctx
            )
        if not all(map(math.isfinite, numbers)):
            self.fail(f"expected finite numbers, got {value!r}", param, ctx)
        return numbers


@click.command(name="sample")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--knowledge", help="A knowledge type, such as digit-7; without it the prior is drawn from.")
@click.option(
    "-n", "--number", type=click.IntRange(min=1), default=64, show_default=True, help="How many samples."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same samples."
)
@click.option(
    "--temperature", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Scales the noise."
)
@click.option(
    "--characteristics", type=Numbers(), help="C of the knowledge, such as 1.5,-0.3; drawn if not given."
)
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A .png or .npz file; default NAME.png.",
)
def command(
    run: Path,
    knowledge: str | None,
    number: int,
    seed: int,
    temperature: float,
    characteristics: tuple[float, ...] | None,
    file: Path | None,
) -> None:
    """Draw samples from a run into a picture: a grid of images, or a scatter plot of points in the plane.

    Any data goes into an .npz file, as the array `T` of shape (n, *shape).
    """
    import torch  # not needed to say what the command takes

    import tzk_core

    folder = RunFolder.open(run)
    model = tzk_core.load(folder.path)
    C = None
    if characteristics is not None:
        C = torch.tensor(characteristics, dtype=next(model.parameters()).dtype).expand(number, -1)
        if knowledge is None:
            raise TzkError(
                "--characteristics needs --knowledge: they are characteristics of a knowledge type"
            )
        expected = model.find(knowledge).characteristics
        if len(characteristics) != expected:
            raise TzkError(
                f"{knowledge} has {expected} characteristics; got {len(characteristics)} by --characteristics"
            )
    drawable = len(model.shape) == 3 and model.shape[0] in (1, 3) or tuple(model.shape) == (2,)
    file = file or Path(f"{knowledge or 'prior'}{'.png' if drawable else '.npz'}")
    if file.suffix not in (".png", ".npz"):
        raise TzkError(f"expected -o to name a .png or .npz file, got {file}")
    if file.suffix == ".png" and not drawable:
        raise TzkError(f"samples of shape {tuple(model.shape)} are no picture: name an .npz file with -o")
    if not file.parent.is_dir():
        raise TzkError(f"{file} cannot be written: there is no folder {file.parent}")
    with torch.no_grad():
        samples = model.sample(
            number, knowledge=knowledge, characteristics=C, temperature=temperature, seed=seed
        )
    _write(samples, file, knowledge or "prior")
    output.say(str(file))


def _write(samples: Tensor, file: Path, title: str) -> None:
    if file.suffix == ".npz":
        import numpy  # each of these only where its kind of file is written

        numpy.savez_compressed(file, T=samples.cpu().numpy())
    elif samples.ndim == 4:
        from tzk_core.report import grid

        grid.save(samples, file, columns=math.ceil(math.sqrt(len(samples))))
    else:
        from tzk_core.report import scatter

        scatter.alone({title: samples}, file, title)
