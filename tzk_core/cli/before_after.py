"""Everything older in two run folders, before and after, compared from what is on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import Tensor

from tzk_core.cli import output
from tzk_core.errors import TzkError
from tzk_core.storage.checkpoint import load_checkpoint
from tzk_core.storage.manifest import read_manifest
from tzk_core.storage.places import checkpoint_in
from tzk_core.training.adding import untouched


def compare(before: Path, after: Path, probes: Tensor, *, seed: int) -> str:
    """A table of every knowledge type that the run `before` has, and of its prior: the sha256 of its file in either
    folder, and what the two models compute. `probes`, (n, *shape), are what log-likelihoods are of.

    Raises `TzkError` if anything is not bit-identical.
    """
    checkpoints = [checkpoint_in(run) for run in (before, after)]
    models = [load_checkpoint(checkpoint) for checkpoint in checkpoints]
    older, newer = (untouched.fingerprints(model, probes.to(models[0].like), seed) for model in models)
    compared = untouched.compare(older, newer)
    untouched.check(compared)
    rows = []
    for name, each in compared.items():
        files = [_digest(checkpoint, name) for checkpoint in checkpoints]
        if files[0] != files[1]:
            what = "the shared flow" if name is None else f"knowledge type {name!r}"
            raise TzkError(f"the file of {what} in {after} is not that in {before}: {files[1]} and {files[0]}")
        now = each.after or each.before
        flags = sum(flag for _, flag in now.requires_grad)
        usable = each.before.nats is not None
        rows.append(
            (
                "(prior)" if name is None else name,
                f"{files[0][:12]} = {files[1][:12]}",
                f"{flags} = {flags} of {len(now.requires_grad)}" if usable else "cannot be used here",
                f"{each.before.nats:.3f} = {now.nats:.3f}" if usable else "",
                f"{(each.before.samples or '')[:8]} = {(now.samples or '')[:8]}" if usable else "",
            )
        )
    header = ("KNOWLEDGE", "SHA256 OF FILE", "REQUIRES_GRAD", "LOG-LIKELIHOOD (NATS)", "SHA256 OF SAMPLES")
    return output.columns(header, rows) + f"\nall {len(rows)} are bit-identical"


def _digest(checkpoint: Path, name: str | None) -> str:
    """The sha256 of a file as it is on disk now."""
    manifest = read_manifest(checkpoint)
    entry = manifest["core"] if name is None else manifest["knowledge"][name]
    return hashlib.sha256((checkpoint / entry["file"]).read_bytes()).hexdigest()
