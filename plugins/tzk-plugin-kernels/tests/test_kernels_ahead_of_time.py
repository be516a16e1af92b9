"""Triton's kernels compile for GPUs that this machine need not have."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed; torch brings it on Linux"
)


@pytest.mark.slow
def test_every_kernel_compiles_for_sm_80_and_sm_90(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TRITON_CACHE_DIR": str(tmp_path)}
    program = str(Path(__file__).with_name("ahead_of_time.py"))
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    made = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(made) == 8 * 3 + 5 * 2
    assert {each["sm"] for each in made} == {80, 90}
    assert all(each["bytes"] > 0 for each in made)
    assert not any(each["tf32"] for each in made)
