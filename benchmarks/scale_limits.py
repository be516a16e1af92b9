"""What grows with the number of knowledge types, and where it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

FLOAT = 4


class Growth(NamedTuple):
    """Something that grows with the number of types.

    where: the ranks that it is on. bytes_of_type, seconds_of_type: what a type adds, 0 where it does not matter.
    of_step: whether the seconds are of every step.
    """

    name: str
    where: str
    bytes_of_type: float
    seconds_of_type: float = 0.0
    of_step: bool = False

    def types(self, limits: Mapping[str, float]) -> float:
        """How many types fit into `memory` bytes, and `patience` or `step_patience` seconds."""
        patience = limits["step_patience" if self.of_step else "patience"]
        limits_by_type = [(limits["memory"], self.bytes_of_type), (patience, self.seconds_of_type)]
        return min(limit / each if each else float("inf") for limit, each in limits_by_type)


def growths(measured: Mapping[str, float], *, ranks: int, batch: int, samples: int, bandwidth: float) -> list[Growth]:
    """All that grows, as the code is.

    Args:
        samples: of the training split, whose labels every rank has as a table.
    """
    values, cell = measured["parameters"] * FLOAT, measured["label_seconds_of_cell"]
    trained = values + measured["adam_bytes"]
    again = 2 * (ranks - 1) / ranks * trained / bandwidth
    written = trained + 2 * measured["adam_bytes"]  # and the optimiser's state as it is pickled, and copied
    return [
        Growth("labels of the training samples (float32)", "every rank", FLOAT * samples),
        Growth("labels of a batch, with weights", "every rank", 2 * FLOAT * batch),
        Growth("labels of a batch, seconds of a step", "every rank", 0, cell * batch, of_step=True),
        Growth("modules of all types, with parameters", "every rank", measured["register_bytes"]),
        Growth("registering all types", "every rank", 0, measured["register_seconds"]),
        Growth("reading all types", "every rank", 0, measured["load_seconds"]),
        Growth("gathering at a checkpoint", "rank 0", written, again),
        Growth("writing a checkpoint, all types in one file", "rank 0", 0, measured["save_seconds"]),
        Growth(
            "reading the manifest (JSON)", "rank 0", measured["read_manifest_bytes"], measured["read_manifest_seconds"]
        ),
        Growth("index of the manifest", "lazily opened", measured["index_bytes"]),
        Growth("posterior of 64 samples over all types", "one process", values, measured["posterior_seconds"]),
        Growth("parameters and Adam's moments, divided", "its owner", trained / ranks),
    ]


def ended(grown: Sequence[Growth], types: int, limits: Mapping[str, float]) -> list[dict[str, Any]]:
    """What grows at so many types, that which ends first in front."""
    return [
        {
            "name": growth.name,
            "where": growth.where,
            "bytes": growth.bytes_of_type * types,
            "seconds": growth.seconds_of_type * types,
            "ends_at_types": round(growth.types(limits)),
        }
        for growth in sorted(grown, key=lambda growth: growth.types(limits))
    ]
