"""Models of layers as TOML writes them."""

from __future__ import annotations

from typing import Any

from tzk_core.build import build_flow
from tzk_core.model import TzK

Table = dict[str, Any]


def flow_of(*layers: Table, shape: tuple[int, ...] = (4,), seed: int = 0) -> TzK:
    return TzK(build_flow(shape, layers=layers, seed=seed))
