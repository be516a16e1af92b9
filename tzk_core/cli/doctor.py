"""`tzk doctor [RUN]`: versions, devices, plugins, implementations, and whether a model agrees with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from tzk_core.cli import output
from tzk_core.strict_json import json_text


@click.command(name="doctor")
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--device", default="auto", show_default=True, help="Where RUN is computed.")
@click.option("-n", "number", type=click.IntRange(min=1), default=64, show_default=True, help="Samples of RUN.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, *, run: Path | None, device: str, number: int, as_json: bool) -> None:
    """Report versions, devices, plugins and active layer implementations, and why one is not used.

    With RUN, its model is computed twice on one device, by its layers as they are and with what plugins bring for
    them, on its own samples: log p(T), z, gradients, and T from z. The exit status is 1 if they differ by more than
    rounding.
    """
    report = _environment()
    if run is not None:
        report["agreement"] = _agreement(run, device, number)
    report["implementations"] = _implementations()  # after RUN was computed, which is when one may fail
    output.say(json_text(report) if as_json else _shown(report))
    if run is not None and not report["agreement"]["agree"]:
        ctx.exit(1)


def _environment() -> dict[str, Any]:
    import torch  # `tzk --help` does without

    from tzk_core.plugins import registry
    from tzk_core.runs.record import PACKAGES, hardware
    from tzk_core.runs.tables import chosen_device
    from tzk_core.version import installed_version

    return {
        "versions": {name: installed_version(name) for name in (*PACKAGES, "triton")},
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "device": str(chosen_device("auto")),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith("TZK_")},
        "plugins": [
            {"name": plugin.name, "distribution": plugin.distribution, "version": plugin.version, "state": plugin.state}
            | ({"reason": plugin.reason} if plugin.reason else {})
            | ({"remarks": list(plugin.remarks)} if plugin.remarks else {})
            for plugin in registry().plugins
        ],
    }


def _implementations() -> list[dict[str, Any]]:
    from tzk_core.implementations import offers

    return [offer.described() for offer in offers()]


def _agreement(run: Path, device: str, number: int) -> dict[str, Any]:
    import torch

    import tzk_core
    from tzk_core.agreement import TOLERANCE, agreement, as_it_is
    from tzk_core.implementations import places
    from tzk_core.runs.tables import chosen_device

    where = chosen_device(device)
    plain, other = (tzk_core.load(run).eval() for _ in range(2))
    dtypes = [torch.float32] + ([torch.float64] if where.type != "mps" else [])  # which has no float64
    differences = {
        str(dtype).removeprefix("torch."): agreement(as_it_is(plain, where, dtype), other.to(where, dtype), number)
        for dtype in dtypes
    }
    return {
        "run": str(run),
        "device": str(where),
        "name": torch.cuda.get_device_name(where) if where.type == "cuda" else where.type,
        "places": places(other, where.type),
        "samples": number,
        "differences": differences,
        "tolerance": TOLERANCE,
        "agree": max(differences["float32"].values()) <= TOLERANCE,
    }


def _shown(report: dict[str, Any]) -> str:
    hardware = report["hardware"]
    parts = [
        ", ".join(f"{name} {number}" for name, number in report["versions"].items() if number),
        f"{hardware['system']} {hardware['machine']}, {hardware['processor']}, {hardware['cores']} cores, "
        f"{report['threads']} threads; {', '.join(hardware['accelerators']) or 'no CUDA device'}; "
        f'device = "auto" is {report["device"]}',
        *(f"{name}={value}" for name, value in report["environment"].items()),
        "",
        _table(
            {"PLUGIN": "name", "DISTRIBUTION": "distribution", "VERSION": "version", "STATE": "state"},
            report["plugins"],
        ),
        *(
            f"{plugin['name']}: {text}"
            for plugin in report["plugins"]
            for text in [*([plugin["reason"]] if "reason" in plugin else []), *plugin.get("remarks", [])]
        ),
    ]
    if report["implementations"]:
        columns = {"IMPLEMENTATION": "name", "LAYER": "layer", "DEVICE": "device", "USED": "used", "REASON": "reason"}
        rows = [offer | {"used": "yes" if offer["used"] else "no"} for offer in report["implementations"]]
        parts += ["", _table(columns, rows)]
    else:
        parts += ["", "no plugin brings another implementation of a layer"]
    if "agreement" in report:
        parts += ["", _verdict(report["agreement"])]
    return "\n".join(parts)


def _table(columns: dict[str, str], rows: list[dict[str, Any]]) -> str:
    """A table of text: `columns` are titles, and the keys of the rows below them."""
    return output.columns(list(columns), [[str(row[key]) or "-" for key in columns.values()] for row in rows])


def _verdict(agreement: dict[str, Any]) -> str:
    used = ", ".join(f"{name} in {output.count(count, 'place')}" for name, count in agreement["places"].items())
    dtypes = list(agreement["differences"])
    rows = [
        [what, *(f"{agreement['differences'][dtype][what]:.1e}" for dtype in dtypes)]
        for what in agreement["differences"]["float32"]
    ]
    return "\n".join(
        [
            f"{agreement['run']} on {agreement['name']}: {used or 'no implementation is used'}",
            f"relative differences to the layers as they are, {output.count(agreement['samples'], 'sample')}:",
            output.columns(("", *dtypes), rows),
            f"they {'agree' if agreement['agree'] else 'DIFFER'}: at most {agreement['tolerance']:.0e} in float32",
        ]
    )
