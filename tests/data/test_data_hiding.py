"""Hiding labels and characteristics: how many are kept, whose, and what stays as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from knowledge_tables import typed

from tzk_core.config import config_from
from tzk_core.data.annotation import annotate
from tzk_core.data.hiding import Kept, hide
from tzk_core.data.protocol import Samples
from tzk_core.errors import TzkError
from tzk_core.runs.building import start_model
from tzk_core.runs.experiment import Experiment

SIZES = {"0": 40, "1": 3, "2": 25, "10": 40}


def labelled(labels: list[str], seed: int = 0) -> Samples:
    """Samples in random order, each with its own slant."""
    column = np.random.default_rng(seed).permutation(np.array(labels))
    T = torch.zeros(len(labels), 2, dtype=torch.uint8)
    return Samples(T, {"label": column}, {"slant": torch.arange(float(len(labels)))})


def data() -> dict[str, Samples]:
    """Digits, of which there are few of 1 and some have no label, and letters that have no label column."""
    digits = labelled([label for label, count in SIZES.items() for _ in range(count)] + [""] * 12)
    return {"digits": digits, "letters": Samples(torch.zeros(30, 2, dtype=torch.uint8))}


def by_digit(**keys: object) -> dict:
    """One knowledge type a digit."""
    return {"name": "digit-{label}", "present": {"dataset": "digits", "label": "each"}, **keys}


def keeping(table: dict, seed: int = 0) -> tuple[dict[str, int], set[int]]:
    """How many samples of each digit keep their label, and which samples."""
    samples = data()
    annotation, _ = hide(annotate(typed([table]), samples), samples, seed)
    positive = (annotation.presence["digits"] == 1).sum(0).tolist()
    known = ~annotation.presence["digits"].isnan()
    assert (known.any(1) == known.all(1)).all()  # one choice for all digits
    return dict(zip(annotation.names, positive, strict=True)), set(torch.nonzero(known.any(1)).squeeze(1).tolist())


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (4, [1, 1, 1, 1]),
        (6, [2, 2, 1, 1]),  # what is left over goes to the first in natural order
        (12, [3, 3, 3, 3]),
        (30, [9, 3, 9, 9]),  # 1 has no more to give
        (78, [25, 3, 25, 25]),
        (100, [36, 3, 25, 36]),
        (108, [40, 3, 25, 40]),
        (0.25, [8, 3, 8, 8]),  # of the 108 that have a label
        (1.0, [40, 3, 25, 40]),
    ],
)
def test_every_value_keeps_equally_many_as_far_as_it_has_them(amount: int | float, expected: list[int]) -> None:
    positive, known = keeping(by_digit(labelled=amount))
    assert positive == dict(zip([f"digit-{label}" for label in SIZES], expected, strict=True))
    assert len(known) == sum(expected)


def test_what_a_smaller_amount_keeps_a_larger_one_keeps_too() -> None:
    chosen = [keeping(by_digit(labelled=amount))[1] for amount in (5, 6, 17, 50, 100, 108)]
    assert all(fewer < more for fewer, more in zip(chosen, chosen[1:], strict=False))


def test_the_choice_depends_on_the_seed_and_not_on_other_tables_or_data() -> None:
    assert (
        keeping(by_digit(labelled=20))[1]
        == keeping(by_digit(labelled=20))[1]
        != keeping(by_digit(labelled=20), seed=1)[1]
    )
    samples = {"more": labelled(["0"] * 9, seed=3), **data()}
    tables = [{"name": "more", "present": {"dataset": "more"}, "labelled": 4}, by_digit(labelled=20)]
    annotation, _ = hide(annotate(typed(tables), samples), samples)
    known = ~annotation.presence["digits"][:, 1].isnan()
    assert set(torch.nonzero(known).squeeze(1).tolist()) == keeping(by_digit(labelled=20))[1]


def test_what_is_kept_is_as_it_was_and_all_else_is_not_known() -> None:
    samples = data()
    whole = annotate(typed([by_digit(labelled=20), {"name": "all", "present": {"dataset": "digits"}}]), samples)
    before = {name: values.clone() for name, values in whole.presence.items()}
    hidden, retained = hide(whole, samples)
    assert hidden.names == whole.names
    digits, known = hidden.presence["digits"], ~hidden.presence["digits"].isnan()
    assert torch.equal(digits[known], whole.presence["digits"][known])
    assert known[:, :4].any(1).sum() == 20 and known[:, 4].all()
    assert (hidden.presence["letters"] == 0).all()  # another data set's absence is not hidden
    assert retained == {"digit-{label}": Kept(20, 108, 0, 0)}
    for name, values in before.items():
        torch.testing.assert_close(whole.presence[name], values, equal_nan=True)


def test_another_split_keeps_all_its_labels() -> None:
    samples = data()
    hidden, _ = hide(annotate(typed([by_digit(labelled=4, observed=["slant"], characterised=4)]), samples), samples)
    again = hidden.of(samples)
    whole = annotate(typed([by_digit(observed=["slant"])]), samples)
    torch.testing.assert_close(again.presence["digits"], whole.presence["digits"], equal_nan=True)
    for name, C in whole.characteristics["digits"].items():
        torch.testing.assert_close(again.characteristics["digits"][name], C, equal_nan=True)


def test_samples_of_other_data_are_as_unobserved_says() -> None:
    samples = data()
    hidden, _ = hide(annotate(typed([by_digit(labelled=10, unobserved={"dataset": "letters"})]), samples), samples)
    assert hidden.presence["letters"].isnan().all()


def test_tables_on_the_same_columns_keep_the_labels_of_the_same_samples() -> None:
    samples = data()
    even = {"name": "even", "present": {"dataset": "digits", "label": ["0", "2", "10"]}, "labelled": 40}
    anywhere = {"name": "any-{label}", "present": {"label": "each"}, "labelled": 40}
    annotation, _ = hide(annotate(typed([by_digit(labelled=40), even, anywhere]), samples), samples)
    known = ~annotation.presence["digits"].isnan()
    assert known[:, 0].sum() == 40
    assert (known == known[:, :1]).all()
    assert not annotation.presence["letters"].isnan().any()  # no label there, and so none to hide


def test_several_data_sets_and_values_take_turns() -> None:
    samples = {"a": labelled(["x"] * 9 + ["y"] * 9), "b": labelled(["x"] * 2 + ["y"] * 9)}
    table = {"name": "{label}", "present": {"dataset": ["a", "b"], "label": "each"}, "labelled": 20}
    annotation, _ = hide(annotate(typed([table]), samples), samples)
    # of 20, four values would give 5 each: x of b has 2, and its 3 go to the others in turn
    assert [(annotation.presence[name] == 1).sum(0).tolist() for name in "ab"] == [[6, 6], [2, 6]]


def test_c_is_kept_in_labelled_samples_only_and_is_nested_as_labels_are() -> None:
    samples = data()

    def characterised(**keys: object) -> set[int]:
        annotation, _ = hide(annotate(typed([by_digit(observed=["slant"], **keys)]), samples), samples)
        rows: set[int] = set()
        for column, name in enumerate(annotation.names):
            C = annotation.characteristics["digits"][name]
            there = ~C.isnan().any(1)
            assert (annotation.presence["digits"][there, column] == 1).all()
            assert torch.equal(C[there, 0], torch.nonzero(there).squeeze(1).float())  # the slant of that sample
            rows |= set(torch.nonzero(there).squeeze(1).tolist())
        return rows

    assert characterised(labelled=30) == keeping(by_digit(labelled=30))[1]
    assert len(characterised(labelled=30, characterised=0.5)) == 15
    assert characterised(labelled=30, characterised=10) == characterised(characterised=10)
    assert characterised(characterised=10) < characterised(characterised=30)
    assert characterised(characterised=1.0) == keeping(by_digit())[1]


def test_only_samples_that_have_c_are_counted_for_it() -> None:
    samples = data()
    two = {"name": "two", "present": {"dataset": "digits", "label": "2"}, "observed": ["slant"], "characterised": 7}
    annotation, retained = hide(annotate(typed([two]), samples), samples)
    assert (~annotation.characteristics["digits"]["two"].isnan()).sum() == 7
    assert retained == {"two": Kept(108, 108, 7, 25)}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"labelled": 109}, r"'digit-\{label\}': labelled = 109, but there are 108 .*: expected at most 108, or 1.0"),
        ({"labelled": 3}, r"labelled = 3 keeps 3 of 108 samples, none .* 'digit-10' is present: expected at least 4"),
        ({"labelled": 0.01}, r"labelled = 0.01 keeps 1 of 108 samples, none .*: expected at least 4"),
        ({"observed": ["slant"], "labelled": 9, "characterised": 10}, r"characterised = 10, but there are 9"),
        ({"observed": ["slant"], "characterised": 2}, r"characterised = 2 .*'digit-2' C is known: expected at least 4"),
        ({"characterised": 5}, r"characterised = 5, but there are 0 training samples to keep it in: leave it out"),
    ],
)
def test_amounts_that_cannot_be_kept_are_refused(keys: dict, message: str) -> None:
    samples = data()
    with pytest.raises(TzkError, match=message):
        hide(annotate(typed([by_digit(**keys)]), samples), samples)


def test_knowledge_that_is_nowhere_present_has_no_label_to_keep() -> None:
    samples = data()
    table = {"name": "unknown", "unobserved": {"dataset": "digits"}, "labelled": 1}
    with pytest.raises(TzkError, match="there are 0 training samples to keep it in"):
        hide(annotate(typed([table]), samples), samples)


GLYPHS = {
    "name": "glyphs",
    "seed": 1,
    "device": "cpu",
    "flow": {"steps": 1, "tile": 8},
    "datasets": [
        {"name": "digits", "type": "glyph-digits", "size": 8, "train": 200, "validation": 0, "test": 40},
        {"name": "letters", "type": "glyph-letters", "size": 8, "train": 60, "validation": 0, "test": 12},
    ],
    "knowledge": [
        {
            "name": "digit-{label}",
            "type": "gaussian",
            "present": {"dataset": "digits", "label": "each"},
            "observed": ["slant", "thickness"],
            "labelled": 50,
            "characterised": 0.4,
        }
    ],
    "training": {"steps": 2, "batch_size": 64, "initialisation": 64},
}


def test_an_experiment_trains_on_what_is_kept_and_is_evaluated_on_all() -> None:
    experiment = Experiment(config_from(GLYPHS))
    assert experiment.describe()["kept"] == {
        "digit-{label}": {"labelled": 50, "labels": 200, "characterised": 20, "characteristics": 200}
    }
    epoch = [experiment.batches.batch(step) for step in range(5)]
    presence = torch.cat([batch.presence[rows] for batch, rows in _of("digits", experiment, epoch)])[:200]
    assert (~presence.isnan()).any(1).sum() == 50 and (presence == 1).sum() == 50
    share = experiment.batches.population()  # 5 of 50 in the digits, none of the letters
    torch.testing.assert_close(share, torch.full((10,), 0.1 * 200 / 260))
    T, presence = experiment.samples("digits", "test")
    assert len(T) == 40 and (presence.sum(1) == 1).all()
    _, presence = experiment.samples("digits", "train")
    assert (presence.sum(1) == 1).all()
    start_model(experiment.model, experiment.data)
    slants = experiment.annotation.characteristics["digits"]["digit-3"]
    fitted = experiment.model.find("digit-3").characteristics_prior.mean_
    torch.testing.assert_close(fitted, slants[~slants.isnan().any(1)].mean(0))


def _of(dataset: str, experiment: Experiment, batches: list) -> list:
    return [(batch, experiment.batches.sources(step)[dataset]) for step, batch in enumerate(batches)]


def test_a_seed_of_the_config_chooses() -> None:
    first, again, other = (Experiment(config_from({**GLYPHS, "seed": seed})) for seed in (1, 1, 2))
    known = [~value.annotation.presence["digits"][:, 0].isnan() for value in (first, again, other)]
    assert torch.equal(known[0], known[1]) and not torch.equal(known[0], known[2])
