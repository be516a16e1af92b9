"""A recipe by name on the toys, from a config: its first layer is that of the data, and missing values are no end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tzk_core.config import load_config
from tzk_core.errors import Note, TzkError
from tzk_core.plugins import FlowRecipe, registry
from tzk_core.recipes.entrance import entrance_of
from tzk_core.runs.experiment import Experiment
from tzk_core.transforms.logit import Logit
from tzk_core.transforms.standardise import Standardise

TRAINING = "[training]\nsteps = 3\nbatch_size = 32\nvalidate_every = 2\n"


def experiment(folder: Path, data: str, recipe: str = "paper", more: str = "") -> Experiment:
    path = folder / "x.toml"
    path.write_text(f'name = "x"\n[flow]\nrecipe = "{recipe}"\n{more}\n[[datasets]]\n{data}\n{TRAINING}')
    return Experiment(load_config(path))


@pytest.mark.parametrize("recipe", ["paper", "maf", "real-nvp", "rq-nsf-coupling", "rq-nsf-autoregressive"])
def test_a_recipe_trains_on_two_moons(recipe: str, tmp_path: Path) -> None:
    try:
        registry().find(FlowRecipe, recipe)
    except TzkError:
        pytest.skip("tzk-plugin-baselines is not installed")
    sizes = 'train = 200\nvalidation = 50\ntest = 50\nname = "two-moons"'
    run = experiment(tmp_path, sizes, recipe, "steps = 1" if recipe == "paper" else "steps = 1\nhidden = 8")
    assert isinstance(entrance_of(run.model.flow.transform), Standardise)
    run.train(tmp_path)
    rows = {row["name"]: row for row in run.evaluate()["rows"]}
    assert set(rows) == {"prior", "full-covariance Gaussian"}


def npz(folder: Path, T: np.ndarray, more: str = "") -> str:
    np.savez(folder / "mine.npz", T=T)
    return f'name = "mine"\ntype = "npz"\npath = "mine.npz"\n{more}'


@pytest.mark.parametrize(("domain", "first"), [('"levels"', Logit), ('"(-9, 9)"', Standardise)])
def test_the_config_may_say_another_domain(domain: str, first: type, tmp_path: Path) -> None:
    T = np.random.default_rng(0).uniform(size=(100, 2))
    run = experiment(tmp_path, npz(tmp_path, T), more=f"domain = {domain}")
    assert isinstance(entrance_of(run.model.flow.transform), first)


def test_the_first_layer_is_that_of_the_domain_that_the_data_say(tmp_path: Path) -> None:
    T = np.random.default_rng(0).uniform(size=(100, 1, 4, 4))
    run = experiment(tmp_path, npz(tmp_path, T, 'domain = "(0, 1)"'), more="tile = 2\nsteps = 1")
    first = entrance_of(run.model.flow.transform)
    assert isinstance(first, Standardise) and first.arguments["domain"] == "(0, 1)"
    real = entrance_of(experiment(tmp_path, npz(tmp_path, T), more="tile = 2\nsteps = 1").model.flow.transform)
    assert isinstance(real, Standardise) and real.arguments["domain"] == "real", "images of real values are no levels"
    grey = npz(tmp_path, (255 * T).astype(np.uint8))
    assert isinstance(entrance_of(experiment(tmp_path, grey, more="tile = 2").model.flow.transform), Logit)


def test_data_sets_have_one_domain(tmp_path: Path) -> None:
    T = np.random.default_rng(0).uniform(size=(100, 2))
    data = npz(tmp_path, T, 'domain = "(0, 1)"') + '\n[[datasets]]\nname = "two-moons"'
    with pytest.raises(TzkError, match=r"have one domain; got 'mine' \(0, 1\), 'two-moons' real"):
        experiment(tmp_path, data)


def test_grey_levels_over_255_get_a_note(tmp_path: Path) -> None:
    T = np.random.default_rng(0).integers(0, 256, (100, 4)) / 255
    with pytest.warns(Note, match=r"data set 'mine': these real values are grey levels.*numpy.uint8"):
        experiment(tmp_path, npz(tmp_path, T))


def test_rows_that_lack_values_train_and_are_left_out_of_tables(tmp_path: Path) -> None:
    """A data set with gaps, as a table has them, in the place of two moons."""
    run = experiment(tmp_path, 'name = "two-moons"\ntrain = 200\nvalidation = 50\ntest = 50')
    for samples in (run.data.split(split)["two-moons"] for split in ("train", "validation", "test")):
        samples.T[::5, 0] = float("nan")
        samples.T[1::25] = float("nan")
    run.train(tmp_path)
    results = run.evaluate()
    (prior, baseline) = results["rows"]
    assert prior["count"] == baseline["count"] == 38 and np.isfinite(prior["log_prob_nats"])
    assert any(note.startswith("12 of the 50 samples of 'two-moons' lack values of T") for note in results["notes"])
