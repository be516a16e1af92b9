"""Everything older in two run folders, before and after, compared from what is on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from tzk_core.cli import output
from tzk_core.errors import TzkError
from tzk_core.storage.checkpoint import load_checkpoint
from tzk_core.storage.manifest import read_manifest
from tzk_core.storage.places import checkpoint_in
from tzk_core.training.adding import untouched

HEADER = ("KNOWLEDGE", "SHA256 OF FILE", "REQUIRES_GRAD", "LOG-LIKELIHOOD (NATS)", "SHA256 OF SAMPLES")


class Comparison(NamedTuple):
    """Everything older before and after, all bit-identical.

    A row has a cell for each of `HEADER`.
    """

    rows: list[tuple[str, ...]]

    def text(self) -> str:
        """The table, for a terminal."""
        return output.columns(HEADER, self.rows) + f"\nall {len(self.rows)} are bit-identical"

    def to_json(self) -> dict[str, Any]:
        """The contents of before-after.json."""
        return {"header": HEADER, "rows": self.rows}


def compare(before: Path, after: Path, probes: Tensor, *, seed: int) -> Comparison:
    """Compare two runs, with a row for every knowledge type of `before`.

    The first row is the prior. A row has the sha256 of the file in either folder, and what the two models compute.

    Args:
        probes: (n, *shape), the observations of which log-likelihoods are taken.

    Raises `TzkError` if anything is not bit-identical.
    """
    checkpoints = [checkpoint_in(run) for run in (before, after)]
    models = [load_checkpoint(checkpoint) for checkpoint in checkpoints]
    older, newer = (untouched.fingerprints(model, probes.to(models[0].like), seed) for model in models)
    compared = untouched.compare(older, newer)
    untouched.check(compared)
    rows: list[tuple[str, ...]] = []
    for name, pair in compared.items():
        files = [_digest(checkpoint, name) for checkpoint in checkpoints]
        if files[0] != files[1]:
            what = "the shared flow" if name is None else f"knowledge type {name!r}"
            raise TzkError(f"the file of {what} in {after} is not that in {before}: {files[1]} and {files[0]}")
        now = pair.after or pair.before
        flags = sum(flag for _, flag in now.requires_grad)
        usable = pair.before.nats is not None
        rows.append(
            (
                "(prior)" if name is None else name,
                f"{files[0][:12]} = {files[1][:12]}",
                f"{flags} = {flags} of {len(now.requires_grad)}" if usable else "cannot be used here",
                f"{pair.before.nats:.3f} = {now.nats:.3f}" if usable else "",
                f"{(pair.before.samples or '')[:8]} = {(now.samples or '')[:8]}" if usable else "",
            )
        )
    return Comparison(rows)


def _digest(checkpoint: Path, name: str | None) -> str:
    """The sha256 of a file as it is on disk now."""
    manifest = read_manifest(checkpoint)
    entry = manifest["core"] if name is None else manifest["knowledge"][name]
    return hashlib.sha256((checkpoint / entry["file"]).read_bytes()).hexdigest()
