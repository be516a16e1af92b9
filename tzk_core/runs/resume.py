"""Changes of a config with which a run may be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tzk_core.config import Config
from tzk_core.errors import TzkError

LONGER = ("steps", "minutes", "patience")
"""Of [training]: with another value of these even a finished run may go on."""

MAY_CHANGE = (
    ("device",),
    ("evaluation",),
    ("pictures",),
    ("observers",),
    ("published",),
    *(("training", key) for key in ("checkpoint_every", "clip", "processes", "owners_from", "owners", *LONGER)),
    *(("training", key) for key in ("learning_rate", "elementwise_rate", "knowledge_learning_rate")),
)
"""Keys that may change when a run is resumed; the steps may only grow. Learning rates of an optimiser may, too."""


@dataclass(frozen=True)
class Change:
    """One key whose value differs from the session before; None stands for no value."""

    key: tuple[str, ...]
    old: Any
    new: Any

    @property
    def name(self) -> str:
        """The key as an override has it."""
        return ".".join(self.key)

    @property
    def longer(self) -> bool:
        """Whether it may make the training longer."""
        return self.key[0] == "training" and self.key[-1] in LONGER

    def __str__(self) -> str:
        old, new = ("none" if value is None else f"{value!r}" for value in (self.old, self.new))
        return f"{self.name} was {old} and is {new}"


def changes(stored: Config, asked: Config, folder: Path) -> tuple[Change, ...]:
    """How the config to resume with differs. Raises `TzkError` with every key that may not."""
    all_changes = [Change(*difference) for difference in _differences(stored.model_dump(), asked.model_dump())]
    refused = [
        f"{change}, and may only grow" if _shorter(change) else str(change)
        for change in all_changes
        if _shorter(change) or not _may_change(change.key)
    ]
    if refused:
        raise TzkError(
            f"{folder} cannot be resumed with another config than it began with: {'; '.join(refused)}. "
            "Give the old values, or begin a new run without --resume"
        )
    return tuple(all_changes)


def described(step: int | None, changes: Sequence[Change]) -> str:
    """What to say of a run that goes on."""
    start = "going on" if step is None else f"going on from step {step:,}"
    return start + "".join(f"\n  {change}" for change in changes)


def entry(step: int | None, changes: Sequence[Change], *, command: str, date: str) -> dict[str, Any]:
    """The entry in run.json of a run resumed from `step`; changes are {key: [old, new]}."""
    changed = {change.name: [change.old, change.new] for change in changes}
    return {"step": step, "changes": changed, "command": command, "date": date}


def _may_change(key: tuple[str, ...]) -> bool:
    of_optimizer = key[:3] == ("training", "optimizer", "arguments")
    if of_optimizer and key[-1].endswith("learning_rate"):
        return True
    return any(key[: len(free)] == free for free in MAY_CHANGE)


def _shorter(change: Change) -> bool:
    return change.key == ("training", "steps") and change.new < change.old


def _differences(old: Any, new: Any, key: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """(key, old, new) for each value that differs, by the innermost key."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(name), new.get(name), (*key, str(name)))
    elif isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, after, (*key, str(index)))
    elif old != new:
        yield key, old, new
