"""Pages need nothing but themselves, say what results say, and escape what they quote."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from commands import output_of
from tzk_plugin_report import curves, decoding, extra, marginals, tables
from tzk_plugin_report.held_out import Encoded, confusion, reasons
from tzk_plugin_report.reading import read_columns
from tzk_plugin_report.sprites import sprite
from tzk_plugin_report.writing import write_report

from tzk_core.errors import TzkError
from tzk_core.evaluation.likelihood import EvaluationSplit
from tzk_core.testing import check_plugin


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def test_the_plugin_conforms() -> None:
    names = {spec.name for spec in check_plugin("tzk_plugin_report")}
    commands_and_report = {"report", "explore", "list", "init", "page"}
    drawn = {"training-curves", "density", "samples-of-vectors", "reconstructions-of-vectors", "plane-of-c-of-vectors"}
    assert names == commands_and_report | drawn


def test_a_page_is_small_and_names_nothing_outside_of_itself(page: str) -> None:
    assert len(page.encode()) < 5_000_000
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)[^"']*""", page)
    assert not re.findall(r"@import|url\((?!data:|\$)", page)


def test_a_page_has_the_figures_of_the_results_and_all_its_sections(page: str, run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    prior = next(row for row in results["rows"] if row["kind"] == "prior")
    assert f"On digits it takes {prior['bits_per_dim']:.3f} bits/dim" in page
    for entry in results["knowledge"]:
        assert f"<td>{entry['name']}</td>" in page
    assert "The prior is p(T)" in page and "A mixture does not know" in page and "Published" not in page
    assert '<td class="number">—</td>' in page  # what is missing stands where its column stands
    sections = re.findall(r'<section id="([\w-]+)"', page)
    wanted = "answer findings curves likelihood knowledge samples plane reconstructions confusion surprises provenance"
    assert sections == wanted.split()
    assert f"tzk report {run}" in page and "tzk run" in page


def test_every_picture_has_an_alternative_text(page: str) -> None:
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) > 20
    assert all(re.search(r'alt="[^"]{5,}"', picture) for picture in pictures)


def test_planes_are_21_by_21_decodings_with_test_samples_at_their_c(page: str) -> None:
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])  # type: ignore[index]
    by_name = {plane["name"]: plane for plane in data["planes"]}
    assert len(by_name) == 11
    plane = by_name["digit-3"]
    assert (plane["rows"], plane["columns"], len(plane["C"])) == (21, 21, 441)
    assert plane["axes"] == ["slant", "thickness"] and by_name["digits"]["axes"] == ["C1", "C2"]
    assert plane["sprite"]["uri"].startswith("data:image/") and plane["placed"]["sprite"]["count"] > 0
    assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in plane["placed"]["places"])
    slants = [C[0] for C in plane["C"][:21]]
    assert slants == sorted(slants) and plane["C"][0][1] > plane["C"][-1][1]  # right is more, up is more


def test_what_a_run_is_called_is_text_and_no_markup(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    results = json.loads((copy / "results.json").read_text())
    results["notes"] = ["</script><script>alert(1)</script>"]
    (copy / "results.json").write_text(json.dumps(results))
    page = write_report(copy).read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page


def test_a_run_whose_data_are_gone_has_a_page_without_test_samples(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    config = (copy / "config.toml").read_text().replace("glyph-digits", "glyphs-that-were")
    assert "glyphs-that-were" in config
    (copy / "config.toml").write_text(config)
    page = write_report(copy).read_text(encoding="utf-8")
    assert "The data cannot be read here" in page and "glyphs-that-were" in page
    assert '<section id="samples"' in page and '<section id="surprises"' not in page


def test_points_have_marginals_and_a_scatter_plot_in_the_place_of_pictures(planar: Path) -> None:
    page = write_report(planar).read_text(encoding="utf-8")
    assert page.count('class="marginal"') == 2 * 3 and page.count('class="scatter"') == 3
    assert "<img" not in page and '<section id="plane"' in page


def test_several_runs_are_compared_where_they_can_be(run: Path, planar: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other"
    shutil.copytree(run, copy)
    results = json.loads((copy / "results.json").read_text())
    for row in results["rows"]:
        row["bits_per_dim"] = row["bits_per_dim"] * 2
    (copy / "results.json").write_text(json.dumps(results))
    output_of("report", run, copy, planar, "-o", tmp_path / "comparison.html")
    page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert "On digits small is the best" in page and "50 % fewer than other" in page
    assert "flow.recipe" in page and "On moons" not in page


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path) -> None:
    assert "is not a run folder" in output_of("report", tmp_path, status=2)
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(TzkError, match="expected a column 'step'"):
        read_columns(tmp_path / "metrics.csv")


def test_curves_are_sorted_thinned_and_keep_their_gaps(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text(
        "step,bits_per_dim/d,validation/d\n" + "".join(f"{i},{i}.5,\n" for i in range(2500, 0, -1)) + "3000,1,2\n"
    )
    columns = read_columns(file)
    assert list(columns["step"])[:2] == [1.0, 2.0]
    (panel,) = curves.panels(columns)
    assert len(panel["steps"]) <= curves.MOST_POINTS == 1000
    training, validation = panel["series"]
    assert training["values"][0] == pytest.approx((1.5 + 2.5 + 3.5) / 3)
    assert validation["dashed"] and validation["values"][:-1] == [None] * (len(validation["values"]) - 1)


def test_sprites_hold_their_budget_and_say_where_images_are() -> None:
    noise = torch.rand(100, 3, 64, 64)
    small = sprite(noise, 10, gap=1, budget=60_000)
    assert len(small.uri) < 60_000 * 4 / 3 + 100 and small.rows == 10
    plain = sprite(torch.zeros(7, 1, 16, 16), 4, gap=2)
    assert plain.sheet == (4 * 18 - 2, 2 * 18 - 2)


def test_noise_among_smooth_images_is_blown_and_other_smooth_ones_are_not() -> None:
    ramp = torch.linspace(0, 1, 16).expand(50, 1, 16, 16) * torch.linspace(0.5, 1, 50).view(50, 1, 1, 1)
    noise = (torch.rand(10, 1, 16, 16) > 0.5).float()
    assert decoding.blown_share(ramp[::5], ramp) == 0
    assert decoding.blown_share(torch.cat([ramp[:10], noise]), ramp) == 0.5
    assert decoding.blown_share(torch.full((4, 1, 16, 16), torch.nan), ramp) == 1


def encoded(presence: list[list[float]], probable: list[list[float]]) -> Encoded:
    n = len(presence)
    split = EvaluationSplit(
        dataset="d",
        split="test",
        T=torch.rand(n, 1, 4, 4),
        presence=torch.tensor(presence),
        knowledge=("a", "b"),
        characteristics={},
        levels=256,
        original_dims=16,
        share=1.0,
    )
    C = {"a": torch.zeros(n, 1), "b": torch.zeros(n, 1)}
    distance = {"a": torch.full((n,), 3.0), "b": torch.zeros(n)}
    return Encoded(split, torch.arange(n).double(), torch.tensor(probable).double(), C, distance)


def test_confusion_counts_samples_with_one_member_by_the_most_probable() -> None:
    presence = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [torch.nan, 0.0]]
    probable = [[0.9, 0.1], [0.2, 0.3], [0.4, 0.6], [0.5, 0.4], [0.5, 0.4]]
    found = confusion("group", ["a", "b"], [encoded(presence, probable)])
    assert found is not None
    assert found.counts.tolist() == [2, 1]
    assert found.shares.tolist() == [[0.5, 0.5], [0, 1]]
    assert found.worst() == ("a", "b", 0.5)
    assert confusion("alone", ["a"], [encoded(presence, probable)]) is None


def test_reasons_name_wrong_knowledge_and_a_far_c() -> None:
    found = reasons(encoded([[1.0, 0.0]] * 60, [[0.1, 0.8]] * 60), 0)
    assert found[:3] == [
        "it does not look like a (p = 0.10), which it is",
        "it looks like b (p = 0.80), which it is not",
        "its C as a is 3.0 standard deviations from the middle",
    ]


def test_histograms_of_the_same_data_are_the_same_and_of_other_data_are_elsewhere() -> None:
    test = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    same, _ = marginals.histograms(test, test)
    assert same.distance == 0 and same.test == same.samples
    other, _ = marginals.histograms(test, test + 100)
    assert other.distance == pytest.approx(1, abs=0.02)
    missing = torch.cat([test, torch.full((5, 2), torch.nan)])
    assert marginals.histograms(missing, test)[0].low == same.low


def test_a_vector_is_unlikely_by_the_names_of_its_columns() -> None:
    samples = encoded([[1.0, 0.0]] * 100, [[0.9, 0.1]] * 100)
    T = torch.linspace(0, 1, 100).unsqueeze(1).repeat(1, 2)
    T[:, 1] = 0
    vectors = dataclasses.replace(samples, split=dataclasses.replace(samples.split, T=T), distance={})
    assert reasons(vectors, 99, ["mass", "age"]) == ["mass greater than 99.0 % of test samples"]
    assert reasons(vectors, 50, ["mass", "age"]) == [
        "nothing unusual shows in its knowledge, its C or its single values"
    ]


def test_real_values_have_nats_and_their_columns_have_names(planar: Path) -> None:
    page = write_report(planar).read_text(encoding="utf-8")
    surprises = page[page.index('<section id="surprises"') : page.index('<section id="provenance"')]
    assert "log p(T) of" in surprises and "nats" in surprises and "bits/dim" not in surprises
    assert re.search(r"<code>T1 = -?[\d.]+, T2 = ", surprises) and "built-in" not in page


def test_the_first_picture_is_of_the_largest_group_and_the_prior_comes_last(page: str) -> None:
    answer = page[page.index('<section id="answer"') : page.index('<section id="findings"')]
    assert "a row for each of digit-0, digit-1" in answer and answer.count("<img") == 1
    samples = page[page.index('<section id="samples"') : page.index('<section id="plane"')]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", samples)
    assert captions[0] == "digit-0" and captions[-2:] == ["digits", "prior"]


def test_pictures_of_plugins_stand_within_the_page_as_far_as_there_is_room(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    index = copy / "samples" / "pictures.json"
    listed = json.loads(index.read_text())
    own = Path(listed[0]["file"])
    for number in (1, 2):
        shutil.copy(copy / "samples" / own, copy / "samples" / f"theirs-{number}.png")
        listed.append(
            {"picture": "stars/map", "file": f"theirs-{number}.png", "caption": f"<b>{number}", "alt": "a map of stars"}
        )
    index.write_text(json.dumps(listed))
    monkeypatch.setattr(extra, "BYTES", (copy / "samples" / own).stat().st_size)
    (shown,) = extra.of_plugins(copy)
    assert (shown.caption, shown.alt, shown.picture) == ("<b>1", "a map of stars", "stars/map")
    page = write_report(copy).read_text(encoding="utf-8")
    assert shown.uri in page and "&lt;b&gt;1" in page and 'alt="a map of stars"' in page
    index.write_text("[")
    assert extra.of_plugins(copy) == []


def test_figures_are_got_by_named_ways(run: Path) -> None:
    rows = [
        {"kind": "prior", "name": "prior", "estimate": "one draw"},
        {"kind": "knowledge", "name": "a", "estimate": "bound"},
        {"kind": "knowledge", "name": "b", "estimate": "exact"},
        {"kind": "mixture", "name": "m", "estimate": "bound"},
    ]
    assert tables.estimates(rows) == [("prior", "one draw"), ("a, mixture", "bound"), ("b", "exact")]


def test_both_sides_of_before_and_after_are_one_where_they_are_the_same() -> None:
    header = ["KNOWLEDGE", "SHA256 OF FILE", "REQUIRES_GRAD"]
    table = tables.before_after(header, [["a", "1f = 1f", "4 = 4 of 9"], ["b", "1f = 2e", "4 = 5 of 9"]])
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["a", "1f", "4 of 9"],
        ["b", "1f = 2e", "4 = 5 of 9"],
    ]
