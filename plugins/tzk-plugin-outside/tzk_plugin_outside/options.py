"""Options of the commands that choose a threshold on validation data."""

from __future__ import annotations

import click

validation_option = click.option(
    "--validation",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="At most so many validation samples of each data set choose the threshold.",
)

importance_samples_option = click.option(
    "--importance-samples",
    type=click.IntRange(min=1, max=100_000),
    help="For the integral over C; by default as the run's config.",
)
