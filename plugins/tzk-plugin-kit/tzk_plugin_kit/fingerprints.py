"""Samples in short, so that those of another process can be compared."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from typing import Any

from tzk_core.data.protocol import SPLITS, Samples
from tzk_core.testing.expectations import expect

PROGRAM = """
import json, os, pickle, sys
with os.fdopen(os.dup(1), "w") as answer:
    os.dup2(2, 1)  # what a data set prints is not the answer
    from tzk_plugin_kit.fingerprints import fingerprints
    with open(sys.argv[1], "rb") as file:
        sys.path[:] = pickle.load(file)
        made = pickle.load(file)
    json.dump(fingerprints(made), answer)
"""


def fingerprint(samples: Samples) -> dict[str, str]:
    """Digests of T and of every column, by what they are."""
    digests = {"T": _digest(str(samples.T.dtype), tuple(samples.T.shape), samples.T.contiguous().numpy().tobytes())}
    for key, column in samples.labels.items():
        digests[f"label column {key!r}"] = _digest(json.dumps(column.tolist()))
    for key, values in samples.characteristics.items():
        digests[f"characteristic {key!r}"] = _digest(values.contiguous().numpy().tobytes())
    return digests


def fingerprints(dataset: Any) -> dict[str, dict[str, str]]:
    """Those of every split of a data set, or of what makes one."""
    made = dataset() if callable(dataset) else dataset
    return {split: fingerprint(made.split(split)) for split in SPLITS}


def fingerprint_elsewhere(name: str, dataset: Any) -> dict[str, dict[str, str]]:
    """The fingerprints in a new process, whose sets and hashes are in another order.

    Raises:
        NotConforming: if the data set cannot be taken there, or cannot be read there.
    """
    import tempfile

    try:
        pickled = pickle.dumps(dataset)
    except Exception as error:  # whatever its attributes raise
        pickled, reason = b"", str(error)
    expect(
        bool(pickled),
        f"{name}: should be comparable with another process, and cannot be pickled ({reason if not pickled else ''}):"
        " pass its class, or functools.partial(class, arguments), of an importable module",
    )
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "dataset.pickle")
        with open(path, "wb") as file:
            pickle.dump([entry for entry in sys.path if entry], file)
            file.write(pickled)
        environment = os.environ | {
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        }
        command = [sys.executable, "-c", PROGRAM, path]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    last = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
    expect(
        process.returncode == 0,
        f"{name}: should be readable in another process; there it raises {last}: define it in an importable module",
    )
    answer: dict[str, dict[str, str]] = json.loads(process.stdout)
    return answer


def _digest(*values: Any) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(value if isinstance(value, bytes) else str(value).encode())
    return digest.hexdigest()
