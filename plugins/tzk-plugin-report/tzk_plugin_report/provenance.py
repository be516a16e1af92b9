"""Where a run comes from, and the commands that make it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from tzk_core.version import current_name
from tzk_plugin_report.reading import Run


def commands(run: Run) -> list[str]:
    """What to type to get the run again, from what is installed to its report."""
    record = run.record
    lines = []
    versions = record.get("versions", {})
    plugins = {plugin["distribution"]: plugin["version"] for plugin in record.get("plugins", ())}
    wanted = ["tzk-core", *run.config.get("plugins", ())]
    known = {current_name(name): version for name, version in {**plugins, **versions}.items()}
    lines.append(
        shlex.join(["pip", "install", *(f"{name}=={known[name]}" if name in known else name for name in wanted)])
    )
    if (git := record.get("git")) and git.get("commit"):
        lines.append(f"# at commit {git['commit']}" + (", with files changed since" if git.get("dirty") else ""))
    lineage = record.get("lineage") or ()
    made = [command for entry in lineage for command in (entry.get("parent_command"), entry.get("command"))]
    made = made if record.get("command") in made else [record.get("command"), *made]
    lines += [str(command) for command in dict.fromkeys(made) if command]
    lines += [str(entry["command"]) for entry in record.get("resumes", ()) if entry.get("command")]
    return [*lines, shlex.join(["tzk", "report", str(run.path)])]


def provenance(run: Run) -> list[tuple[str, str]]:
    """Names and values of what the run was made with."""
    record, hardware = run.record, run.record.get("hardware", {})
    where = ", ".join(str(part) for part in (*hardware.get("accelerators", ()), hardware.get("processor")) if part)
    pairs = [
        ("Begun", record.get("started", "")),
        ("State", record.get("status", "")),
        ("Seed", str(record.get("seed", run.config.get("seed", "")))),
        ("Computed in", f"{record.get('dtype', '')} on {record.get('device', '')}" if record.get("device") else ""),
        ("Machine", f"{where}, {hardware.get('cores')} cores" if where else ""),
        ("Time", _times(record.get("timings", {}))),
        ("Versions", ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())),
        ("Plugins", ", ".join(f"{p['distribution']} {p['version']}" for p in record.get("plugins", ()))),
        ("Round trip", _invertibility(run.results.get("invertibility", {}))),
    ]
    return [(name, value) for name, value in pairs if value]


def _times(timings: Mapping[str, float]) -> str:
    return ", ".join(
        f"{part.removesuffix('_seconds')} {value:,.0f} s" for part, value in timings.items() if value >= 0.5
    )


def _invertibility(measured: Mapping[str, Any]) -> str:
    error = measured.get("max_abs_error")
    return (
        "" if error is None else f"f(f⁻¹(T)) differs from T by at most {error:.2g} {measured.get('unit', '')}".strip()
    )
