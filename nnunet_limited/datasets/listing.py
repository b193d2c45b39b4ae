"""Files of a folder by case; an image that no command would read is an error and not an absent case."""

import contextlib
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.whole import check_file

# Endings of image files. Archives and incomplete downloads of them count too: such a case is not absent.
_VOLUME = r"\.(?:nii|nia|hdr|img|nrrd|nhdr|mha|mhd|gipl|mgz|mgh|mnc|dcm|dicom|ima|tiff?|npy|zarr|h5|hdf5)"
_PICTURE = r"\.(?:png|jpe?g|bmp|gif|webp)"
_PACKED = r"(?:\.(?:gz|bz2|xz|zst|zip|7z|part|partial|filepart|crdownload|download))*\s*$"
_IMAGE = re.compile(rf"(?:\.seg)?(?:{_VOLUME}|{_PICTURE}){_PACKED}", re.IGNORECASE)
# What may stand for an image: a backup, a placeholder, an encrypted file or other data, but no notes about it.
_DATA = r"\.(?:raw|zraw|vt[ki]|stl|np[yz]|b2nd|mat|tar|tgz|rar|seg|labels?|mask|mrb|mrml|mitk|itksnap)(?:\.gz)?"
_DOTLESS = r"[\W_]*(?:nii|nrrd|nhdr|mha|mhd|mgz)[\W_]*(?:gz)?"  # dots are lost where names are changed
_LEFT = re.compile(rf"(?:\.seg)?(?:{_VOLUME}[^A-Za-z0-9].*|{_DATA}|{_DOTLESS}[\W_]*)$", re.IGNORECASE)
_NOTES = re.compile(r"\.(?:json|txt|csv|tsv|xml|ya?ml|log|md|pdf|html|md5|sha\d*)$", re.IGNORECASE)


def image_ending(name: str) -> str:
    """Return the ending of an image file as it is written in its name, e.g. ``.seg.nrrd`` or ``.NII.GZ``; else ``""``.

    Hidden files have none: those of macOS that begin with ``._`` have the names of images, but are none.
    """
    found = None if name.startswith(".") else _IMAGE.search(name)
    return name[found.start() :] if found else ""


def _leftover(name: str) -> str:
    """Return the ending of a file that may stand for an image, e.g. ``.nii.gz.bak`` or ``.npz``; else ``""``."""
    found = None if image_ending(name) or _NOTES.search(name) else _LEFT.search(name)
    return name[found.start() :] if found else ""


def files_by_case(
    folder: Path,
    endings: Sequence[str],
    cases: Collection[str] | None = None,
    what: str = "label",
    look: bool = True,
) -> dict[str, list[Path]]:
    """Return the files of a folder that are named like a case with one of the ``endings``, by case.

    ``cases`` are the names that count, None for any; the longest of the ``endings`` that fits counts. Files that are no
    images, hidden files, folders, and pictures beside volumes are passed over. Raises LimitedError for an image
    (``what`` it should be) with another ending or of no case, for a file or folder named like a case without an ending,
    and, unless names alone are to be looked at (``look`` is False), for what :func:`check_file` refuses.
    Where a case has no file, backups, placeholders and other data of its name, and files of it in a folder are refused.
    """
    found: dict[str, list[Path]] = {}
    others: list[Path] = []
    inside: list[Path] = []
    for file in _entries(folder):
        ending = max((e for e in endings if file.name.endswith(e)), key=len, default="")
        case = file.name.removesuffix(ending)
        if ending and (cases is None or case in cases):
            if look:
                check_file(file, what)
            found.setdefault(case, []).append(file)
        elif ending or image_ending(file.name) or _leftover(file.name) or _is_bare(file.name, cases):
            others.append(file)
        elif cases is not None and file.is_dir():
            inside += [one for one in _files_within(file) if one.name.endswith(tuple(endings))]
    for file in others:
        if not _is_companion(file, endings, cases, found):
            raise LimitedError(f"{what} {file} {_reason(file, endings, cases, others)}")
    for file in inside:
        if _meant(file.name, [case for case in cases or () if case not in found]):
            raise LimitedError(f"{what} {file} is in a folder, which is not read; {_move(file, folder)}")
    return found


def one_file_by_case(
    folder: Path,
    endings: Sequence[str],
    cases: Collection[str] | None = None,
    what: str = "label",
    look: bool = True,
) -> dict[str, Path]:
    """Return the only file of each case, as :func:`files_by_case` finds them; two files of one case are an error."""
    found = files_by_case(folder, endings, cases, what, look)
    for case, files in found.items():
        if len(files) > 1:
            raise LimitedError(
                f"case {case} has two {what} files in {folder}, {files[0].name} and {files[1].name}; remove one"
            )
    return {case: files[0] for case, files in found.items()}


def channels_by_case(folder: Path, ending: str) -> dict[str, list[Path]]:
    """Return the image files of a folder by case, in the order of channels, by nnU-Net's rule for their names.

    nnU-Net's own listing starts twelve processes. Raises LimitedError as :func:`files_by_case` does, and for a folder
    without images.
    """
    files: dict[str, list[Path]] = {}
    for name, (file,) in files_by_case(folder, [ending], what="image").items():
        match = re.fullmatch(r"(.+)_\d{4}", name)
        if match is None:
            raise LimitedError(f"{file} is not named like case_0000{ending}; add the channel number or remove it")
        files.setdefault(match[1], []).append(file)
    for file in (one for entry in _entries(folder) for one in _files_within(entry)):
        series = file.suffix.lower() in (".dcm", ".ima") or _is_dicom(file)
        match = re.fullmatch(rf"(.+)_\d{{4}}{re.escape(ending)}", file.name)
        if file.parent == folder:
            if series:
                raise LimitedError(f"image {file} is a DICOM file; convert its series to one file case_0000{ending}")
        elif series:
            raise LimitedError(
                f"folder {file.parent} holds a DICOM series, which is not read; convert it to one file "
                f"case_0000{ending} in {folder}, or move it elsewhere"
            )
        elif match is not None and match[1] not in files:
            raise LimitedError(f"image {file} is in a folder, which is not read; {_move(file, folder)}")
    if not files:
        raise LimitedError(f"{folder} holds no image named like case_0000{ending}; put images there or remove it")
    return files


def images_of_cases(folder: Path, cases: Collection[str], ending: str) -> list[Path]:
    """Return the images of a folder that seem to be of one of the ``cases``, pictures only if they have the ``ending``.

    There is none if the folder does not exist.
    """
    found = []
    for file in _entries(folder) if folder.is_dir() else ():
        picture = re.fullmatch(_PICTURE, image_ending(file.name).lower()) and not file.name.endswith(ending)
        if image_ending(file.name) and not picture and _meant(file.name, cases) is not None:
            found.append(file)
    return found


def _entries(folder: Path) -> Iterator[Path]:
    """Yield what a folder holds in order of names, without hidden files but for placeholders of files in iCloud."""
    return (file for file in sorted(folder.iterdir()) if file.name[:1] != "." or file.name.endswith(".icloud"))


def _files_within(entry: Path) -> Iterator[Path]:
    """Yield ``entry`` if it is a file, else the files in the folder ``entry``, without hidden ones."""
    if not entry.is_dir():
        yield entry
    for folder, _, names in os.walk(entry):
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def _is_dicom(file: Path) -> bool:
    """Return whether a file without an ending, or with a number for one, is DICOM."""
    if not re.fullmatch(r"\.?\d*", file.suffix) or not file.is_file():
        return False
    with contextlib.suppress(OSError), file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"
    return False


def _move(file: Path, folder: Path) -> str:
    return f"move the file into {folder}, or the folder {file.parent} elsewhere"


def _is_companion(
    file: Path, endings: Iterable[str], cases: Collection[str] | None, found: dict[str, list[Path]]
) -> bool:
    """Return whether ``file`` is no volume, e.g. a screenshot or a backup, and stands for no case without a file."""
    ending = image_ending(file.name)
    stem = file.name.removesuffix(ending or _leftover(file.name)).lstrip(".")
    picture = re.fullmatch(_PICTURE, ending.lower()) is not None
    if file.name.endswith(tuple(endings)) or not (picture or _leftover(file.name)):
        return False
    if cases is None:
        return stem in found or not re.search(r"_\d{4}$", stem)
    meant = _meant(stem, cases)
    return meant is None or meant in found


def _reason(file: Path, endings: Sequence[str], cases: Collection[str] | None, others: Collection[Path]) -> str:
    """Return why an image is not recognised and what to do about it; ``others`` are not recognised either."""
    ending = image_ending(file.name) or _leftover(file.name)
    stem = file.name.removesuffix(next((e for e in endings if file.name.endswith(e)), ending))
    case = _meant(stem, cases) if cases is not None else stem
    if not ending and file.is_dir():
        return f"is a folder; put the file of case {case} itself into {file.parent}, or move the folder elsewhere"
    if not ending:
        return f"has no ending of an image, but only {_either(endings)} is read; rename it, or move it elsewhere"
    if not file.name.endswith(tuple(endings)):
        written = ending if ending == ending.strip() else repr(ending)
        return (
            f"has the ending {written}, but only {_either(endings)} is read; convert or rename it, or move it elsewhere"
        )
    if case is None:
        return "is named like no case of the dataset; name it after its case, or move it elsewhere"
    name = f"{case}{next(e for e in endings if file.name.endswith(e))}"
    if name == unicodedata.normalize("NFC", file.name) or name == unicodedata.normalize("NFD", file.name):
        return f"encodes accents otherwise than case {case}, so that no name matches; rename one like the other"
    alike = [one for one in others if cases is not None and _meant(one.name, cases) == case]
    if len(alike) > 1:
        return (
            f"is one of {len(alike)} files named like parts of case {case}; save one label map with all classes, {name}"
        )
    return f"is named like no case of the dataset; rename it to {name} if it is of case {case}, or move it elsewhere"


def _either(endings: Sequence[str]) -> str:
    return " or ".join(endings[:1] if len(endings) == 1 else [", ".join(endings[:-1]), endings[-1]])


def _is_bare(name: str, cases: Collection[str] | None) -> bool:
    """Return whether a file or folder is named like a case, or a channel of any, with no ending of an image."""
    bare = re.sub(_PACKED, "", name, flags=re.IGNORECASE)
    if cases is None:
        return bool(re.search(r"_\d{4}$", bare))
    return bare in cases or _folded(bare) in {_folded(case) for case in cases}


def _meant(name: str, cases: Collection[str]) -> str | None:
    """Return the case that ``name`` probably stands for: the longest that is a whole part of it, or None.

    Neither the case of letters nor how accents are encoded matters.
    """
    folded = _folded(name)
    parts = [case for case in cases if re.search(rf"(?<![^\W_]){re.escape(_folded(case))}(?![^\W_])", folded)]
    return max(parts, key=len, default=None)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
