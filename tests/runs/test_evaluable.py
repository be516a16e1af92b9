"""What cannot be evaluated is said before training, and what is evaluated in part is noted."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import tzk
from models import held_out

import tzk_core
from tzk_core.build import build_flow, build_knowledge
from tzk_core.config import load_config
from tzk_core.errors import TzkError
from tzk_core.evaluation.classification import classification
from tzk_core.evaluation.likelihood import Scores, mixture_row
from tzk_core.evaluation.partitions import Fit, Labels, matched
from tzk_core.model import TzK
from tzk_core.observations import Observations
from tzk_core.runs.experiment import Experiment
from tzk_core.training.settings import Settings
from tzk_core.training.trainer import Trainer
from tzk_core.transforms.affine import Affine

NAN = math.nan
EACH = '[[knowledge]]\nname = "k-{kind}"\ntype = "gaussian"\nhidden = 4\npresent = { dataset = "d", kind = "each" }\n'
PARTITION = '[evaluation.partitions]\nkinds = ["k-*"]\n'


def config(
    folder: Path, *, count: int = 60, kinds: Any = None, test_kinds: Any = None, dataset: str = "", more: str = ""
) -> Path:
    """A config of points with labels; with `test_kinds` the test split is a file of its own."""
    rng = np.random.default_rng(0)
    data = folder / "data"
    data.mkdir(exist_ok=True)
    kinds = np.array(["x", "y"] * (count // 2) + ["x"] * (count % 2)) if kinds is None else np.array(kinds)
    parts = {"train": kinds} if test_kinds is None else {"train": kinds, "test": np.array(test_kinds)}
    for part, labels in parts.items():
        T = rng.normal(size=(len(labels), 2)).astype(np.float32)
        np.savez(data / f"{part}.npz", **{"T": T, "labels.kind": labels})
    file = folder / "c.toml"
    file.write_text(
        f'name = "t"\n[[flow.layers]]\ntype = "affine"\n[[datasets]]\nname = "d"\ntype = "npz"\npath = "{data}"\n'
        f"{dataset}\n[training]\nsteps = 2\nbatch_size = 8\n{more}"
    )
    return file


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "nine samples": ({"count": 9}, "the test split of data set 'd' is empty"),
    "test = 0": ({"dataset": "test = 0"}, "the test split of data set 'd' is empty"),
    "a mean without a match": (
        {"more": EACH + '[evaluation.means]\nm = ["q*"]\n'},
        "'m': no knowledge type matches 'q*'",
    ),
    "one glob of two without a match": (
        {"more": EACH + '[evaluation.partitions]\np = ["k-*", "q*"]\n'},
        "'p': no knowledge type matches 'q*'",
    ),
    "a partition that leaves samples out": (
        {"more": EACH + '[evaluation.partitions]\np = ["k-x"]\n'},
        "'p' partitions no data set",
    ),
    "a partition whose labels are all unknown": (
        {"test_kinds": [""] * 5, "more": EACH + PARTITION},
        "the labels of none of 5 samples decide",
    ),
    "a mean of a type that the test split lacks": (
        {"test_kinds": ["x"] * 5, "more": EACH + '[evaluation.means]\nm = ["k-*"]\n'},
        "'m' is of no data set",
    ),
}


@pytest.mark.parametrize(("given", "words"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("dry", [True, False])
def test_what_cannot_be_evaluated_is_named_before_training(
    tmp_path: Path, given: dict[str, Any], words: str, dry: bool
) -> None:
    file = config(tmp_path, **given)
    done = tzk("run", file, "--out", tmp_path / "r", *(["--dry-run"] if dry else []))
    assert done.exit_code and words in done.output, done.output
    assert not (tmp_path / "r").exists()


def test_a_layer_without_an_inverse_is_found_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = config(tmp_path)
    assert tzk("run", file, "--dry-run").exit_code == 0
    monkeypatch.delattr(Affine, "inverse")
    done = tzk("run", file, "--out", tmp_path / "r")
    assert done.exit_code == 2 and "a layer Affine, which has no inverse" in done.output, done.output
    assert not (tmp_path / "r").exists()


def test_what_is_evaluated_in_part_is_noted_before_training(tmp_path: Path) -> None:
    more = EACH + PARTITION
    file = config(tmp_path, test_kinds=["x", "x", "", "x", ""], dataset="validation = 0", more=more)
    done = tzk("run", file, "--dry-run")
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "'kinds' is evaluated on 3 of 5 samples of 'd' (test)" in said
    assert "no likelihood given it: k-y" in said
    assert "The validation split of 'd' is empty" in said


def test_a_data_set_without_any_knowledge_is_noted(tmp_path: Path) -> None:
    done = tzk("run", config(tmp_path, test_kinds=["", ""], more=EACH), "--dry-run")
    assert done.exit_code == 0 and "No sample of 'd' (test) is known to have any knowledge" in done.output


def test_an_evaluation_in_part_counts_the_samples_that_are_decided(tmp_path: Path) -> None:
    kinds = ["x", "y", "", "x", ""]
    experiment = Experiment(load_config(config(tmp_path, test_kinds=kinds, more=EACH + PARTITION)))
    for _, kind in experiment.model.named_knowledge():
        kind.fit_characteristics(torch.tensor([[-1.0], [1.0]]).expand(2, kind.characteristics))
    results = experiment.evaluate()
    (mixture,) = [row for row in results["rows"] if row["kind"] == "mixture"]
    (classified,) = results["classification"]
    assert mixture["count"] == classified["count"] == 3
    assert any("evaluated on 3 of 5 samples" in note for note in results["notes"])
    # an untrained conditional does not depend on its type: the mixture is the prior, on the samples that are decided
    T, _ = experiment.samples("d", "test")
    prior = -experiment.model.log_prob(T[[0, 1, 3]]).double().mean().item() / math.log(2)
    assert mixture["bits_per_image"] == pytest.approx(prior, abs=1e-4)


def test_a_mixture_and_a_classification_are_of_the_decided_samples() -> None:
    presence = torch.tensor([[1.0, 0.0], [NAN, NAN], [0.0, 1.0], [1.0, NAN]])
    held = held_out(torch.zeros(4, 2), presence, ("a", "b"), dataset="d")
    given = {"a": torch.tensor([-1.0, -50.0, -2.0, -50.0]), "b": torch.tensor([-3.0, -50.0, -4.0, -50.0])}
    everywhere = {name: torch.arange(4) for name in given}
    scores = Scores(held, torch.zeros(4), everywhere, given, 1, {}, {name: value / 2 for name, value in given.items()})
    weights = {"a": math.log(0.25), "b": math.log(0.75)}
    expected = [math.log(0.25 * math.exp(a) + 0.75 * math.exp(b)) for a, b in ((-1, -3), (-2, -4))]
    row = mixture_row(scores, "m", weights)
    assert row["count"] == 2 and row["bits_per_image"] == pytest.approx(-sum(expected) / 2 / math.log(2))
    # a is the more likely of both by Bayes, 0.25 e^2 > 0.75, and is right of the first alone
    found = classification(scores, "m", weights)
    assert (found["count"], found["bayes_accuracy"], found["discriminator_accuracy"]) == (2, 0.5, 0.5)


@pytest.mark.parametrize(
    ("presence", "whole", "undecided", "words"),
    [
        ([[1, 0], [NAN, NAN]], True, 1, ""),
        ([[NAN, 1]], False, 1, "the labels of none of 1 samples decide"),
        ([[1, 0], [0, 0], [0, 0]], False, 0, "2 of 3 samples have none of them, and 0 have several"),
        ([[1, 0, 0], [1, 1, NAN]], False, 1, "0 of 2 samples have none of them, and 1 have several"),
    ],
)
def test_how_knowledge_fits_samples(presence: list[list[float]], whole: bool, undecided: int, words: str) -> None:
    fit = Fit.of(torch.tensor(presence))
    assert (fit.whole, fit.undecided) == (whole, undecided) and words in str(fit)


def test_a_partition_fits_if_it_fits_one_data_set() -> None:
    presence = {"a": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "b": torch.tensor([[0.0, 0.0]])}
    labels = Labels("test", ("x", "y"), presence)
    assert not list(labels.problems({"p": ["x", "y"]}, {"m": ["x", "y"]}))
    assert [note for note in labels.notes({"p": ["x", "y"]}) if "'b'" in note and "prior alone" in note]


def test_globs_match_in_the_order_of_the_names() -> None:
    assert matched({"t": ["b*", "a"]}, ["a", "b1", "b2", "c"]) == {"t": ["a", "b1", "b2"]}
    with pytest.raises(TzkError, match=r"'t': no knowledge type matches 'd'; there is a, b1"):
        matched({"t": ["a", "d"]}, ["a", "b1"])


class Given:
    """One batch: the knowledge is known to be present in some, absent in some, and not known in others."""

    T = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    presence = torch.tensor([[1.0], [1.0], [0.0], [NAN], [1.0], [0.0]])

    def batch(self, step: int) -> Observations:
        T = self.T.clone()
        T[4] = torch.nan  # what was not observed is drawn, and no likelihood is of it
        return Observations(T, self.presence, ("k",))

    def sources(self, step: int) -> dict[str, slice]:
        return {"toy": slice(0, 6)}


def test_the_log_has_bits_given_knowledge_of_the_samples_that_have_it(tmp_path: Path) -> None:
    """prior bits less the gain, where the knowledge is present: log p(T given C) itself."""
    kind = build_knowledge("gaussian", (2,), name="k", hidden=4)
    model = TzK(build_flow((2,), layers=[{"type": "affine"}]), {"k": kind})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    trainer = Trainer(model, Given(), Settings(steps=1, learning_rate=1e-12, log_every=1), levels=256)
    trainer.run(tmp_path, checkpoints=False)
    with (tmp_path / "metrics.csv").open() as file:
        (line,) = csv.DictReader(file)
    T = Given.T[:2]
    rows = [0, 1, 3, 4]  # those that may have it, in the order of the noise
    noise = trainer.noise_of(0)("k", len(rows))[:2]
    z = model.encode(T)
    log_prob = model.log_prob(T, "k", kind.encode(z, noise)).double().mean().item()
    assert float(line["bits_per_dim_given/k"]) == pytest.approx(8 - log_prob / math.log(2) / 2, rel=1e-5)
    gain = float(line["conditional/k"])
    prior = 8 - model.log_prob(T).double().mean().item() / math.log(2) / 2
    assert float(line["bits_per_dim_given/k"]) == pytest.approx(prior - gain / math.log(2) / 2, rel=1e-5)


def test_samples_in_batches_have_the_shape_of_samples_at_once() -> None:
    model = TzK(build_flow((2,), layers=[{"type": "affine"}]), {"k": build_knowledge("gaussian", (2,), name="k")})
    context = torch.randn(3, 2)
    kind: Any = model.find("k")
    for density in (model.conditional("k"), kind.latent):
        for number, size in ((4, 2), (5, 2), (5, 5), (5, 9), (5, None)):
            assert density.sample(number, context=context, batch_size=size).shape == (3, number, 2)
        with pytest.raises(TypeError):
            density.sample(5, context=context, batch_size=0)
    assert model.flow.sample(5, batch_size=2).shape == model.conditional("k").sample(5, batch_size=2).shape == (5, 2)
    samples = kind.latent.sample(4000, torch.tensor([[3.0, 0.0], [0.0, 3.0]]), batch_size=999)
    expected = kind.latent.mean(torch.tensor([[3.0, 0.0], [0.0, 3.0]]))
    torch.testing.assert_close(samples.mean(1), expected, atol=0.1, rtol=0)


@pytest.mark.parametrize("number", [1, 2])
def test_a_value_outside_the_domain_of_a_layer_is_named_in_one_line(number: int) -> None:
    layer = {"type": "masked-piecewise-quadratic-autoregressive-transform", "hidden_features": 8}
    model = TzK(build_flow((2,), layers=[layer, {"type": "affine"}][:number]))
    T = torch.tensor([[0.5, -2.0], [3.0, 0.5]])
    said = r"layer MaskedPiecewise\w+ got values from -2 to 3, some of them outside its domain"
    for asked in (lambda: model.log_prob(T), lambda: model.flow.initialise(T), lambda: model.encode(T)):
        with pytest.raises(TzkError, match=said):
            asked()
    with pytest.raises(TzkError, match="outside its domain"):
        tzk_core.fit(model, T, steps=1)
    with pytest.raises(TzkError, match="outside its domain"):
        model.sample(200, seed=0)
