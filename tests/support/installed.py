"""Install small distributions into a temporary folder, as pip would: a module, a dist-info, entry points."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

OFFERS = """
    from tzk_core.plugins import FlowLayer, hookimpl
    @hookimpl
    def tzk_flow_layers():
        return [FlowLayer({name!r}, {target!r}, "a layer of a test")]
"""


def install(
    folder: Path,
    distribution: str,
    source: str = "",
    *,
    version: str = "1.0",
    name: str | None = None,
    group: str = "tzk.v1",
    entry_point: str | None = None,
) -> str:
    """Install `distribution` with one module that has `source`; returns the module's name.

    The entry point, in `group`, is by default the module, under the module's name.
    """
    module = distribution.replace("-", "_")
    (folder / f"{module}.py").write_text(dedent(source))
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name or module} = {entry_point or module}\n")
    return module


def offers(name: str, target: str = "math:exp") -> str:
    """Source of a plugin that offers one flow layer; math:exp stands for a layer where only names matter."""
    return OFFERS.format(name=name, target=target)


def python(folder: Path, program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter that sees the distributions in `folder`, and this checkout."""
    command, environment = _call(folder, program, environment)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)


@contextmanager
def started(folder: Path, program: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The same, going on during the block and ended after it."""
    command, environment = _call(folder, program, environment)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _call(folder: Path, program: str, environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    checkout = str(Path(__file__).parents[2])
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TZK_")}
    paths = {"PYTHONPATH": os.pathsep.join([str(folder), checkout])}
    return [sys.executable, "-c", dedent(program)], inherited | paths | environment
