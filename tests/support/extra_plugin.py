"""A plugin that a test installs and uninstalls: a knowledge type and a layer in their second version."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
from torch import Tensor

from tzk_core import build, implementations
from tzk_core.knowledge.gaussian import GaussianKnowledge
from tzk_core.plugins import FlowLayer, KnowledgeType, PluginRecord, Registry, Spec
from tzk_core.plugins.builtin import BUILTIN
from tzk_core.plugins.loader import Loaded, load_all
from tzk_core.storage import checkpoint, shared_flow
from tzk_core.transforms.affine import Affine


class Versioned(GaussianKnowledge):
    """A knowledge type of a plugin, whose second version calls its latent by another name."""

    state_version = 2

    @staticmethod
    def upgrade(state: dict[str, Tensor], version: int) -> dict[str, Tensor]:
        assert version == 1
        return {key.replace("old_latent.", "latent."): value for key, value in state.items()}


class VersionedLayer(Affine):
    """A flow layer of a plugin, whose second version calls its shift by another name."""

    state_version = 2

    @staticmethod
    def upgrade(state: dict[str, Tensor], version: int) -> dict[str, Tensor]:
        assert version == 1
        return {"shift" if key == "offset" else key: value for key, value in state.items()}


OFFERED: list[Spec] = [
    KnowledgeType("versioned", f"{__name__}:Versioned", "of a test"),
    FlowLayer("versioned-layer", f"{__name__}:VersionedLayer", "of a test"),
]


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Spec]]:
    """The specs of the installed plugin `extra`, of tzk-plugin-extra; clear the list to uninstall it."""
    specs = list(OFFERED)

    @functools.cache
    def with_plugin(offers: tuple[Spec, ...]) -> Registry:
        record = PluginRecord("extra", "tzk-plugin-extra", "1.5", "extra", "ok", ("tzk_knowledge_types",), "")
        return Registry([*load_all(BUILTIN, []), *([Loaded(record, offers)] if offers else [])])

    def registry() -> Registry:
        return with_plugin(tuple(specs))

    for module in (build, checkpoint, shared_flow, implementations):
        monkeypatch.setattr(module, "registry", registry)
    yield specs
