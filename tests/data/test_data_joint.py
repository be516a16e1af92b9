"""Annotation, dequantisation and joint batches: the laws that training relies on."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from knowledge_tables import typed

from tzk_core.build import build_flow, build_knowledge
from tzk_core.data import dequantise as dequantise_module
from tzk_core.data.annotation import annotate, characteristics_of, presence
from tzk_core.data.dequantise import dequantise
from tzk_core.data.expansion import expand
from tzk_core.data.joint import JointBatches, shares
from tzk_core.data.ordering import natural_key
from tzk_core.data.protocol import Samples
from tzk_core.errors import TzkError
from tzk_core.model import TzK
from tzk_core.random_streams import stream


def marked(count: int, first: int, **labels: list[str]) -> Samples:
    """Samples whose two pixels say which sample it is: number first + i, in base 200."""
    numbers = torch.arange(first, first + count)
    T = torch.stack([numbers // 200, numbers % 200], dim=1).to(torch.uint8)
    return Samples(T=T, labels={name: np.array(values) for name, values in labels.items()})


def numbers_of(T: torch.Tensor) -> list[int]:
    levels = (T * 256).floor().long()
    return (levels[:, 0] * 200 + levels[:, 1]).tolist()


DIGITS = ["2", "10", "1", "2", "", "10", "1"]
DATA = {
    "digits": marked(7, 0, label=DIGITS),
    "letters": marked(5, 1000, label=["a", "b", "a", "b", "a"], hand=["left"] * 3 + ["right"] * 2),
}


# --- dequantisation


def test_every_level_stays_within_its_cell() -> None:
    T = torch.arange(256, dtype=torch.uint8).expand(4000, 256)
    result = dequantise(T, stream(0, "test"))
    assert result.dtype == torch.float32
    assert torch.equal((result.double() * 256).floor(), T.double())
    assert result.min() > 0 and result.max() < 1


@pytest.mark.parametrize("levels", [2, 5, 32, 255, 256])
@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2.0**-24])
def test_extreme_noise_stays_within_its_cell(u: float, levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dequantise_module.torch, "rand", lambda shape, generator: torch.full(shape, u))
    T = torch.arange(levels, dtype=torch.uint8)
    result = dequantise(T, stream(0), levels).double()
    assert ((T.double() / levels < result) & (result < (T.double() + 1) / levels)).all()


def test_noise_is_uniform() -> None:
    u = dequantise(torch.full((400_000,), 255, dtype=torch.uint8), stream(1, "test")).double() * 256 - 255
    assert abs(u.mean() - 1 / 2) < 4 / np.sqrt(12 * 400_000)
    assert abs(u.var() - 1 / 12) < 1e-3
    counts = torch.histc(u, 64, 0, 1)
    assert ((counts - 400_000 / 64) ** 2 / (400_000 / 64)).sum() < 110  # chi-squared, 63 degrees: p < 3e-4


def test_real_values_pass_unchanged_and_draw_no_noise() -> None:
    generator = stream(0)
    before = generator.get_state()
    T = torch.tensor([[-3.5, 2.0]])
    assert torch.equal(dequantise(T, generator, levels=None), T)
    assert torch.equal(generator.get_state(), before)


def test_dequantise_names_the_wrong_type() -> None:
    with pytest.raises(TzkError, match="expected uint8; got torch.float32"):
        dequantise(torch.zeros(2), stream(0))
    with pytest.raises(TzkError, match="expected real values; got torch.uint8"):
        dequantise(torch.zeros(2, dtype=torch.uint8), stream(0), levels=None)


# --- annotation


def test_natural_order() -> None:
    names = ["digit-10", "digit-2", "b", "2", "10", "01", "1", "digit"]
    assert sorted(names, key=natural_key) == ["01", "1", "2", "10", "b", "digit", "digit-2", "digit-10"]


def test_each_makes_one_knowledge_type_a_value_in_natural_order() -> None:
    tables = [
        {"name": "digits", "present": {"dataset": "digits"}, "steps": 4},
        {"name": "digit-{label}", "present": {"dataset": "digits", "label": "each"}, "implies": "digits"},
    ]
    expanded = expand(typed(tables), DATA)
    assert [knowledge.name for knowledge in expanded] == ["digits", "digit-1", "digit-2", "digit-10"]
    assert [knowledge.implies for knowledge in expanded] == [(), ("digits",), ("digits",), ("digits",)]
    assert expanded[0].table.arguments == {"steps": 4}
    assert expanded[3].present == {"dataset": ("digits",), "label": ("10",)}
    assert expanded[3].table.name == "digit-{label}" and expanded[3].table.present["label"] == "each"


def test_each_over_two_columns_makes_the_combinations_that_occur() -> None:
    table = {
        "name": "{hand}-{label}",
        "present": {"dataset": "letters", "hand": "each", "label": "each"},
        "implies": ["{hand}"],
    }
    hand = {"name": "{hand}", "present": {"dataset": "letters", "hand": "each"}}
    expanded = expand(typed([hand, table]), DATA)
    assert [k.name for k in expanded] == ["left", "right", "left-a", "left-b", "right-a", "right-b"]
    assert expanded[4].implies == ("right",)


def test_what_no_name_can_hold_is_a_dash_in_names_and_stays_in_conditions() -> None:
    label = ["Greek/character24", "Greek/character3", "v1.5", "a:b*?", ""]
    tables = [
        {"name": "character-{label}", "present": {"dataset": "x", "label": "each"}},
        {"name": "again {label}", "present": {"dataset": "x", "label": "each"}, "implies": "character-{label}"},
    ]
    data = {"x": marked(5, 0, label=label)}
    annotation = annotate(typed(tables), data)
    names = ["Greek-character3", "Greek-character24", "a-b--", "v1-5"]
    assert annotation.names == (*(f"character-{name}" for name in names), *(f"again {name}" for name in names))
    model = TzK(build_flow((2,), layers=[{"type": "affine"}]))
    for table in annotation.knowledge:
        model.add(table.name, build_knowledge("gaussian", (2,), hidden=2, layers=2))
    assert annotation.knowledge[5].implies == ("character-Greek-character24",)
    column = annotation.names.index("character-Greek-character24")
    assert annotation.presence["x"][:4, column].tolist() == [1, 0, 0, 0]


def test_labels_that_only_differ_by_what_no_name_can_hold_are_refused() -> None:
    table = {"name": "c-{label}", "present": {"dataset": "x", "label": "each"}}
    with pytest.raises(TzkError, match=r"label = 'a-b' and label = 'a/b' would both be called 'c-a-b'.*rename one"):
        expand(typed([table]), {"x": marked(3, 0, label=["a/b", "c", "a-b"])})


def test_presence_is_one_nan_or_zero_as_written() -> None:
    tables = [
        {"name": "digits", "present": {"dataset": "digits"}},
        {"name": "two", "present": {"dataset": "digits", "label": 2}},
        {"name": "a", "present": {"label": "a"}, "unobserved": {"dataset": "digits"}},
        {"name": "some", "present": {"dataset": "letters", "label": ["a", "b"], "hand": "left"}},
        {"name": "unknown", "unobserved": {"dataset": ["digits", "letters"]}},
    ]
    annotation = annotate(typed(tables), DATA)
    assert annotation.names == ("digits", "two", "a", "some", "unknown")
    nan = float("nan")
    digits = [[1, 0, nan, 0, nan] for _ in DIGITS]
    digits[0][1] = digits[3][1] = 1
    digits[4][1] = nan  # its label is not known
    letters = [[0, 0, float(label == "a"), float(i < 3), nan] for i, label in enumerate("ababa")]
    torch.testing.assert_close(annotation.presence["digits"], torch.tensor(digits), equal_nan=True)
    torch.testing.assert_close(annotation.presence["letters"], torch.tensor(letters), equal_nan=True)
    assert annotation.presence["digits"].dtype == torch.float32


def test_a_value_absent_from_another_split_is_absent_there() -> None:
    annotation = annotate(typed([{"name": "{label}", "present": {"dataset": "digits", "label": "each"}}]), DATA)
    test = annotation.of({"digits": marked(2, 0, label=["1", "77"])})
    assert annotation.names == test.names == ("1", "2", "10")
    assert test.presence["digits"].tolist() == [[1, 0, 0], [0, 0, 0]]


def test_no_knowledge_gives_no_columns() -> None:
    assert presence([], "digits", DATA["digits"]).shape == (7, 0)


def test_characteristics_are_nan_where_not_supplied() -> None:
    slant = torch.tensor([1.0, 2.0, torch.nan])
    data = {
        "glyphs": Samples(
            T=torch.zeros(3, 2, dtype=torch.uint8),
            labels={"label": np.array(["x", "y", "x"])},
            characteristics={"slant": slant, "thickness": torch.tensor([4.0, 5.0, 6.0])},
        ),
        "plain": Samples(T=torch.zeros(2, 2, dtype=torch.uint8)),
    }
    tables = [
        {"name": "all", "present": {"dataset": ["glyphs", "plain"]}, "observed": ["thickness", "slant"]},
        {"name": "x", "present": {"dataset": "glyphs", "label": "x"}, "observed": ["thickness"]},
        {"name": "free", "present": {"dataset": "glyphs"}},
    ]
    expanded = expand(typed(tables), data)
    nan = torch.nan
    glyphs = characteristics_of(expanded, "glyphs", data["glyphs"])
    assert set(glyphs) == {"all", "x"}
    expected = torch.tensor([[4.0, 1.0], [5.0, 2.0], [nan, nan]])
    torch.testing.assert_close(glyphs["all"], expected, equal_nan=True)
    torch.testing.assert_close(glyphs["x"], torch.tensor([[4.0], [nan], [6.0]]), equal_nan=True)
    assert characteristics_of(expanded, "plain", data["plain"])["all"].isnan().all()


BAD_TABLES = [
    (
        {"name": "x", "present": {"dataset": "digit"}},
        r"'x': present: no data set 'digit'.*did you mean 'digits'",
    ),
    ({"name": "x", "present": {"dataset": "digits", "labl": "1"}}, r"no label column 'labl'.*'label'"),
    ({"name": "x", "present": {"dataset": "digits", "hand": "left"}}, r"no label column 'hand' in 'digits'"),
    ({"name": "x", "present": {"dataset": "digits", "label": "3"}}, r"label = '3': there is '1', '2', '10'"),
    ({"name": "x", "unobserved": {"dataset": "nothing"}}, r"unobserved: no data set 'nothing'"),
    ({"name": "x", "present": {}}, r"nothing says in which samples it is present"),
    ({"name": "x", "present": {"dataset": "digits", "label": "each"}}, r"as in 'label-\{label\}'"),
    ({"name": "x-{label}", "present": {"dataset": "digits"}}, r"must say label = \"each\""),
    ({"name": "x-{label", "present": {"dataset": "digits"}}, r"unmatched brace"),
    ({"name": "x", "present": {"dataset": "digits"}, "implies": "y"}, r"implies 'y', which is not"),
    ({"name": "x", "present": {"dataset": "digits"}, "implies": "x"}, r"implies itself"),
    ({"name": "x", "present": {"dataset": "digits"}, "observed": ["slant"]}, r"no data set has a .* 'slant'"),
]


@pytest.mark.parametrize(("table", "message"), BAD_TABLES, ids=[message for _, message in BAD_TABLES])
def test_bad_tables_are_refused_with_what_to_do(table: dict, message: str) -> None:
    with pytest.raises(TzkError, match=message):
        expand(typed([table]), DATA)


def test_what_a_type_implies_may_come_from_a_column_that_its_own_name_leaves_out() -> None:
    """As a character belongs to one alphabet."""
    labels = {"alphabet": np.array(["A", "A", "B"]), "character": np.array(["A/1", "A/2", "B/1"])}
    samples = {"signs": Samples(torch.zeros(3, 1), labels)}
    tables = [
        {"name": "alphabet-{alphabet}", "present": {"alphabet": "each"}},
        {
            "name": "character-{character}",
            "present": {"character": "each", "alphabet": "each"},
            "implies": "alphabet-{alphabet}",
        },
    ]
    actual = {table.name: table.implies for table in expand(typed(tables), samples)}
    assert actual["character-A-2"] == ("alphabet-A",) and actual["character-B-1"] == ("alphabet-B",)
    assert len(actual) == 5


def test_two_of_one_name_are_refused() -> None:
    table = {"name": "x", "present": {"dataset": "digits"}}
    with pytest.raises(TzkError, match="two knowledge types are called 'x'"):
        expand(typed([table, table]), DATA)


def test_observed_must_have_as_many_values_as_characteristics() -> None:
    data = {"d": Samples(torch.zeros(1, 2), characteristics={"slant": torch.zeros(1)})}
    table = {"name": "x", "present": {"dataset": "d"}, "observed": ["slant"], "characteristics": 2}
    with pytest.raises(TzkError, match="expected characteristics = 1"):
        expand(typed([table]), data)


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
