"""The report: results.md says what results.json says in the right unit, and pictures are small, right and
repeatable."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from tzk_plugin_report.plots import curves, figure

from tzk_core.errors import Note, TzkError
from tzk_core.plugins import Registry
from tzk_core.report import grid, pictures, table, views

DIGITS = [f"digit-{i}" for i in range(10)]


class Blob(nn.Module):
    """A knowledge type of round blobs: C in R^2 is where the middle lies, in pixels; z is the picture less
    one half."""

    characteristics = 2

    def __init__(self, radius: float, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.radius, self.shape = radius, shape
        self.spread = shape[-1] / 8

    def encode(self, z: Tensor, noise: Tensor) -> Tensor:
        if self.shape == (2,):
            return z + noise
        weights = (z + 0.5).clamp_min(0).flatten(1)
        at = torch.cartesian_prod(*map(torch.arange, self.shape[1:])).float() - self.shape[1] / 2
        return (weights @ at / weights.sum(1, keepdim=True) + noise) / self.spread

    def imagine(self, noise: Tensor) -> Tensor:
        return noise

    def decode(self, C: Tensor, noise: Tensor) -> Tensor:
        if self.shape == (2,):
            return torch.stack([C[:, 0] + 0.4 * C[:, 1] ** 2, C[:, 1] + self.radius], 1) + 0.1 * noise
        at = torch.cartesian_prod(*map(torch.arange, self.shape[1:])).float() - self.shape[1] / 2
        distance = (at - self.spread * C[:, None]).norm(dim=-1)
        return (self.radius - distance).sigmoid().view(-1, *self.shape) - 0.5 + 0.1 * noise


class Blobs(nn.Module):
    """What pictures use of a model, with knowledge types of blobs."""

    def __init__(self, names: list[str], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = self.latent_shape = shape
        self.anchor = nn.Parameter(torch.zeros(()))
        self.knowledge = nn.ModuleDict({name: Blob(1.0 + 0.5 * i, shape) for i, name in enumerate(names)})

    @property
    def like(self) -> Tensor:
        return self.anchor

    def encode(self, T: Tensor) -> Tensor:
        return T - (0.5 if len(self.shape) == 3 else 0)

    def decode(self, z: Tensor) -> Tensor:
        return z + (0.5 if len(self.shape) == 3 else 0)

    @property
    def flow(self) -> Any:
        """What encodes without a check: everything is in its domain."""
        return SimpleNamespace(encode=lambda T: (T, T.new_zeros(len(T))))

    def log_prob(self, T: Tensor, knowledge: str | None = None) -> Tensor:
        return -0.5 * T.flatten(1).square().sum(1)

    def sample(self, n: int, knowledge: str | None = None, *, seed: int = 0, temperature: float = 1.0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        C, noise = torch.randn(n, 2, generator=generator), torch.randn(n, *self.shape, generator=generator)
        noise = temperature * noise
        if knowledge is None:
            return self.decode(0.3 * noise)
        kind: Any = self.knowledge[knowledge]
        return self.decode(kind.decode(C, noise))


DRAWN = ("samples", "density", "reconstructions", "plane-of-c", "training-curves")


def blob_experiment(shape: tuple[int, ...] = (1, 16, 16), *, grouped: bool = True) -> Any:
    singles = ["mnist", "omniglot"]
    names = singles + (DIGITS if grouped else [])
    model = Blobs(names, shape)

    def samples(dataset: str, split: str) -> tuple[Tensor, Tensor]:
        assert split == "test"
        T, presence = [], []
        for i, name in enumerate(DIGITS if dataset == "mnist" and grouped else [dataset]):
            T.append(model.sample(20, name, seed=i + 1))
            row = torch.tensor([float(each in (dataset, name)) for each in names])
            presence.append(row.expand(20, -1))
        return torch.cat(T), torch.cat(presence)

    return SimpleNamespace(
        config=SimpleNamespace(
            seed=0,
            datasets=[SimpleNamespace(name=name) for name in singles],
            pictures=SimpleNamespace(temperature=1.0, draw=DRAWN),
        ),
        model=model,
        knowledge_names=names,
        groups={"digit-{label}": DIGITS} if grouped else {},
        dataset_knowledge={name: name for name in singles},
        observed={"mnist": ("slant", "thickness")},
        samples=samples,
    )


def write_metrics(path: Path, steps: int, knowledge: list[str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        kinds = ("multiplier", "inconsistency", "bits_per_dim_given", "conditional")
        columns = [f"{kind}/{name}" for kind in kinds for name in knowledge]
        always = ("step", "objective", "prior_weight", "bits_per_dim/mnist", "bits_per_dim/omniglot")
        writer.writerow([*always, *columns])
        for step in range(0, 50 * steps, 50):
            fall = float(np.exp(-step / 500))
            values = [scale * (1 + fall) for scale in (0.1, 20.0, 1.2, 150.0) for _ in knowledge]
            writer.writerow([step, -1, 0.5, 1.3 + 4 * fall, 1.8 + 5 * fall, *values])


def row(name: str, kind: str, dataset: str = "mnist", **more: Any) -> dict[str, Any]:
    blank = dict.fromkeys(
        ("knowledge", "bits_per_image", "bits_per_dim", "bits_per_pixel", "estimate", "importance_samples")
    )
    defaults = {"split": "test", "count": 10000, "standard_error": None, "inconsistency_nats": None}
    return {**blank, **defaults, "name": name, "kind": kind, "dataset": dataset, **more}


def some_results() -> dict[str, Any]:
    bound: dict[str, Any] = {"estimate": "importance-weighted bound", "importance_samples": 64}
    return {
        "format": 1,
        "rows": [
            row("TzK (prior)", "published", bits_per_dim=5.14, split=None, count=None),
            row("NICE | 2014", "published", bits_per_pixel=4.39, split=None, count=None),
            row("histogram", "baseline", bits_per_image=1290.24, bits_per_dim=1.26, bits_per_pixel=1.6457),
            row("given mnist", "knowledge", knowledge="mnist", bits_per_image=1228.8, **bound)
            | {"bits_per_dim": 1.2, "inconsistency_nats": 17.25, "standard_error": 1.26},
            row("prior", "prior", bits_per_image=1280.0, bits_per_dim=1.25, estimate="exact"),
            row("prior", "prior", "omniglot", count=13180, bits_per_image=1792.0, bits_per_dim=1.75),
        ],
        "knowledge": [
            {
                "name": "mnist",
                "mutual_information": 0.61,
                "entropy": 3.5,
                "conditional_entropy": 1.25,
                "discriminator_accuracy": 0.9987,
                "multiplier": 0.1,
                "presence_prior": 0.5,
            }
        ],
        "classification": [{"name": "digit", "accuracy": 0.9731, "chance": 0.1, "count": 10000}],
        "invertibility": {"max_abs_error": 0.00123},
    }


def cells(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.strip("| *").startswith(name)]
    return [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]


def test_table_keeps_every_number_in_the_column_of_its_unit() -> None:
    text = table.markdown(some_results(), "tzk run joint.toml")
    assert cells(text, "NICE")[2:6] == ["—", "—", "—", "4.390"]
    assert cells(text, "TzK (prior)")[2:6] == ["—", "—", "5.140", "—"]
    assert cells(text, "histogram")[1:7] == ["baseline", "1290.2", "—", "1.260", "1.646", "—"]
    assert cells(text, "given mnist")[2:] == [
        *("1228.8", "1.3", "1.200", "—"),
        *("importance-weighted bound, 64 samples", "10,000"),
    ]
    assert text.index("given mnist") < text.index("histogram") < text.index("NICE") < text.index("omniglot")
    assert text.endswith("```sh\ntzk run joint.toml\n```\n")


def test_table_gives_the_gap_beside_the_most_that_knowledge_can_be_worth() -> None:
    text = table.markdown(some_results(), "tzk")
    gap, worth = (1280.0 - 1228.8) * np.log(2), np.log(2)
    expected = ["mnist", "0.61", "3.50", "1.25", "17.25", "0.100", f"{gap:.2f}", f"{worth:.2f}", "99.87 %"]
    assert cells(text, "mnist") == expected
    assert "97.31 %" in text and "10.00 %" in text and "max abs error: 0.00123" in text


def test_gains_and_single_draws_have_columns_where_there_are_any() -> None:
    results = some_results()
    plain = table.markdown(results, "tzk")
    assert "gain, bits" not in plain and "one draw, bits" not in plain and table.GAIN_NOTES not in plain
    histogram, given, prior = results["rows"][2:5]
    given |= {"gain_bits_per_dim": 0.05, "gain_standard_error": 0.0012, "one_draw_bits_per_dim": 1.3}
    histogram |= {"gain_bits_per_dim": -0.01, "gain_standard_error": 0.002}
    prior |= {"one_draw_bits_per_dim": 1.375}
    text = table.markdown(results, "tzk")
    assert cells(text, "given mnist")[4:8] == ["1.200", "1.300", "—", "0.0500 ± 0.0012"]
    assert cells(text, "histogram")[4:8] == ["1.260", "—", "1.646", "-0.0100 ± 0.0020"]
    assert cells(text.split("## Likelihood on omniglot")[0], "prior")[4:8] == ["1.250", "1.375", "—", "—"]
    assert table.GAIN_NOTES in text


@pytest.mark.parametrize(
    ("count", "error", "few"), [(10, 0.3, True), (29, 0.3, True), (30, 0.3, False), (1, None, True)]
)
def test_few_samples_are_not_compared(count: int, error: float | None, few: bool) -> None:
    results = some_results()
    results["rows"][3] |= {"count": count, "gain_bits_per_dim": 0.05, "gain_standard_error": error}
    assert (cells(table.markdown(results, "tzk"), "given mnist")[6] == "too few to compare") is few


def test_gap_is_not_taken_between_different_images() -> None:
    results = some_results()
    results["rows"][3]["count"] = 980
    assert cells(table.markdown(results, "tzk"), "mnist")[6] == "—"


def test_every_table_is_aligned_and_whole() -> None:
    blocks = [block for block in table.markdown(some_results(), "tzk").split("\n\n") if block.startswith("|")]
    assert len(blocks) == 4
    for block in blocks:
        lines = block.replace("\\|", "  ").splitlines()
        assert len({len(line) for line in lines}) == 1
        assert len({line.count("|") for line in lines}) == 1


def test_table_of_a_run_without_knowledge_is_short() -> None:
    results = {"format": 1, "rows": [row("prior", "prior", bits_per_dim=8.0)], "knowledge": []}
    text = table.markdown(results, "tzk")
    assert "8.000" in text and "Knowledge" not in text and "Classification" not in text


def test_grid_places_images_by_row_on_white(tmp_path: Path) -> None:
    images = torch.linspace(0, 1, 6).view(6, 1, 1, 1).expand(6, 1, 4, 4)
    grid.save(images, tmp_path / "grid.png", columns=3, scale=2, padding=1)
    pixels = np.asarray(Image.open(tmp_path / "grid.png").convert("L"))
    margin, pitch = 8, 9
    assert pixels.shape == (2 * margin + 2 * pitch - 1, 2 * margin + 3 * pitch - 1)
    assert (pixels[0] == 255).all() and (pixels[:, margin + 8] == 255).all()
    middles = [[pixels[margin + r * pitch + 4, margin + c * pitch + 4] for c in range(3)] for r in range(2)]
    assert np.array(middles).ravel().tolist() == [round(255 * i / 5) for i in range(6)]


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_of_noise_stays_within_its_limit(tmp_path: Path, channels: int) -> None:
    noise = torch.rand(36, channels, 32, 32, generator=torch.Generator().manual_seed(0))
    grid.save(noise, tmp_path / "noise.png", columns=6, limit=60_000)
    assert (tmp_path / "noise.png").stat().st_size <= 60_000
    mean = np.asarray(Image.open(tmp_path / "noise.png").convert("L"), dtype=float)[40:-40, 40:-40].mean()
    assert 110 < mean < 160  # fewer grey levels, not other ones


def test_grid_draws_what_is_out_of_range(tmp_path: Path) -> None:
    values = torch.tensor([float("nan"), float("inf"), -3.0]).view(3, 1, 1, 1).expand(3, 1, 8, 8)
    grid.save(values, tmp_path / "odd.png", columns=3, scale=1, padding=0)
    pixels = np.asarray(Image.open(tmp_path / "odd.png").convert("L"))
    assert pixels[12, [12, 20, 28]].tolist() == [128, 255, 0]


@pytest.mark.parametrize("shape", [(4, 4), (0, 1, 4, 4), (2, 2, 4, 4)])
def test_grid_refuses_what_is_no_batch_of_images(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected images of shape"):
        grid.save(torch.zeros(shape), tmp_path / "none.png", columns=2)


@pytest.mark.parametrize(("steps", "knowledge"), [(0, []), (1, DIGITS), (3, []), (200, ["mnist", *DIGITS])])
def test_curves_of_any_length(tmp_path: Path, steps: int, knowledge: list[str]) -> None:
    write_metrics(tmp_path / "metrics.csv", steps, knowledge)
    curves.draw(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert 1000 < (tmp_path / "curves.png").stat().st_size < 300_000


def test_curves_survive_gaps_and_a_row_cut_off(tmp_path: Path) -> None:
    text = "step,bits_per_dim/a,multiplier/k\n0,2.0,\n50,nan,\n50,1.5,\n100,inf,\n150,1.4,\n200,1"
    (tmp_path / "metrics.csv").write_text(text)
    columns = curves._read(tmp_path / "metrics.csv")
    np.testing.assert_array_equal(columns["step"], [0, 50, 100, 150])
    np.testing.assert_array_equal(columns["bits_per_dim/a"], [2.0, 1.5, np.nan, 1.4])
    curves.draw(tmp_path / "metrics.csv", tmp_path / "curves.png")
    (tmp_path / "metrics.csv").write_text("steps\n1")
    with pytest.raises(TzkError, match="'step'"):
        curves.draw(tmp_path / "metrics.csv", tmp_path / "curves.png")


def test_labels_move_apart_in_order() -> None:
    wanted = np.array([0.1, 0.5, 0.5, 0.52, 0.9])
    placed = figure._apart(wanted, 0.1)
    assert (np.diff(placed) >= 0.1 - 1e-9).all()
    np.testing.assert_allclose(placed[[0, 4]], wanted[[0, 4]])
    np.testing.assert_allclose(placed[1:4].mean(), wanted[1:4].mean())


def test_pictures_of_images(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.csv", 3, [])
    pictures.draw(blob_experiment(), tmp_path, some_results())
    expected = {
        *("samples-prior", "samples-mnist", "samples-omniglot", "samples-digit-all", "samples-digit-9-large"),
        *("reconstructions-mnist", "reconstructions-omniglot", "reconstructions-digit-all"),
        *("plane-of-C-mnist", "plane-of-C-omniglot", "plane-of-C-digit-9", "training-curves", "pictures"),
    }
    files = {path.stem: path for path in (tmp_path / "samples").iterdir()}
    assert set(files) == expected
    assert all(path.stat().st_size <= 300_000 for path in files.values())

    before = {name: path.read_bytes() for name, path in files.items()}
    pictures.draw(blob_experiment(), tmp_path, some_results())
    assert {name: path.read_bytes() for name, path in files.items()} == before


def test_a_temperature_other_than_1_is_drawn_and_said_below_the_samples(tmp_path: Path) -> None:
    experiment = blob_experiment(grouped=False)
    pictures.draw(experiment, tmp_path / "warm", {})
    experiment.config.pictures.temperature = 0.25
    pictures.draw(experiment, tmp_path / "cold", {})
    warm, cold = (np.asarray(Image.open(tmp_path / run / "samples" / "samples-prior.png")) for run in ("warm", "cold"))
    added = len(cold) - len(warm)
    assert added > 8 and (cold[-added:] < 128).any(), "the caption"
    assert warm[: len(warm) - 8].std() > 0 and not np.array_equal(warm, cold[: len(warm)])
    plane = [(tmp_path / run / "samples" / "plane-of-C-mnist.png").read_bytes() for run in ("warm", "cold")]
    assert plane[0] == plane[1], "what is not sampled has no temperature"


def test_pictures_of_planar_data(tmp_path: Path) -> None:
    pictures.draw(blob_experiment(shape=(2,)), tmp_path, {})
    names = {path.stem for path in (tmp_path / "samples").iterdir()}
    assert {"samples-prior", "samples-mnist", "samples-digit-all", "plane-of-C-digit-9"} <= names
    assert {"reconstructions-mnist", "reconstructions-digit-9"} <= names
    assert all(path.stat().st_size <= 300_000 for path in (tmp_path / "samples").iterdir())


def test_pictures_of_a_model_without_knowledge(tmp_path: Path) -> None:
    experiment = blob_experiment(grouped=False)
    experiment.knowledge_names, experiment.dataset_knowledge = [], {}
    pictures.draw(experiment, tmp_path, {})
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"samples-prior.png", "pictures.json"}


def test_what_passes_through_characteristics_is_where_the_blob_lies() -> None:
    model = Blobs(["blob"], (1, 32, 32))
    C = torch.tensor([[0.5, -0.5], [-1.0, 0.2]])
    blob: Any = model.knowledge["blob"]
    T = model.decode(blob.decode(C, torch.zeros(2, 1, 32, 32)))
    torch.testing.assert_close(views.through_characteristics(model, "blob", T), T, atol=0.02, rtol=0)
    quantiles = torch.distributions.Normal(0, 1).cdf(C)
    torch.testing.assert_close(views.at_quantiles(model, "blob", quantiles), T, atol=1e-4, rtol=0)


def test_observations_shown_are_those_where_the_knowledge_is_present() -> None:
    experiment = blob_experiment()
    by_dataset, by_knowledge = views.observations_to_show(experiment, 8)
    assert {name: len(T) for name, T in by_dataset.items()} == {"mnist": 8, "omniglot": 8}
    expected = experiment.model.sample(20, "digit-3", seed=4)
    assert all(any(torch.equal(T, each) for each in expected) for T in by_knowledge["digit-3"])


def test_without_the_plugin_of_plots_vectors_have_no_picture_and_a_note_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "registry", lambda: Registry.discover([], path=[]))
    with pytest.warns(Note, match="'density' .*'training-curves' is in the plugin 'tzk-plugin-report'"):
        assert pictures.draw(blob_experiment(shape=(2,)), tmp_path, {}) == []
    with pytest.warns(Note, match="'tzk-plugin-report'"):
        drawn = {picture.file for picture in pictures.draw(blob_experiment(), tmp_path, {})}
    assert {"samples-prior.png", "reconstructions-mnist.png", "plane-of-C-digit-9.png"} <= drawn
