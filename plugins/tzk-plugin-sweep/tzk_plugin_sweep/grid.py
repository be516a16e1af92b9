"""The runs of a sweep: every combination of values, for every seed."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tzk_core.errors import TzkError

TOKEN = re.compile(r""" "(?:\\.|[^"\\])*" | '[^']*' | . """, re.DOTALL | re.VERBOSE)
"""A quoted text of TOML, or a letter."""

OPEN, CLOSED, QUOTES = ("[", "{"), ("]", "}"), ('"', "'")
LONGEST = 80
"""So many characters of the values stand in the name of a run."""


@dataclass(frozen=True)
class Point:
    """One run: values of keys as typed, and its seed, None for the config's."""

    values: Mapping[str, str]
    seed: int | None

    @property
    def overrides(self) -> list[str]:
        """The overrides of `tzk run`."""
        seed = [] if self.seed is None else [f"seed={self.seed}"]
        return [*(f"{key}={value}" for key, value in self.values.items()), *seed]

    @property
    def name(self) -> str:
        """The name of its folder: it depends on nothing but its own values and seed."""
        words = [f"{key.rpartition('.')[2]}={value}" for key, value in self.values.items()]
        readable = re.sub(r"[^\w.=+-]+", "_", ",".join(words))[:LONGEST].strip("_.") or "config"
        digest = hashlib.sha256(json.dumps(sorted(self.values.items())).encode()).hexdigest()[:8]
        return f"{readable}-{digest}" + ("" if self.seed is None else f"-seed-{self.seed}")


def points(overrides: Sequence[str], seeds: int | None) -> list[Point]:
    """All combinations of the values of `key=a,b,c`, each for the seeds 0 to `seeds` - 1.

    Raises:
        TzkError: for what is no `key=value`, a key or value that comes twice, and seeds that are said twice.
    """
    by_key: dict[str, list[str]] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not key:
            raise TzkError(f"{override!r} is expected as key=value or key=a,b,c, such as training.steps=100,200")
        if key in by_key:
            raise TzkError(f"{key} is given twice: write all of its values once, as in {key}=a,b,c")
        by_key[key] = split(text, override)
    if seeds is not None and "seed" in by_key:
        raise TzkError("seeds are given by --seeds and by seed=...: leave out one of the two")
    numbers: Sequence[int | None] = [None] if seeds is None else range(seeds)
    combinations = [dict(zip(by_key, values, strict=True)) for values in itertools.product(*by_key.values())]
    return [Point(*_with_seed(values, number)) for values in combinations for number in numbers]


def split(text: str, override: str) -> list[str]:
    """The values in a text, at commas outside of quoted TOML texts, lists and tables.

    Raises:
        TzkError: for a value that is empty, comes twice, or is broken off; `override` is what it shows.
    """
    values, depth, broken = [""], 0, False
    for token in TOKEN.findall(text):
        depth += (token in OPEN) - (token in CLOSED)
        broken |= depth < 0 or token in QUOTES
        if token == "," and depth == 0:
            values.append("")
        else:
            values[-1] += token
    values = [value.strip() for value in values]
    if broken or depth:
        raise TzkError(f"{override!r} has a quote or a bracket that is not closed, or not opened")
    if "" in values:
        raise TzkError(f'{override!r} has an empty value: a comma stands between two values; an empty text is ""')
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise TzkError(f"{override!r} has the value {twice} twice: each is run once, and repeated by --seeds")
    return values


def _with_seed(values: Mapping[str, str], seed: int | None) -> tuple[Mapping[str, str], int | None]:
    """Values without a seed, and the seed, which `seed=0,1` says as `--seeds` does.

    Raises:
        TzkError: for a seed that is no number.
    """
    if "seed" not in values:
        return values, seed
    if not re.fullmatch(r"\d{1,18}", values["seed"]):
        raise TzkError(f"seed is expected as whole numbers, such as seed=0,1,2; got {values['seed']}")
    return {key: value for key, value in values.items() if key != "seed"}, int(values["seed"])
