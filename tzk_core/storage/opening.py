"""A run opened to use its model: whole, or type by type."""

from __future__ import annotations

from pathlib import Path

from tzk_core.errors import TzkError
from tzk_core.model import SharedFlow, TzK
from tzk_core.storage.checkpoint import load_checkpoint, load_flow, unusable
from tzk_core.storage.lazy import LazyKnowledge, LazyTzK, Opaque, Reader
from tzk_core.storage.places import checkpoint_in
from tzk_core.storage.stored import read_core

IN_MEMORY = 1024
"""So many knowledge types of a lazily opened model are in memory at most, by default."""


def open(  # noqa: A001 -- tzk_core.open
    path: str | Path, *, lazy: bool = False, in_memory: int | None = None, flow: SharedFlow | None = None
) -> TzK:
    """Open the model of a run or checkpoint folder, on the CPU.

    With `lazy`, a knowledge type is read when it is first asked for: for many more types than are used at a time. All
    that it computes is equal to what `tzk_core.load` gives. It cannot be trained, added to, or made of another dtype.
    Types that cannot be used here are in `model.opaque` from the start, but for those whose file has to be read to
    tell, as one with nan.

    Args:
        lazy: False is `tzk_core.load`.
        in_memory: of a lazy model, so many types are in memory at most, the least recently used going first; 1,024 by
            default.
        flow: for a shared flow that was built in Python.

    Raises:
        TzkError: naming what is missing, damaged or not installed. Files of knowledge types are read, and compared
            with the hash in the manifest, when they are asked for.
    """
    folder = checkpoint_in(path)
    if not lazy:
        if in_memory is not None:
            raise TzkError(f"in_memory={in_memory} is for lazy=True: without it all knowledge types are in memory")
        return load_checkpoint(folder, flow)
    in_memory = IN_MEMORY if in_memory is None else in_memory
    if in_memory < 1:
        raise TzkError(f"in_memory is expected as 1 or more knowledge types; got {in_memory}")
    stored, index = read_core(folder)
    shared = load_flow(stored, flow)
    reader = Reader(folder, index, shared)
    knowledge = LazyKnowledge(reader, in_memory)
    fits: dict[int, bool] = {}
    for name in index:
        entry, number = index.entry(name), index.number(name)
        if number not in fits:
            fits[number] = unusable(name, entry) is None
        if entry["core"] != index.core:
            reason = f"knowledge type {name!r} was trained with another shared flow than the one in {folder}"
            knowledge.opaque_types[name] = Opaque(reader, name, reason)
        elif not fits[number]:
            knowledge.opaque_types[name] = Opaque(reader, name, str(unusable(name, entry)))
    return LazyTzK(shared, knowledge)
