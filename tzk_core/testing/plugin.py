"""Checks of a plugin: quick registration, and targets that are what its specs say."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import os
import subprocess
import sys
from typing import Any

import click
from nflows.transforms.base import Transform

from tzk_core.distributions.base import Reparametrised
from tzk_core.errors import TzkError
from tzk_core.knowledge import Knowledge
from tzk_core.plugins import specs
from tzk_core.plugins.registry import PartNotLoadable, Registered, registry
from tzk_core.plugins.validation import GROUP, specs_of
from tzk_core.testing.expectations import expect
from tzk_core.training.observers import Observer

_BASES: dict[type[specs.Spec], type] = {
    specs.FlowLayer: Transform,
    specs.KnowledgeType: Knowledge,
    specs.Base: Reparametrised,
    specs.Observer: Observer,
}
"""By type of spec, what its target has to be a subclass of."""

HEAVY = ("torch", "torchvision", "nflows", "numpy", "scipy", "matplotlib", "PIL", "pydantic", "triton")
"""Modules that the registration of a plugin may not import, since `tzk --help` would wait for them."""


_CALLED: dict[type[specs.Spec], tuple[str, str]] = {
    specs.Metric: ("rows", "a class with columns and a method rows(evaluated)")
}
"""By type of part, the method that its target has to have, and what that is in words."""


def check_plugin(entry_point: str) -> list[specs.Spec]:
    """Check that registration imports nothing heavy, and that every target is what its spec says.

    Registration is tried in a fresh interpreter. A flow layer has to be an nflows `Transform`, a knowledge type a
    `Knowledge`, an observer an `Observer`, a command a click command, a metric a class with `rows`. A picture takes
    (subject, folder). A data set has defaults for all its arguments. An implementation takes its layer's arguments, or
    none if it computes several layers.

    Args:
        entry_point: as `pyproject.toml` announces it, "my_package.plugin" or "my_package.plugin:object".

    Returns:
        The specs of the plugin.

    Raises:
        NotConforming: with what was expected and what it got.
    """
    _check_registration(entry_point)
    plugin = importlib.metadata.EntryPoint("plugin", entry_point, GROUP).load()
    offered = [spec for returned in specs_of(plugin, "plugin").values() for spec in returned]
    faults = [fault for spec in offered if (fault := _fault_of(spec))]
    expect(not faults, f"plugin {entry_point!r}: " + "; ".join(faults))
    return offered


def _check_registration(entry_point: str) -> None:
    """Load the plugin and call its hooks in a fresh interpreter."""
    program = (
        "import json, sys\n"
        "from importlib.metadata import EntryPoint\n"
        "from tzk_core.plugins.validation import specs_of\n"
        f"specs_of(EntryPoint('plugin', sys.argv[1], {GROUP!r}).load(), 'plugin')\n"
        "print('\\n' + json.dumps([name for name in sys.argv[2:] if name in sys.modules]))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", program, entry_point, *HEAVY]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    last = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
    expect(
        process.returncode == 0 and bool(process.stdout.strip()),
        f"plugin {entry_point!r} does not register: {last}",
    )
    heavy = json.loads(process.stdout.strip().splitlines()[-1])
    expect(
        not heavy,
        f"plugin {entry_point!r}: registering it should import nothing heavy; it imports {', '.join(heavy)}."
        f" Move what needs them to other modules: the targets of specs are imported on first use",
    )


def _fault_of(spec: specs.Spec) -> str:
    """The fault of a spec's target; "" if there is none."""
    what = f"the {spec.kind} {spec.name!r} ({spec.target})"
    try:
        target = Registered(spec, "plugin", "", "").load()
    except PartNotLoadable as error:
        return str(error)
    if isinstance(spec, specs.Command):
        return "" if isinstance(target, click.Command) else f"{what} should be a click command; got {target!r}"
    base = _BASES.get(type(spec))
    if base is not None and not (inspect.isclass(target) and issubclass(target, base)):
        return f"{what} should be a subclass of {base.__module__}.{base.__name__}; got {target!r}"
    method, wanted = _CALLED.get(type(spec), ("__call__", "a class or a function"))
    if not callable(getattr(target, method, None)):
        return f"{what} should be {wanted}; got {target!r}"
    return _fault_of_signature(what, spec, target)


def _fault_of_signature(what: str, spec: specs.Spec, target: Any) -> str:
    parameters = inspect.signature(target).parameters
    if isinstance(spec, specs.Picture):
        names = list(parameters)
        return "" if names[:2] == ["subject", "folder"] else f"{what} should take (subject, folder); got {names}"
    positional = [key for key, parameter in parameters.items() if parameter.kind is parameter.POSITIONAL_ONLY]
    if positional:
        return f"{what} should take its arguments by keyword; {', '.join(positional)} cannot be"
    if isinstance(spec, specs.Dataset):
        needed = [
            key
            for key, parameter in parameters.items()
            if parameter.default is parameter.empty and not _collects(parameter)
        ]
        return f"{what} should have defaults for {', '.join(needed)}" if needed else ""
    if isinstance(spec, specs.Implementation):
        return _fault_of_implementation(what, spec.layer.split(), target)
    return ""


def _fault_of_implementation(what: str, names: list[str], target: Any) -> str:
    try:
        layers = [registry().find(specs.FlowLayer, name).load() for name in names]
    except TzkError as error:
        return f"{what}: {error}"
    several = len(layers) > 1
    missing = [method for method in ("forward", "inverse") if not callable(getattr(target, method, None))]
    if missing:
        return f"{what} should have a method {' and a method '.join(missing)}"
    taken, expected = list(inspect.signature(target).parameters), list(inspect.signature(layers[0]).parameters)
    expected = [] if several else expected
    if taken == expected:
        return ""
    if several:
        return f"{what} should take no arguments, as its methods get the layers; got {taken}"
    return f"{what} should take {names[0]!r}'s arguments {expected}; got {taken}"


def _collects(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
