"""Triton's kernels against their definitions, in Triton's interpreter, which needs no GPU."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest


def _release(version: str) -> tuple[int, ...]:
    """Major and minor number."""
    return tuple(int(number) for number in version.split(".")[:2])


def _installed() -> str:
    return importlib.metadata.version("triton") if importlib.util.find_spec("triton") is not None else ""


pytestmark = [
    pytest.mark.skipif(not _installed(), reason="Triton is not installed; torch brings it on Linux"),
    pytest.mark.skipif(
        bool(_installed()) and _release(_installed()) <= (3, 5) and _release(numpy.__version__) >= (2, 4),
        reason="the interpreter of Triton up to 3.5 needs NumPy before 2.4",
    ),
]

ROUNDINGS = 50
"""Relative differences in units of the type's rounding: 6e-6 in float32. The largest found was 10."""


@pytest.fixture(scope="module")
def cases() -> list[dict[str, object]]:
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
    }
    program = str(Path(__file__).with_name("interpreted.py"))
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_kernel_computes_its_definition(cases: list[dict[str, object]]) -> None:
    assert len(cases) == 2 * (3 + 7 * 4 * 3 + 6 * 3) + 4 * 3
    wrong = [case for case in cases if not case["finite"] or not float(str(case["roundings"])) < ROUNDINGS]
    assert not wrong


def test_functions_keep_their_relative_precision_over_all_magnitudes(cases: list[dict[str, object]]) -> None:
    found = [case for case in cases if case["case"] in ("log1p", "expm1", "tanh")]
    assert len(found) == 6
    assert not [case for case in found if not float(str(case["roundings"])) < 3]
