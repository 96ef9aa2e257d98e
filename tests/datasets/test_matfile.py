from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from mutations import mutate
from scipy.io import savemat

from kornia_ditf.datasets.matfile import read_mat
from kornia_ditf.errors import DatasetError

ARRAYS = {
    "kps": np.random.default_rng(0).random((7, 2)),
    "x": np.array([[np.nan, 1.5]]),
    "bytes": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "cube": np.arange(24, dtype=np.int32).reshape(2, 3, 4),
    "single": np.float32([[0.1]]),
    "empty": np.zeros((0, 2)),
}


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_those_that_scipy_wrote(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "arrays.mat"
    others = {"text": "cat", "complex": np.array([[1j]]), "cell": np.array([["a"]], object)}
    savemat(path, {**others, **ARRAYS}, do_compression=compressed)
    found = read_mat(path, "")
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == np.float64
        np.testing.assert_array_equal(found[name], array.astype(np.float64))


def test_files_of_the_other_byte_order_are_read(tmp_path: Path) -> None:
    def element(kind: int, content: bytes) -> bytes:
        return struct.pack(">II", kind, len(content)) + content + b"\0" * (-len(content) % 8)

    array = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 1, 2))
    array += element(1, b"kps") + element(9, struct.pack(">dd", 3, 4))
    path = tmp_path / "big.mat"
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\x01\0MI" + element(14, array))
    assert read_mat(path, "")["kps"].tolist() == [[3, 4]]


def test_what_is_no_such_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    with pytest.raises(DatasetError, match="no such file"):
        read_mat(path, "")
    for content in (b"", b"no", b"\x89HDF\r\n\x1a\n" + b"\0" * 600):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match="not a MATLAB file"):
            read_mat(path, "")


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_are_read_or_refused(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "damaged.mat"
    savemat(path, ARRAYS, do_compression=compressed)
    content = path.read_bytes()
    for seed in range(300):
        path.write_bytes(mutate(content, np.random.default_rng(seed)))
        try:
            read_mat(path, "")
        except DatasetError as error:
            refused = error
    assert refused.file == path
