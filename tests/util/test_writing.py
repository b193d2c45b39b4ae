"""Files are whole or as they were before: on a full disk, on one that cannot be written, and after a power cut."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_limited.errors import LimitedError
from nnunet_limited.host.cases import save_label
from nnunet_limited.host.images import write_label
from nnunet_limited.util import files
from nnunet_limited.util.files import copy_file, move_files, replace_text, replacing, require_written, writing

NOISE = np.random.default_rng(0).integers(0, 250, (40, 40, 40)).astype(np.uint8)  # 64 kB, also when compressed


@contextmanager
def full_disk(limit: int = 8192) -> Iterator[None]:
    """Let no file be longer than ``limit`` bytes, which writers see as a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def by_simpleitk(file: Path) -> None:
    about = {"sitk_stuff": {"spacing": (1, 1, 1), "origin": (0, 0, 0), "direction": np.eye(3).ravel().tolist()}}
    write_label(SimpleITKIO(), NOISE, file, about)


def by_torch(file: Path) -> None:
    with replacing(file) as temporary:
        torch.save(torch.from_numpy(NOISE), temporary)


def by_numpy(file: Path) -> None:
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, a=NOISE)


def by_copying(file: Path) -> None:
    source = file.with_name("source")
    copy_file(source, file)


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.nii.gz": by_simpleitk,
    "a.nii": by_simpleitk,
    "a.nrrd": by_simpleitk,
    "a.mha": by_simpleitk,
    "a.pth": by_torch,
    "a.npz": by_numpy,
    "a.b2nd": lambda file: save_label(NOISE, file),
    "a.json": lambda file: replace_text(file, "x" * 20_000),
    "a.copy": by_copying,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("before", [b"", b"the file before"], ids=["new", "old"])
def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path: Path, name: str, before: bytes) -> None:
    file = tmp_path / name
    (tmp_path / "source").write_bytes(NOISE.tobytes())
    if before:
        file.write_bytes(before)
    with pytest.raises(LimitedError, match=f"{file} cannot be written .*; free the disk") as raised, full_disk():
        WRITERS[name](file)
    assert "\n" not in str(raised.value)
    assert {one.name for one in tmp_path.iterdir()} == {"source", *([name] if before else [])}
    assert not before or file.read_bytes() == before
    WRITERS[name](file)  # with the disk free again
    assert file.stat().st_size > 8192


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX")
def test_an_error_is_the_first_one_even_if_nothing_can_be_removed(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(LimitedError, match=r"a.json cannot be written \(Read-only file system\)"):
        replace_text(tmp_path / "a.json", "x")


def test_content_and_name_are_on_the_disk_before_and_after_the_file_appears(tmp_path: Path, monkeypatch) -> None:
    """After a power cut there is either nothing under the name, or the whole file."""
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        order.append("folder" if Path(f"/proc/self/fd/{handle}").resolve() == tmp_path else "file")
        fsync(handle)

    def replaced(source: Any, target: Any) -> None:
        order.append("rename")
        replace(source, target)

    monkeypatch.setattr(files.os, "fsync", synced)
    monkeypatch.setattr(files.os, "replace", replaced)
    for name, write in WRITERS.items():
        (tmp_path / "source").write_bytes(NOISE.tobytes())
        order.clear()
        write(tmp_path / name)
        assert order == ["file", "rename", "folder"], name
    order.clear()
    move_files({tmp_path / "a.npz": tmp_path / "b.npz", tmp_path / "a.pth": tmp_path / "b.pth"})
    assert order == ["file", "file", "rename", "rename", "folder"]


def test_predictions_that_nnunet_wrote_on_a_full_disk_are_removed(tmp_path: Path) -> None:
    for name in ("whole.nii.gz", "cut.nii.gz"):
        sitk.WriteImage(sitk.GetImageFromArray(NOISE), str(tmp_path / name))
    require_written(tmp_path)
    content = (tmp_path / "cut.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(LimitedError, match=r"cut.nii.gz cannot be written \(the disk took only a part"):
        require_written(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["whole.nii.gz"]


def test_errors_of_what_others_write_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(LimitedError, match=f"{tmp_path} cannot be written"), full_disk(), writing(tmp_path):
        blosc2.asarray(NOISE, urlpath=str(tmp_path / "x.b2nd"), mode="w")
    with pytest.raises(LimitedError, match=f"{tmp_path} cannot be written"), full_disk(), writing(tmp_path):
        (tmp_path / "y").write_bytes(NOISE.tobytes())
    with pytest.raises(FileNotFoundError), writing(tmp_path):  # what is read is another matter
        (tmp_path / "z").read_bytes()
    with pytest.raises(RuntimeError, match="memory"), writing(tmp_path):
        raise RuntimeError("not enough memory")


def test_the_spacing_of_tiff_lies_beside_it(tmp_path: Path) -> None:
    write_label(Tiff3DIO(), NOISE, tmp_path / "case.tif", {"spacing": [1.0, 2.0, 3.0]})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["case.json", "case.tif"]
    assert Tiff3DIO().read_seg(str(tmp_path / "case.tif"))[1]["spacing"] == [1.0, 2.0, 3.0]
