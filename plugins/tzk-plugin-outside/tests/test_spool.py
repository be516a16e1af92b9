"""What `tzk score` holds in memory does not grow with the number of images, and nothing is lost on the disk."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from pathlib import Path

import pytest
import torch
from tzk_plugin_outside import scores, spool
from tzk_plugin_outside.evidence import Evidence
from tzk_plugin_outside.novelty import Novelty
from tzk_plugin_outside.reading import Read
from tzk_plugin_outside.scores import Scored

from tzk_core import TzK, build_flow, build_knowledge
from tzk_core.cli import output

BATCH = 500


def evidence(seed: int, count: int = BATCH, names: tuple[str, ...] = ("a", "b")) -> Evidence:
    draws = torch.Generator().manual_seed(seed)
    ratio = torch.randn(count, len(names), generator=draws)
    return Evidence(names, torch.randn(count, generator=draws), ratio, -ratio.exp(), None)


def scored(batches: int, names: tuple[str, ...] = ("a", "b")) -> Scored:
    model = TzK(build_flow((2,), layers=[{"type": "affine"}]))
    for name in names:
        model.add(name, build_knowledge("gaussian", (2,), name=name, hidden=4))
    result = Scored("run", Novelty.from_threshold(model, names, -5.0), dims=2, levels=None)
    for number in range(batches):
        read = Read(torch.zeros(BATCH, 2), [Path("x.npz")] * BATCH, range(number * BATCH, (number + 1) * BATCH))
        result.add(read, evidence(number, names=names))
    return result


@pytest.mark.parametrize("most", [1, 2**30], ids=["on the disk", "in memory"])
def test_what_comes_back_is_what_went_in(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", most)
    batches = [(["α", "b\udc80"], [None, 3], evidence(seed, 2)) for seed in range(3)]
    kept = spool.Spool()
    for batch in batches:
        kept.add(*batch)
    for _ in range(2):
        for (files, rows, found), expected in itertools.zip_longest(kept, batches):
            assert (files, rows, found.knowledge) == (expected[0], expected[1], expected[2].knowledge)
            assert found.log_prob.equal(expected[2].log_prob) and found.log_ratio.equal(expected[2].log_ratio)
            assert found.log_presence.equal(expected[2].log_presence) and found.code_length is None


def test_the_table_is_that_of_all_its_lines() -> None:
    result = scored(2)
    lines = "".join(result.text_parts()).split("\n\n")[0].splitlines()
    header = ["file", "bits/dim", "log p(T)", "knowledge", "log ratio", "p(κ=1)", "best", "p-value"]
    assert "\n".join(lines) == output.columns(header, [scores._cells(entry) for entry in result.entries()])
    assert len(lines) == 2 * BATCH + 1
    assert len(json.loads("".join(result.json_parts()))["images"]) == 2 * BATCH


@pytest.mark.parametrize("way", ["text", "json", "csv"])
def test_memory_does_not_grow_with_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 1)

    def peak(batches: int) -> int:
        tracemalloc.start()
        result = scored(batches)
        if way == "csv":
            result.write_csv(tmp_path / "x.csv")
        else:
            for _ in result.text_parts() if way == "text" else result.json_parts():
                pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(1)
    few, many = peak(2), peak(12)
    assert (many - few) / (10 * BATCH) < 20  # bytes an image; the lines of the table take 1,000
