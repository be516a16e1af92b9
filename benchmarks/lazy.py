"""Memory and time of a lazily opened model, by the number of its knowledge types.

    python benchmarks/lazy.py [--json] [--types 1000 10000 100000] [--whole N] [--folder FOLDER]

Checkpoints have so many small types of one structure, each with values of its own, over a flow of 16 dimensions. In a
process of its own, each is opened. The posterior of 8 observations is computed for every type, and log p(T given κ=1)
for the first 1,000. Then the peak of its memory is taken, less what importing takes. Up to `--whole` types the same is
done with the whole model, which is saved as well, and all values are compared bit for bit. Figures are bytes, and
ratios to the smallest one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from timing import machine

import tzk_core
from tzk_core.build import build_flow, build_knowledge
from tzk_core.model import TzK
from tzk_core.random_streams import stream
from tzk_core.storage.checkpoint import knowledge_file, save_checkpoint
from tzk_core.storage.manifest import read_manifest, write_knowledge, write_manifest

DIMS, BATCH, SAMPLES = 16, 8, 8
SCORED = 1000
"""log p(T given κ=1) is computed of so many types at most."""


def write(folder: Path, types: int) -> float:
    """Write a checkpoint of so many types, one at a time; the seconds taken."""
    began = time.perf_counter()
    model = TzK(build_flow((DIMS,), layers=[{"type": "affine"}]))
    save_checkpoint(model, folder)
    manifest = read_manifest(folder)
    (folder / "knowledge").rmdir()
    form, manifest["knowledge"] = write_knowledge(folder, made(types, manifest["core"]["hash"]), types)
    write_manifest(folder, manifest | {"format": form})
    return time.perf_counter() - began


def made(types: int, core: str) -> Iterator[tuple[str, dict[str, Any], bytes]]:
    """Name, entry and file of so many types, one at a time."""
    kind = build_knowledge("low-rank", (DIMS,), 0, name="type", dims=8, hidden=8, layers=2)
    start = {key: value.clone() for key, value in kind.named_parameters()}
    for number in range(types):
        name, source = f"type-{number}", stream(number, "values")
        with torch.no_grad():
            for key, parameter in kind.named_parameters():
                parameter.copy_(start[key] + 0.05 * torch.randn(parameter.shape, generator=source))
        yield (name, *knowledge_file(name, kind, core))


def peak() -> int:
    """The most memory that this process has had, in bytes.

    `getrusage` counts that of the process that started it too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if line[:6] == "VmHWM:")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def used(folder: Path, *, lazy: bool) -> dict[str, Any]:
    """Go through all types of a checkpoint: seconds, bytes, a hash of all values."""
    imported, began, began_cpu = peak(), time.perf_counter(), time.process_time()
    model = tzk_core.open(folder, lazy=lazy)
    opened, opened_cpu = time.perf_counter(), time.process_time()
    opened_bytes = peak() - imported
    T, values = torch.randn(BATCH, DIMS, generator=stream(0, "T")), hashlib.sha256()
    for name, posterior in tzk_core.posteriors(model, T):
        values.update(name.encode() + posterior.presence.numpy().tobytes() + posterior.mean.numpy().tobytes())
    posteriors, posteriors_cpu = time.perf_counter(), time.process_time()
    for name, log_prob in islice(tzk_core.log_probs(model, T, importance_samples=SAMPLES), SCORED):
        values.update(name.encode() + log_prob.numpy().tobytes())
    report = {
        "open_seconds": round(opened - began, 3),
        "open_cpu_seconds": round(opened_cpu - began_cpu, 3),
        "posterior_seconds": round(posteriors - opened, 3),
        "posterior_cpu_seconds": round(posteriors_cpu - opened_cpu, 3),
        "log_prob_seconds": round(time.perf_counter() - posteriors, 3),
        "log_prob_cpu_seconds": round(time.process_time() - posteriors_cpu, 3),
        "open_bytes": opened_bytes,
        "bytes": peak() - imported,
        "values": values.hexdigest(),
    }
    if not lazy:
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            began, began_cpu = time.perf_counter(), time.process_time()
            tzk_core.save(model, Path(place) / "saved")
            report["save_seconds"] = round(time.perf_counter() - began, 3)
            report["save_cpu_seconds"] = round(time.process_time() - began_cpu, 3)
    return report


def apart(folder: Path, how: str) -> dict[str, Any]:
    """What `used` returns, from a process of its own."""
    command = [sys.executable, __file__, "--used", str(folder), how]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def report_of(types: list[int], whole: int, folder: Path) -> dict[str, Any]:
    """The report on checkpoints in `folder`, which are written where they are not there."""
    report: dict[str, Any] = {"types": {}, **machine()}
    for number in sorted(types):
        place = folder / str(number)
        entry: dict[str, Any] = {} if place.exists() else {"write_seconds": round(write(place, number), 1)}
        entry["lazy"] = apart(place, "lazy")
        if number <= whole:
            entry["whole"] = apart(place, "whole")
            entry["equal"] = entry["whole"]["values"] == entry["lazy"]["values"]
            entry["bytes_of_whole"] = round(entry["lazy"]["bytes"] / entry["whole"]["bytes"], 3)
        first = next(iter(report["types"].values()), entry)
        entry["ratio"] = round(entry["lazy"]["bytes"] / first["lazy"]["bytes"], 3)
        report["types"][f"{number}"] = entry
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--types", type=int, nargs="+", default=[1000, 10_000], help="(default: %(default)s)")
    parser.add_argument(
        "--whole", type=int, default=1000, help="the most types of a whole model (default: %(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="where checkpoints are kept; a temporary one by default")
    parser.add_argument("--used", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.used:
        print(json.dumps(used(Path(arguments.used[0]), lazy=arguments.used[1] == "lazy")))
        return
    with tempfile.TemporaryDirectory() as temporary:
        report = report_of(arguments.types, arguments.whole, arguments.folder or Path(temporary))
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{'types':>8}{'opened':>11}{'posteriors':>12}{'log p':>11}{'memory':>12}{'ratio':>8}")
    for number, entry in report["types"].items():
        for how in ("lazy", "whole"):
            if how in entry:
                own, ratio = entry[how], f"{entry['ratio']:.2f}" if how == "lazy" else "whole"
                seconds = [own[key] for key in ("open_seconds", "posterior_seconds", "log_prob_seconds")]
                cells = "".join(f"{value:>9.2f} s" for value in seconds)
                print(f"{number:>8}{cells}{own['bytes'] / 2**20:>9.1f} MB{ratio:>8}")
        if "equal" in entry:
            print(f"{number:>8}  equal bit for bit: {entry['equal']}; saved in {entry['whole']['save_seconds']:.2f} s")


if __name__ == "__main__":
    main()
