"""Knowledge types that are read from their files when first asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from tzk_core.errors import TzkError
from tzk_core.implementations import use_implementations
from tzk_core.knowledge import Knowledge
from tzk_core.knowledge.collection import KnowledgeDict
from tzk_core.knowledge.stacking import Some, state_of
from tzk_core.model import SharedFlow, TzK
from tzk_core.modes import without_caches
from tzk_core.storage import tensors
from tzk_core.storage.checkpoint import OpaqueKnowledge, load_knowledge, why_not_finite
from tzk_core.storage.index import Index
from tzk_core.storage.stored import knowledge_of
from tzk_core.tensors import like_of


class Reader:
    """Reads knowledge types of one state of a checkpoint, as `load_checkpoint` does.

    device: of what is read. named: whether it was named, so that layers take implementations for it.
    """

    def __init__(self, folder: Path, index: Index, flow: SharedFlow) -> None:
        self.folder, self.index, self.flow = folder, index, flow
        self.device, self.named = like_of(flow).device, False
        self._first: dict[int, Knowledge] = {}  # of each part, which others are copied around
        self._state = _state_of(folder)

    def read(self, name: str) -> Knowledge | Opaque:
        """One knowledge type; as in `TzK.opaque` where it cannot be used here.

        Raises:
            TzkError: for a file that is missing, truncated or altered, or a checkpoint that was replaced meanwhile.
        """
        entry, number = self.index.entry(name), self.index.number(name)
        (file,) = self.files([name]).values()
        where, like = self.folder / entry["file"], self._first.get(number)
        member = load_knowledge(name, entry, file, latent_shape=self.flow.latent_shape, where=where, like=like)
        if isinstance(member, OpaqueKnowledge):
            return Opaque(self, name, member.reason)
        member.requires_grad_(requires_grad=False)
        self._first.setdefault(number, member)
        without_caches(member)
        member.attach(self.flow.transform, self.flow.base)
        return self._placed(member.eval())

    def _placed(self, member: Knowledge) -> Knowledge:
        if member.log_odds.device != self.device:
            member = member.to(self.device)
        if self.named:
            use_implementations(member, self.device.type)
        return member

    def states(self, names: Sequence[str], like: Knowledge) -> Iterator[tuple[str, dict[str, Tensor] | Opaque]]:
        """Parameters and buffers of knowledge types, as `state_of` has them.

        Args:
            names: of the part of `like`.
            like: one that was read, in the state of which theirs are put.

        Raises:
            TzkError: as `read`.
        """
        own, shapes = state_of(like), tensors.shapes_of(like)
        for name, file in self.files(names).items():
            where = self.folder / self.index.entry(name)["file"]
            state = tensors.parse(file, where)
            tensors.check_shapes(shapes, state, where)
            if (reason := why_not_finite(name, state)) is not None:
                yield name, Opaque(self, name, reason)
                continue
            yield name, {key: state[key].clone().to(self.device) if key in state else own[key] for key in own}

    def files(self, names: Sequence[str]) -> dict[str, bytes]:
        """The files of some knowledge types, by name; errors are those of `read`."""
        try:
            return knowledge_of(self.folder, {name: self.index.entry(name) for name in names})
        except (TzkError, OSError) as error:
            if _state_of(self.folder) == self._state:
                raise
            which = repr(names[0]) if len(names) == 1 else f"{names[0]!r} or one of {len(names) - 1} after it"
            raise TzkError(
                f"{self.folder} was replaced after it was opened, so that {which} cannot be read from it any more: "
                "open it again"
            ) from error


@dataclass(frozen=True)
class Opaque:
    """An `OpaqueKnowledge` whose file stays where it is until it is asked for."""

    reader: Reader
    name: str
    reason: str

    @property
    def entry(self) -> Mapping[str, Any]:
        return self.reader.index.entry(self.name)

    @property
    def file(self) -> bytes:
        return self.reader.files([self.name])[self.name]


def _state_of(folder: Path) -> tuple[int, int] | None:
    """What differs once a checkpoint was replaced."""
    with suppress(OSError):
        status = folder.stat()
        return status.st_ino, status.st_mtime_ns
    return None


class LazyKnowledge(KnowledgeDict):
    """All knowledge types of a checkpoint, the last used of them in memory.

    It is a `KnowledgeDict` that cannot be changed. A type that another one displaced is read again when it is asked for
    again, as another object of the same values.

    Args:
        reader: of the checkpoint.
        in_memory: so many types are kept, the least recently used going first.
    """

    def __init__(self, reader: Reader, in_memory: int) -> None:
        super().__init__()
        self.reader, self.in_memory = reader, in_memory
        self._kept: OrderedDict[str, Knowledge] = OrderedDict()

    def __getitem__(self, key: str) -> Knowledge:
        if (member := self._usable(key)) is None:
            raise TzkError(self.opaque_types[key].reason)
        return member

    def __contains__(self, key: object) -> bool:
        return key in self.reader.index and key not in self.opaque_types

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.reader.index if name not in self.opaque_types)

    def __len__(self) -> int:
        return len(self.reader.index) - len(self.opaque_types)

    def keys(self) -> KeysView[str]:
        return KeysView(self)

    def values(self) -> ValuesView[Knowledge]:
        return _Values(self)

    def items(self) -> ItemsView[str, Knowledge]:
        return _Items(self)

    def __setitem__(self, key: str, module: Any) -> NoReturn:
        refuse(f"knowledge type {key!r} cannot be added to it")

    def __delitem__(self, key: str) -> NoReturn:
        refuse(f"knowledge type {key!r} cannot be removed from it")

    def clear(self) -> NoReturn:
        refuse("no knowledge type can be removed from it")

    def parameters(self, recurse: bool = True) -> Iterator[torch.nn.Parameter]:  # noqa: FBT001, FBT002 -- torch's
        """Those of the first knowledge type, which say what all are like."""
        first = next(self.usable(), None)
        return iter(()) if first is None else first[1].parameters()

    def implies_of(self, name: str) -> tuple[str, ...]:
        """What a knowledge type implies, without reading it."""
        return self.reader.index.implies(name)

    def in_parts(self, together: int) -> Iterator[Some]:
        """As `stacking.in_parts`.

        Of a part one type is a module; the others are tensors alone, and none of these are kept.
        """
        for names in self.reader.index.alike():
            like = next((member for _, member in self.usable(names)), None)
            if like is None:
                continue
            for start in range(0, len(names), together):
                states = self._states(names[start : start + together], like)
                if len(states) > 1:
                    yield Some(dict.fromkeys(states, like), list(states.values()))
                for name in states if len(states) == 1 else ():  # one is evaluated as it is
                    yield Some({name: self[name]}, [state_of(self[name])])

    def _states(self, names: Sequence[str], like: Knowledge) -> dict[str, Mapping[str, Tensor]]:
        """The tensors of knowledge types of one part, without what cannot be used here."""
        states: dict[str, Mapping[str, Tensor]] = {}
        for name, state in self.reader.states([each for each in names if each not in self.opaque_types], like):
            if isinstance(state, Opaque):
                self.opaque_types[name] = state
            else:
                states[name] = state
        return states

    def usable(self, names: Any = None) -> Iterator[tuple[str, Knowledge]]:
        """Names and knowledge types, all or these, without what cannot be used here."""
        for name in self.reader.index if names is None else names:
            if name not in self.opaque_types and (member := self._usable(name)) is not None:
                yield name, member

    def move(self, device: torch.device, *, named: bool) -> None:
        """Read from now on for this device; what was read is read again."""
        self.reader.device, self.reader.named = device, named or self.reader.named
        self._kept.clear()

    def _usable(self, name: str) -> Knowledge | None:
        """A knowledge type, from memory or its file; None if it is opaque."""
        if (kept := self._kept.get(name)) is not None:
            with suppress(KeyError):  # another thread has displaced it
                self._kept.move_to_end(name)
            return kept
        read = self.reader.read(name)
        if isinstance(read, Opaque):
            self.opaque_types[name] = read
            return None
        self._kept[name] = read
        while len(self._kept) > self.in_memory:
            with suppress(KeyError):  # as above
                self._kept.popitem(last=False)
        return read


class _Items(ItemsView[str, Knowledge]):
    _mapping: LazyKnowledge

    def __iter__(self) -> Iterator[tuple[str, Knowledge]]:
        return self._mapping.usable()


class _Values(ValuesView[Knowledge]):
    _mapping: LazyKnowledge

    def __iter__(self) -> Iterator[Knowledge]:
        return (member for _, member in self._mapping.usable())


class LazyTzK(TzK):
    """A model whose knowledge types are read when first asked for.

    It scores and samples as any other. Nothing in it requires a gradient. What would change it, or needs all knowledge
    types at once, is refused.
    """

    knowledge: LazyKnowledge

    def __init__(self, flow: SharedFlow, knowledge: LazyKnowledge) -> None:
        super().__init__(flow.requires_grad_(requires_grad=False))
        self.knowledge = knowledge

    @property
    def like(self) -> torch.Tensor:
        return like_of(self.flow, self.knowledge)

    def add(self, name: str, knowledge: Knowledge) -> NoReturn:
        refuse(f"knowledge type {name!r} cannot be added to it")

    def named_parameters(self, *arguments: Any, **named: Any) -> NoReturn:
        refuse("it cannot be trained, and has no list of all its parameters")

    def state_dict(self, *arguments: Any, **named: Any) -> NoReturn:
        refuse("it has no state dict, since most of its knowledge types are in their files alone")

    def load_state_dict(self, *arguments: Any, **named: Any) -> NoReturn:
        refuse("it takes no state dict, since most of its knowledge types are in their files alone")

    def train(self, mode: bool = True) -> LazyTzK:  # noqa: FBT001, FBT002 -- torch's
        if mode:
            refuse("it cannot be trained")
        return super().train(mode)

    def to(self, *arguments: Any, **named: Any) -> LazyTzK:
        """As `TzK.to`, for a device alone; knowledge types go there as they are read."""
        device = torch._C._nn._parse_to(*arguments, **named)[0]
        super().to(*arguments, **named)
        if device is not None:
            self.knowledge.move(self.like.device, named=True)
        return self

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> LazyTzK:  # noqa: FBT001, FBT002
        before = self.like
        if (after := fn(before).dtype) != before.dtype:
            refuse(f"it stays {before.dtype}, as its files are, and cannot be made {after}")
        super()._apply(fn, recurse)
        if self.like.device != before.device:
            self.knowledge.move(self.like.device, named=True)
        return self


def refuse(what: str) -> NoReturn:
    """Raise `TzkError`: what a model that was opened lazily cannot do, and what to do."""
    raise TzkError(f"this model was opened with lazy=True: {what}. Open it whole for that: tzk_core.load(path)")
