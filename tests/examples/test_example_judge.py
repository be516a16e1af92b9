"""The judge of samples: it classifies, it looks at the samples asked for, and the model's classifiers answer too."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from scripts import module_of
from torch import Tensor

from tzk_core import TzkError
from tzk_core.config import config_from
from tzk_core.data.dequantise import dequantise
from tzk_core.random_streams import stream
from tzk_core.runs.experiment import Experiment
from tzk_core.runs.folder import RunFolder
from tzk_core.storage.checkpoint import save_checkpoint

SCRIPT = Path(__file__).parents[2] / "examples" / "judge.py"
CONFIG: dict[str, Any] = {
    "name": "made",
    "device": "cpu",
    "datasets": [{"name": "glyphs", "type": "glyph-digits", "train": 600, "test": 120}],
    "flow": {"layers": [{"type": "logit"}, {"type": "flatten"}]},
    "knowledge": [{"name": "digit-{label}", "type": "low-rank", "dims": 16, "rank": 2, "present": {"label": "each"}}],
    "training": {"steps": 1},
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return module_of(SCRIPT)


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return Experiment(config_from(CONFIG))


def test_it_knows_drawn_digits_it_has_not_seen(script: ModuleType, experiment: Experiment) -> None:
    names, dataset = script.classes_of(experiment, None)
    assert names == [f"digit-{digit}" for digit in range(10)] and dataset == "glyphs"
    training, test = (script.labelled(experiment, names, dataset=dataset, split=split) for split in ("train", "test"))
    assert len(training.T) == 600 and set(test.classes.tolist()) == set(range(10))
    network = script.train(training, 10, epochs=8, batch=50)
    assert (script.classify(network, test.T) == test.classes).double().mean() > 0.9
    once, again = (script.train(training, 10, epochs=0.5).state_dict() for _ in range(2))
    assert all(torch.equal(once[key], again[key]) for key in once), "no chance in it"


def test_samples_that_are_test_images_are_judged_as_these(
    script: ModuleType, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, dataset = script.classes_of(experiment, "digit-{label}")
    test = script.labelled(experiment, names, dataset=dataset, split="test")

    def of_the_class(_: Experiment, name: str, number: int, *, temperature: float) -> Tensor:
        mine = test.T[test.classes == names.index(name)]
        return mine[torch.arange(number) % len(mine)] if temperature else torch.zeros_like(mine[:number])

    monkeypatch.setattr(script, "sampled", of_the_class)
    actual = script.judge(
        experiment, names, dataset, number=12, temperatures=[1.0, 0.0], epochs=12, importance_samples=2
    )
    alike, blank = (result["all"] for result in actual["samples"])
    assert actual["test"]["count"] == 120 and actual["test"]["by_judge"] > 0.8
    assert alike["by_judge"] == pytest.approx(actual["test"]["by_judge"], abs=0.1)
    assert blank["by_judge"] == pytest.approx(0.1), "a blank image has one class, whatever was asked for"
    table = script.markdown(actual)
    assert table.count("\n") == 2 + 1 + 2 * 11 and "| Bayes |" in table


def test_the_model_s_own_answers_are_the_model_s(script: ModuleType, experiment: Experiment) -> None:
    names, dataset = script.classes_of(experiment, None)
    test = script.labelled(experiment, names, dataset=dataset, split="test")
    with torch.no_grad():
        for number, (_, knowledge) in enumerate(experiment.model.named_knowledge()):
            knowledge.discriminator.slope.normal_(generator=torch.Generator().manual_seed(number))
    actual = script.own_accuracies(experiment, names, test, importance_samples=2)
    T = dequantise(test.T, stream(0, "judged"), 256)
    posterior = experiment.model.posterior(T)
    answer = torch.stack([posterior[name].presence for name in names]).argmax(0)
    assert actual["by_presence"] == pytest.approx((answer == test.classes).double().mean().item(), abs=0.01)
    assert 0 <= actual["by_bayes"] <= 1


def test_samples_are_in_grey_levels_and_as_many_as_asked_for(script: ModuleType, experiment: Experiment) -> None:
    T = script.sampled(experiment, "digit-3", 2 * script.CHUNK + 1, temperature=0.5)
    assert T.dtype == torch.uint8 and T.shape == (2 * script.CHUNK + 1, 1, 16, 16)
    assert not torch.equal(T[0], T[script.CHUNK]), "every chunk has its own noise"


def test_with_all_latents_an_image_is_itself_and_without_any_a_sample(
    script: ModuleType, experiment: Experiment
) -> None:
    names, dataset = script.classes_of(experiment, None)
    real = script.labelled(experiment, names, dataset=dataset, split="validation")
    dims = real.T[0].numel()
    whole, half, none = (script.redrawn(experiment, real, first, temperature=1.0) for first in (dims, dims // 2, 0))
    assert torch.equal(whole.T, real.T) and torch.equal(none.classes, real.classes)
    same = [(each.T == real.T).flatten(1)[:, : dims // 2].double().mean() for each in (half, none)]
    assert same[0] == 1 and same[1] < 0.5


def test_a_table_that_is_not_there_is_named(script: ModuleType, experiment: Experiment) -> None:
    with pytest.raises(TzkError, match=r"got digit-\{label\}"):
        script.classes_of(experiment, "letter-{label}")


def test_it_runs_on_a_run_folder(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = Experiment(config_from(CONFIG))
    (tmp_path / "config.toml").write_text(experiment.config.to_toml())
    save_checkpoint(experiment.model, tmp_path / "checkpoint")
    assert RunFolder.open(tmp_path)
    words = ["judge.py", str(tmp_path), "--number", "3", "--epochs", "0.2", "--importance-samples", "1", "--json"]
    monkeypatch.setattr(sys, "argv", words)
    script.main()
    actual = json.loads(capsys.readouterr().out)
    assert set(actual["samples"][0]["knowledge"]) == {f"digit-{digit}" for digit in range(10)}
    assert set(actual["test"]) == {"count", "by_judge", "by_presence", "by_bayes"}
