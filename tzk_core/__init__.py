"""TzK: a normalizing flow shared by data sets, and knowledge types that make it conditional.

    import tzk_core
    model = tzk_core.load("runs/joint-...")
    model.log_prob(T, knowledge="digit-7")

Names are imported when they are first used, so that `import tzk_core` costs nothing. `__version__` is the installed
distribution's, "unknown" in a source tree that was not installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tzk_core.moved import forward_imports

if TYPE_CHECKING:
    __version__: str
    from tzk_core.acceleration import accelerate as accelerate
    from tzk_core.build import build_flow as build_flow
    from tzk_core.build import build_knowledge as build_knowledge
    from tzk_core.errors import TzkError as TzkError
    from tzk_core.knowledge import Knowledge as Knowledge
    from tzk_core.model import Composition as Composition
    from tzk_core.model import SharedFlow as SharedFlow
    from tzk_core.model import TzK as TzK
    from tzk_core.model.many import log_probs as log_probs
    from tzk_core.model.many import posteriors as posteriors
    from tzk_core.observations import Observations as Observations
    from tzk_core.storage.knowledge_files import export_knowledge as export_knowledge
    from tzk_core.storage.knowledge_files import import_knowledge as import_knowledge
    from tzk_core.storage.knowledge_files import list_knowledge as list_knowledge
    from tzk_core.storage.knowledge_files import remove_knowledge as remove_knowledge
    from tzk_core.storage.opening import open as open
    from tzk_core.training.adding.add import add as add
    from tzk_core.training.fit import fit as fit
    from tzk_core.training.fit import load as load
    from tzk_core.training.fit import save as save

_HOME = {
    "build_flow": "tzk_core.build",
    "build_knowledge": "tzk_core.build",
    "Composition": "tzk_core.model",
    "TzkError": "tzk_core.errors",
    "Knowledge": "tzk_core.knowledge",
    "SharedFlow": "tzk_core.model",
    "TzK": "tzk_core.model",
    "Observations": "tzk_core.observations",
    "accelerate": "tzk_core.acceleration",
    "add": "tzk_core.training.adding.add",
    "fit": "tzk_core.training.fit",
    "load": "tzk_core.training.fit",
    "save": "tzk_core.training.fit",
    "open": "tzk_core.storage.opening",
    "log_probs": "tzk_core.model.many",
    "posteriors": "tzk_core.model.many",
    "export_knowledge": "tzk_core.storage.knowledge_files",
    "import_knowledge": "tzk_core.storage.knowledge_files",
    "list_knowledge": "tzk_core.storage.knowledge_files",
    "remove_knowledge": "tzk_core.storage.knowledge_files",
}

__all__ = sorted(_HOME.keys() - {"open"})  # `from tzk_core import *` hides no built-in function


forward_imports()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("tzk_core.version").installed_version() or "unknown"
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, "__version__"})
