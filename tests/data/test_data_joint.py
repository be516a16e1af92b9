"""Joint batches: every sample once an epoch, data sets by their exact shares."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from knowledge_tables import typed
from marked_samples import DATA, marked, numbers_of

from tzk_core.data.annotation import annotate
from tzk_core.data.joint import JointBatches, shares
from tzk_core.data.protocol import Samples
from tzk_core.errors import TzkError
from tzk_core.random_streams import stream

# --- joint batches


def joint(sizes: dict[str, int], **arguments: object) -> JointBatches:
    samples = {name: marked(size, 1000 * i) for i, (name, size) in enumerate(sizes.items())}
    annotation = annotate(typed([{"name": name, "present": {"dataset": name}} for name in sizes]), samples)
    arguments.setdefault("knowledge", annotation.names)
    return JointBatches(samples, annotation.presence, annotation.characteristics, **arguments)  # type: ignore


def test_a_batch_depends_on_seed_and_step_only() -> None:
    sizes = {"a": 50, "b": 20}
    forward, backward = joint(sizes, batch_size=16, seed=3), joint(sizes, batch_size=16, seed=3)
    steps = list(range(12))
    there = {step: forward.batch(step) for step in steps}
    for step in reversed(steps):
        again = backward.batch(step)
        assert torch.equal(there[step].T, again.T) and torch.equal(there[step].presence, again.presence)
    assert not torch.equal(there[0].T, joint(sizes, batch_size=16, seed=4).batch(0).T)
    assert not torch.equal(there[0].T, there[1].T)


def test_adding_a_data_set_moves_no_order_of_the_others() -> None:
    alone = joint({"a": 50}, batch_size=10)
    beside = joint({"a": 50, "b": 20}, batch_size=20, weights={"a": 1, "b": 1})
    assert torch.equal(alone.positions(2)["a"], beside.positions(2)["a"])


@pytest.mark.parametrize("batch_size", [1, 7, 16, 64, 300])
def test_an_epoch_covers_every_sample_exactly_once(batch_size: int) -> None:
    batches = joint({"a": 50, "b": 21}, batch_size=batch_size)
    seen: dict[str, list[int]] = {"a": [], "b": []}
    for step in range(300 // batch_size + 2):
        for name, rows in batches.positions(step).items():
            seen[name] += rows.tolist()
    for name, size in (("a", 50), ("b", 21)):
        epochs = [seen[name][i : i + size] for i in range(0, len(seen[name]) - size + 1, size)]
        assert len(epochs) >= 2
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert epochs[0] != epochs[1]


def test_shares_are_exact() -> None:
    batches = joint({"a": 50, "b": 20, "c": 9}, batch_size=10, weights={"a": 1.0, "b": 0.5, "c": 0.1})
    counts = {name: 0 for name in "abc"}
    for step in range(160):
        for name, rows in batches.positions(step).items():
            counts[name] += len(rows)
        for name, weight in {"a": 1.0, "b": 0.5, "c": 0.1}.items():
            assert abs(counts[name] - 10 * (step + 1) * weight / 1.6) < 1
    assert counts == {"a": 1000, "b": 500, "c": 100}


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_dividing_is_complete_monotone_and_near_the_exact_share(count: int) -> None:
    random = np.random.default_rng(count)
    weights = {str(i): Fraction(float(w)) for i, w in enumerate(random.exponential(size=count) ** 2)}
    total = sum(weights.values())
    before = dict.fromkeys(weights, 0)
    for samples in range(1500):
        parts = shares(samples, weights)
        assert sum(parts.values()) == samples
        for name, weight in weights.items():
            assert parts[name] >= before[name]
            assert abs(parts[name] - samples * weight / total) <= (0.5 if count <= 2 else 2)
        before = parts


def test_presence_goes_with_its_sample() -> None:
    batches = joint({"a": 30, "b": 30}, batch_size=20)
    for step in range(5):
        batch = batches.batch(step)
        assert batch.knowledge == ("a", "b") and batch.T.shape == (20, 2)
        from_b = torch.tensor([number >= 1000 for number in numbers_of(batch.T)])
        assert torch.equal(batch.presence, torch.stack([~from_b, from_b], dim=1).float())


def test_characteristics_go_with_their_sample() -> None:
    samples = {"a": marked(30, 0), "b": marked(30, 1000)}
    characteristics = {"a": {"k": torch.arange(30.0)[:, None]}}
    no_knowledge = {name: torch.zeros(30, 0) for name in samples}
    batch = JointBatches(samples, no_knowledge, characteristics, batch_size=20).batch(1)
    expected = [[float(n)] if n < 1000 else [torch.nan] for n in numbers_of(batch.T)]
    torch.testing.assert_close(batch.characteristics["k"], torch.tensor(expected), equal_nan=True)


def test_population_counts_data_sets_by_weight_and_leaves_out_the_unobserved() -> None:
    tables = [
        {"name": "digits", "present": {"dataset": "digits"}},
        {"name": "a", "present": {"label": "a"}, "unobserved": {"dataset": "digits"}},
        {"name": "nowhere", "unobserved": {"dataset": ["digits", "letters"]}},
        {"name": "two", "present": {"dataset": "digits", "label": "2"}},
    ]
    annotation = annotate(typed(tables), DATA)
    batches = JointBatches(
        DATA, annotation.presence, knowledge=annotation.names, weights={"digits": 3.0, "letters": 1.0}
    )
    two = 0.75 * 2 / 6 + 0.25 * 0  # of seven digits one has no label
    expected = torch.tensor([0.75, 0.6, torch.nan, two])
    torch.testing.assert_close(batches.population(), expected, equal_nan=True)


@pytest.mark.parametrize("copies", [1, 4, 20])
def test_hidden_labels_do_not_move_the_population(copies: int) -> None:
    """Ten of a thousand labels beside a data set that is known to be without say the same share as all of them."""
    samples = {"digits": marked(1000, 0), "letters": marked(500, 4000), "unknown": marked(300, 6000)}
    presence = {
        "digits": torch.full((1000, 1), torch.nan),
        "letters": torch.zeros(500, 1),
        "unknown": torch.full((300, 1), torch.nan),
    }
    presence["digits"][: 5 * copies] = torch.tensor([1.0, 0, 0, 0, 0]).repeat(copies)[:, None]
    batches = JointBatches(samples, presence, knowledge=("seven",))
    assert batches.population().item() == pytest.approx(0.2 * 1000 / 1500)


def test_the_population_is_the_share_of_a_batch_where_everything_is_observed() -> None:
    samples = {"a": marked(40, 0), "b": marked(25, 1000)}
    presence = {name: torch.rand(len(samples[name]), 3, generator=stream(0, name)).round() for name in samples}
    batches = JointBatches(samples, presence, knowledge=("x", "y", "z"), weights={"a": 2, "b": 1}, batch_size=60)
    presences = torch.cat([batches.batch(step).presence for step in range(10)])  # ten epochs of a, eight of b
    torch.testing.assert_close(batches.population(), presences.mean(0))


def test_what_does_not_fit_together_is_refused() -> None:
    a, b = marked(3, 0), Samples(torch.zeros(3, 1, 4, 4, dtype=torch.uint8))
    none = torch.zeros(3, 0)
    with pytest.raises(TzkError, match=r"must have one shape; got 'a' \(2,\), 'b' \(1, 4, 4\)"):
        JointBatches({"a": a, "b": b}, {"a": none, "b": none})
    with pytest.raises(TzkError, match="give a weight to every data set, or to none"):
        JointBatches({"a": a, "b": a}, {"a": none, "b": none}, weights={"a": 1.0})
    with pytest.raises(TzkError, match="'a': weight = 0, expected a number above 0"):
        JointBatches({"a": a}, {"a": none}, weights={"a": 0})
    with pytest.raises(TzkError, match="'a': expected at least one sample; got none"):
        JointBatches({"a": a.take([])}, {"a": none[:0]})
    with pytest.raises(TzkError, match=r"expected shape \(3, 1\)"):
        JointBatches({"a": a}, {"a": none}, knowledge=("k",))
    with pytest.raises(TzkError, match=r"label column 'label': .*shape \(3,\); got shape \(2,\)"):
        Samples(a.T, labels={"label": np.array(["x", "y"])})


# --- a share of their own for a few


def favouring(share: float, chosen: list[int], batch_size: int = 4) -> JointBatches:
    mask = torch.zeros(7, dtype=torch.bool)
    mask[chosen] = True
    samples = {"digits": DATA["digits"], "letters": DATA["letters"]}
    presence = {name: torch.zeros(len(value), 0) for name, value in samples.items()}
    weights = {"digits": 1.0, "letters": 1.0}
    favoured = {"favoured": {"digits": mask}, "favoured_share": share}
    return JointBatches(samples, presence, weights=weights, batch_size=batch_size, **favoured)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.7])
def test_favoured_samples_have_their_exact_share_of_their_data_set(share: float) -> None:
    batches = favouring(share, [1, 4])
    positions_of_digits = torch.cat([batches.positions(step)["digits"] for step in range(100)])
    assert len(positions_of_digits) == 200, "the data set's own share of the batch is as it was"
    assert abs(int(((positions_of_digits == 1) | (positions_of_digits == 4)).sum()) - 200 * share) <= 1
    counts = torch.bincount(positions_of_digits, minlength=7)
    for part in ([1, 4], [0, 2, 3, 5, 6]):
        assert counts[part].max() - counts[part].min() <= 1, "within a part every sample comes once an epoch"


def test_favouring_all_or_none_changes_nothing() -> None:
    plain = favouring(0.5, [])
    whole = favouring(0.5, list(range(7)))
    for step in range(5):
        assert torch.equal(plain.positions(step)["digits"], whole.positions(step)["digits"])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_nothing_or_all_is_refused(share: float) -> None:
    with pytest.raises(TzkError, match="favoured"):
        favouring(share, [1])
