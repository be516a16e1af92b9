"""The published tables are prepared as their authors did, from files of the same layout, and a pickle runs no code."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tzk_plugin_tables.pickled import read_pickled_frame
from tzk_plugin_tables.suite import Bsds300, Gas, Hepmass, Miniboone, Power, Published, last_tenths, standardised

from tzk_core.data.protocol import SPLITS
from tzk_core.errors import Note, TzkError
from tzk_core.testing import check_dataset


def written_array(folder: Path, name: str, columns: int) -> np.ndarray:
    rows = np.random.default_rng(0).normal(3, 2, (200, columns))
    (folder / name).mkdir()
    np.save(folder / name / "data.npy", rows)
    return rows


def read(kind: type[Published], root: Path) -> list[np.ndarray]:
    """The three splits of files that have the published number of columns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = kind(root=root)
    return [data.split(split).T.numpy() for split in SPLITS]


def test_power_is_shuffled_and_spread_by_the_published_random_state(tmp_path: Path) -> None:
    """A line takes what comes out back to the shuffled columns, up to noise below their resolution."""
    rows = written_array(tmp_path, "power", 8)
    train, validation, test = read(Power, tmp_path)
    assert [len(part) for part in (train, validation, test)] == [162, 18, 20]
    whole = np.vstack([train, validation])
    assert np.allclose(whole.mean(0), 0, atol=1e-5) and np.allclose(whole.std(0), 1, atol=1e-5)
    order = np.random.RandomState(42).permutation(200)  # a shuffle of rows draws the same numbers
    scaled, raw = np.vstack([whole, test]), rows[order][:, [0, 2, 4, 5, 6, 7]]
    for column, resolution in enumerate([0.001, 0.01, 1, 1, 1, 0]):
        noise = raw[:, column] - np.polyval(np.polyfit(scaled[:, column], raw[:, column], 1), scaled[:, column])
        assert 0.2 * resolution <= noise.std() <= 0.4 * resolution + 1e-5, column  # of a uniform density: 0.29


def test_the_noise_of_power_is_drawn_in_the_published_order(tmp_path: Path) -> None:
    (tmp_path / "power").mkdir()
    rows = np.zeros((200, 8))
    rows[:, 7] = np.arange(200)  # the time of day has no noise
    np.save(tmp_path / "power" / "data.npy", rows)
    drawn = np.vstack(read(Power, tmp_path))
    random = np.random.RandomState(42)
    order = random.permutation(200)
    voltage, active, meters = random.rand(200), random.rand(200), random.rand(200, 3)
    for column, expected in enumerate([active, voltage, *meters.T, order]):
        assert np.corrcoef(drawn[:, column], expected)[0, 1] == pytest.approx(1, abs=1e-6)


def test_miniboone_is_split_in_order_and_standardised_by_what_is_no_test(tmp_path: Path) -> None:
    rows = written_array(tmp_path, "miniboone", 43)
    train, _, test = read(Miniboone, tmp_path)
    mean, deviation = rows[:180].mean(0), rows[:180].std(0)
    assert np.allclose(train, (rows[:162] - mean) / deviation, atol=1e-5)
    assert np.allclose(test, (rows[180:] - mean) / deviation, atol=1e-5)


def gas_frame() -> pd.DataFrame:
    """Eleven columns, of which `twin` and `Meth`, `Eth`, `Time` go."""
    generator = np.random.default_rng(1)
    values = {name: generator.normal(size=300) for name in ("Time", "Meth", "Eth", *"abcdefg")}
    values["twin"] = values["a"] + 0.01 * generator.normal(size=300)
    values["opposite"] = -values["b"]
    return pd.DataFrame(values)


def test_gas_drops_the_first_of_two_that_repeat_one_another(tmp_path: Path) -> None:
    """The opposite of a column stays: published is the correlation with its sign."""
    frame = gas_frame()
    (tmp_path / "gas").mkdir()
    frame.to_parquet(tmp_path / "gas" / "ethylene_CO.parquet")
    train, validation, test = read(Gas, tmp_path)
    assert [len(part) for part in (train, validation, test)] == [243, 27, 30]
    expected = frame[["b", "c", "d", "e", "f", "g", "twin", "opposite"]]
    expected = ((expected - expected.mean()) / expected.std()).to_numpy()
    assert np.allclose(np.vstack([train, validation, test]), expected, atol=1e-6)


class _Old:
    """Objects as pandas before 2 wrote them, by names that are no longer there."""

    def __init__(self, name: str, *, args: tuple[Any, ...] = (), state: Any = None) -> None:
        self.name, self.args, self.state = name, args, state

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Global(self.name), self.args) if self.state is None else (_Global(self.name), self.args, self.state)


class _Global:
    """A name, called when it is loaded."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> None:
        raise NotImplementedError


class _Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def _save_name(self, named: _Global) -> None:
        module, _, name = named.name.rpartition(".")
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())

    dispatch[_Global] = _save_name


def old_pickle(frame: pd.DataFrame, path: Path) -> None:
    """Protocol 2, block manager with the layout "0.14.1", as in the published file."""

    def index(data: Any) -> _Old:
        of = (_Global("pandas.core.index.Index"), {"data": data, "name": None})
        return _Old("pandas.core.index._new_Index", args=of)

    axes = [index(np.array(list(frame.columns), dtype=object)), index(np.arange(len(frame)))]
    halves = [(frame.to_numpy()[:, ::2].T.copy(), slice(0, frame.shape[1], 2))]
    halves.append((frame.to_numpy()[:, 1::2].T.copy(), np.arange(1, frame.shape[1], 2)))
    layout = {"axes": axes, "blocks": [{"values": values, "mgr_locs": places} for values, places in halves]}
    state = (axes, [values for values, _ in halves], [axes[0], axes[0]], {"0.14.1": layout})
    manager = _Old("pandas.core.internals.BlockManager", state=state)
    with path.open("wb") as file:
        _Pickler(file, protocol=2).dump(
            _Old("pandas.core.frame.DataFrame", state={"_data": manager, "_typ": "dataframe", "_metadata": []})
        )


def new_pickle(frame: pd.DataFrame, path: Path) -> None:
    frame.set_axis(pd.Index(list(frame.columns), dtype=object), axis=1).to_pickle(path)


@pytest.mark.parametrize("write", [old_pickle, new_pickle])
def test_a_pickled_frame_is_read_as_pandas_would(write: Callable[[pd.DataFrame, Path], None], tmp_path: Path) -> None:
    frame = gas_frame()
    write(frame, tmp_path / "it.pickle")
    pd.testing.assert_frame_equal(read_pickled_frame(tmp_path / "it.pickle"), frame, check_column_type=False)
    (tmp_path / "gas").mkdir()
    write(frame, tmp_path / "gas" / "ethylene_CO.pickle")
    assert read(Gas, tmp_path)[0].shape == (243, 8)


class _Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


def test_a_pickle_that_asks_for_more_is_refused_and_nothing_is_run(tmp_path: Path) -> None:
    (tmp_path / "it.pickle").write_bytes(pickle.dumps(_Evil(tmp_path / "made")))
    with pytest.raises(TzkError, match=r"asks for \w+\.mkdir.*write it as parquet"):
        read_pickled_frame(tmp_path / "it.pickle")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps([1, 2]), pickle.dumps(np.zeros((3, 3)))])
def test_what_is_no_pickled_frame_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "it.pickle").write_bytes(content)
    with pytest.raises(TzkError, match="cannot read .*it.pickle as a pickled table of numbers"):
        read_pickled_frame(tmp_path / "it.pickle")


def test_hepmass_is_the_signal_without_features_whose_smallest_value_repeats(tmp_path: Path) -> None:
    """Of 24 features the smallest of 3 occurs often; the rows of the test file are longer by one."""
    generator = np.random.default_rng(2)
    (tmp_path / "hepmass").mkdir()
    values: dict[str, np.ndarray] = {}
    for split, rows in (("train", 220), ("test", 100)):
        features = generator.normal(size=(rows, 24))
        features[: rows // 2, :3] = -9.0
        label = (np.arange(rows) % 2).astype(float)
        values[split] = features[label == 1]
        more = [np.zeros((rows, 1))] if split == "test" else []
        table = np.hstack([label[:, None], features, *more])
        header = ",".join(["# label", *(f"f{i}" for i in range(table.shape[1] - 1))])
        np.savetxt(tmp_path / "hepmass" / f"1000_{split}.csv", table, delimiter=",", header=header, comments="")
    train, validation, test = read(Hepmass, tmp_path)
    mean, deviation = values["train"].mean(0), values["train"].std(0, ddof=1)
    expected = [((values[split] - mean) / deviation)[:, 3:] for split in ("train", "test")]
    assert np.allclose(np.vstack([train, validation]), expected[0], atol=1e-6) and len(validation) == 11
    assert np.allclose(test, expected[1], atol=1e-6)


def test_bsds300_is_as_in_its_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    (tmp_path / "data" / "BSDS300").mkdir(parents=True)  # the archive unpacks into `data`
    rows = np.random.default_rng(3).normal(size=(60, 63)).astype(np.float32)
    with h5py.File(tmp_path / "data" / "BSDS300" / "BSDS300.hdf5", "w") as file:
        for split, part in zip(SPLITS, np.split(rows, [40, 50]), strict=True):
            file[split] = part
    assert np.array_equal(np.vstack(read(Bsds300, tmp_path)), rows)


def test_it_is_a_data_set_and_says_what_differs_from_the_published(tmp_path: Path) -> None:
    rows = written_array(tmp_path, "miniboone", 5)
    with pytest.warns(Note, match="the published table has 43 columns; these files give 5"):
        data = Miniboone(root=tmp_path)
    check_dataset(data)
    assert data.split("test").T.shape == (len(rows) // 10, 5)


def test_what_is_missing_or_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZK_DATA", str(tmp_path))
    for kind, file in ((Power, "data.npy"), (Gas, "ethylene_CO"), (Hepmass, "1000_train.csv"), (Bsds300, "BSDS300")):
        with pytest.raises(TzkError, match=rf"{kind.name}: there is no .*{file}.*Zenodo"):
            kind()
    written_array(tmp_path, "power", 7)
    with pytest.raises(TzkError, match=r"expected power/data.npy with 8 columns; got 7"):
        Power()
    (tmp_path / "miniboone").mkdir()
    np.save(tmp_path / "miniboone" / "data.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(TzkError, match="miniboone: cannot read"):
        Miniboone()
    with pytest.raises(TzkError, match="at least 12 rows"):
        last_tenths(np.zeros((9, 2)))


def test_moments_are_those_of_training_and_validation_together() -> None:
    parts = standardised(last_tenths(np.arange(100.0)[:, None]))
    assert np.vstack(parts[:2]).mean() == pytest.approx(0) and np.vstack(parts[:2]).std() == pytest.approx(1)
    assert parts.test.min() > parts.train.max()
