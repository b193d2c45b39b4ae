"""NIfTI files that end early or are damaged, which nnU-Net's default reader takes for whole ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_limited.errors import LimitedError
from nnunet_limited.util import whole
from nnunet_limited.util.whole import require_whole


@pytest.fixture(params=["one", "two"])
def file(request, tmp_path: Path) -> Path:
    """A whole file of NIfTI-1 by SimpleITK, or of NIfTI-2 by nibabel."""
    array, made = np.random.default_rng(0).integers(0, 255, (12, 40, 30)).astype(np.uint8), tmp_path / "x.nii.gz"
    if request.param == "one":
        sitk.WriteImage(sitk.GetImageFromArray(array), str(made))
    else:
        nib.save(nib.Nifti2Image(array, np.eye(4)), made)
    return made


def damaged(file: Path, content: bytes) -> str:
    file.write_bytes(content)
    with pytest.raises(LimitedError, match="is damaged") as caught:
        require_whole(file)
    assert str(file) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("missing", [1, 8, 12, 500, 0.5, -20])
def test_a_compressed_file_that_ends_early_is_refused(file: Path, missing: float) -> None:
    content = file.read_bytes()
    kept = -missing if missing < 0 else len(content) - (missing if missing >= 1 else int(missing * len(content)))
    assert "ends early" in damaged(file, content[: int(kept)])


def test_a_flipped_bit_is_noticed(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    damaged(file, bytes(content))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_content_shorter_than_its_header_says_is_refused(file: Path, ending: str) -> None:
    """A compressed stream may be whole though its content is not, as after a full disk."""
    content = gzip.decompress(file.read_bytes())
    pack = gzip.compress if ending == ".nii.gz" else bytes
    other = file.with_name(f"y{ending}")
    assert "bytes of its image" in damaged(other, pack(content[:-1]))
    other.write_bytes(pack(content))
    require_whole(other)


def test_whole_files_are_accepted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_whole(file)
    packed, content = file.read_bytes(), gzip.decompress(file.read_bytes())
    kinds = {
        "uncompressed under the name of a compressed one": content,
        "two streams": gzip.compress(content[:3000]) + gzip.compress(content[3000:]),
        "padded": packed + bytes(512),
        "followed by something": packed + b"signature",
        "longer than its header says": gzip.compress(content + bytes(100)),
    }
    for chunk in (1 << 20, 4096, 541):
        monkeypatch.setattr(whole, "CHUNK", chunk)
        for about, kind in kinds.items():
            file.write_bytes(kind)
            require_whole(file)
            assert about
        damaged(file, kinds["two streams"][:-9])


def test_the_content_of_other_formats_is_left_to_their_reader(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    require_whole(tmp_path / "x.png")
    (tmp_path / "x.nii").write_bytes(b"no header")
    require_whole(tmp_path / "x.nii")  # its reader says what is wrong


def test_a_file_that_may_not_be_read_is_not_called_damaged(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(LimitedError, match=r"cannot be read \(Permission denied\); correct its permissions"):
        require_whole(file)
