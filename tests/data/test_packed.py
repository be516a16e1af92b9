"""What a zip, an npz file, a compressed or an idx file declares is compared before it is believed."""

from __future__ import annotations

import gzip
import io
import os
import pwd
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tzk_core.data import mnist, packed, root
from tzk_core.data.npz import Npz
from tzk_core.errors import TzkError


def npy(array: np.ndarray, shape: tuple[int, ...] | None = None) -> bytes:
    """An array as npz files hold it, perhaps with another shape in its header."""
    stream = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(stream, header | ({"shape": shape} if shape else {}))
    return stream.getvalue() + array.tobytes()


def npz(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


T = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)


def refused(path: Path) -> str:
    with pytest.raises(TzkError, match="cannot read") as raised:
        Npz(path)
    assert str(path) in str(raised.value)
    return str(raised.value)


def test_sizes_are_summed_before_anything_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "ALWAYS", 10_000)
    zeros = np.zeros((100_000, 2), np.uint8)
    path = npz(tmp_path / "d.npz", [("T.npy", npy(zeros)), ("labels.a.npy", npy(zeros[:, 0]))])
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    assert "would unpack to 300,2" in refused(path)
    monkeypatch.undo()
    np.savez(path, T=zeros)
    monkeypatch.setattr(packed, "ALWAYS", 10_000)
    assert len(Npz(path).split("train")) == 80_000  # as large as it says, since nothing is compressed


@pytest.mark.parametrize("shape", [(10**12, 2), (41, 2), (39, 2), (2**62, 4)])
def test_a_shape_that_does_not_fit_the_bytes_is_damage(tmp_path: Path, shape: tuple[int, ...]) -> None:
    assert "does not fit its size" in refused(npz(tmp_path / "d.npz", [("T.npy", npy(T, shape))]))


def test_what_is_no_array_is_named(tmp_path: Path) -> None:
    assert "readme.txt" in refused(npz(tmp_path / "a.npz", [("T.npy", npy(T)), ("readme.txt", b"hello")]))
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = npz(tmp_path / "b.npz", [("T.npy", npy(T)), ("T.npy", npy(T))])
    assert "'T.npy' is in it twice" in refused(twice)
    assert "magic" in refused(npz(tmp_path / "c.npz", [("T.npy", b"no array")]))
    np.savez(tmp_path / "d.npz", T=np.array([{}, []], dtype=object))
    assert "Python objects" in refused(tmp_path / "d.npz")


def test_encryption_and_unknown_methods_are_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "d.npz", [("T.npy", npy(T))], zipfile.ZIP_STORED)
    content = path.read_bytes()
    local, central = content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02")

    def changed(offsets: tuple[int, int], value: int) -> None:
        damaged = bytearray(content)
        damaged[local + offsets[0]] = damaged[central + offsets[1]] = value
        path.write_bytes(damaged)

    changed((6, 8), 1)
    assert "encrypted" in refused(path)
    changed((8, 10), 77)
    assert "compression" in refused(path)


def test_damage_at_any_byte_is_data_or_a_sentence(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    np.savez_compressed(tmp_path / "d.npz", **{"T": T, "labels.kind": np.array(["a", "b"] * 20)})
    whole = (tmp_path / "d.npz").read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = rng.integers(256)
        (tmp_path / "d.npz").write_bytes(damaged[: rng.integers(1, len(whole) + 1)] if rng.integers(2) else damaged)
        try:
            Npz(tmp_path / "d.npz")
        except TzkError as error:
            assert "d.npz" in str(error)


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "d.npz")
    with pytest.raises(TzkError, match="it is a pipe"):
        Npz(tmp_path / "d.npz")


@pytest.mark.parametrize("path", ["a" * 5000, "x/" * 3000, "a\0b", ""])
def test_a_path_that_no_file_can_have_is_a_sentence(path: str) -> None:
    with pytest.raises(TzkError) as raised:
        Npz(path or None)
    assert len(str(raised.value)) < 1000


def test_a_zip_has_a_bound_of_its_own_where_its_content_is_known(tmp_path: Path) -> None:
    path = npz(tmp_path / "d.zip", [("a", bytes(1000)), ("b", bytes(1000))])
    with pytest.raises(ValueError, match="2,000 bytes, expected at most 1,999"):
        packed.unpack(path, tmp_path / "out", most=1999)
    assert not (tmp_path / "out").exists()
    packed.unpack(path, tmp_path / "out", most=2000)
    assert (tmp_path / "out" / "b").stat().st_size == 1000


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Uncompressed files in the format of MNIST: three images of each part."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TZK_DATA", str(tmp_path))
    monkeypatch.setenv("TZK_CACHE", str(tmp_path / "cache"))
    for name in mnist.FILES:
        shape = (3, 28, 28) if "images" in name else (3,)
        start = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
        (folder / name).write_bytes(start + bytes(int(np.prod(shape))))
    return folder


@pytest.mark.parametrize("name", mnist.FILES)
@pytest.mark.parametrize(
    "change", [lambda whole: whole[:-1], lambda whole: whole + b"\0", lambda _: b"", lambda whole: b"\x1f\x8b" + whole]
)
def test_an_uncompressed_file_that_was_cut_off_or_is_another_is_named(raw: Path, name: str, change: object) -> None:
    assert len(mnist.Mnist(validation=0).split("train")) == 3
    (raw / name).write_bytes(change((raw / name).read_bytes()))  # type: ignore[operator]
    with pytest.raises(TzkError, match=f"{name} does not hold MNIST"):
        mnist.Mnist(validation=0).split("train")


def test_a_compressed_file_is_read_no_further_than_mnist_goes(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "LARGEST", 10_000)
    monkeypatch.setattr(mnist, "PIECE", 1_000)
    name = "train-images-idx3-ubyte"
    (raw / f"{name}.gz").write_bytes(gzip.compress(bytes(10**6)))
    (raw / name).unlink()
    with pytest.raises(TzkError, match=f"{name}.gz .*more than 10,000 bytes"):
        mnist.Mnist().split("train")


# a home folder that nobody knows


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "TZK_DATA", "TZK_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_data_named_by_a_path_need_no_home_folder(homeless: None, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", T=T)
    assert Npz(tmp_path / "d.npz").shape == (2,)
    with pytest.raises(TzkError, match=r"there is no .*gone\.npz: correct `path`"):
        Npz(tmp_path / "gone.npz")


def test_what_needs_a_home_folder_says_so(homeless: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TzkError, match="no home folder here .*TZK_CACHE"):
        root.cache_root()
    with pytest.raises(TzkError, match="without '~'"):
        Npz("~/d.npz")
    with pytest.raises(TzkError, match="no home folder here .*TZK_CACHE"):
        root.places()
    monkeypatch.setenv("TZK_CACHE", str(tmp_path))
    assert root.cache_root() == tmp_path
    assert root.places() == [tmp_path]
    monkeypatch.delenv("TZK_CACHE")
    monkeypatch.setenv("TZK_DATA", str(tmp_path))
    assert root.places() == [tmp_path]
