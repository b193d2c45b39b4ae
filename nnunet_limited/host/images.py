"""nnU-Net's readers and writers of images."""

import contextlib
import io
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk

from nnunet_limited.annotations.grid import LABEL, Grid, Words, check_label, check_stored, not_finite
from nnunet_limited.errors import LimitedError
from nnunet_limited.util.files import replacing
from nnunet_limited.util.provenance import DigestCache, array_digest
from nnunet_limited.util.whole import NIFTI, refuse_no_length, require_whole

ASSUMED = "spacing is assumed"  # property of a label in a TIFF file without a JSON file, for which nnU-Net takes 1 mm
OVERWRITE = "overwrite_image_reader_writer"  # the key of dataset.json that names a reader
REMEDIES = {  # by a part of what nnU-Net's readers say
    "orthonormal": "resample its sheared axes, or set overwrite_image_reader_writer to NibabelIO in dataset.json",
    "only 3d images": "save a volume of three axes",
    "Only 3D images": "save a volume of three axes",
    "RGB or RGBA": "save one grey or RGB image",
    "determine ImageIO": "save it again in the format of its ending, .nii.gz as NIfTI-1",
    "Refusing to change": "correct its header",
    "matrix dimensions": "save a volume of three axes, or set overwrite_image_reader_writer to SimpleITKIO",
    "spacing": 'write {"spacing": [z, y, x]} into the .json file beside it',
    "Unable to allocate": "free memory, or use fewer processes",
}


def check_reader(dataset_json: dict[str, Any], file: Path) -> None:
    """Raise LimitedError if nnU-Net has no reader for the ending or of the name in ``file``, a dataset.json.

    nnU-Net passes over a name that it does not know and reads by the ending.
    """
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
    from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES, recursive_find_reader_writer_by_name

    ending, name = dataset_json["file_ending"], dataset_json.get(OVERWRITE, "None")
    if not re.fullmatch(r"(\.[A-Za-z0-9]+)+", ending):
        raise LimitedError(f"{file}: file_ending is {ending!r}; write the ending with its dot, like '.nii.gz'")
    if name == "None":
        known = sorted({one for reader in LIST_OF_IO_CLASSES for one in reader.supported_file_endings})
        if ending.lower() not in known:
            raise LimitedError(f"{file}: nnU-Net cannot read file_ending {ending!r}; use one of {', '.join(known)}")
        return
    try:
        found = recursive_find_reader_writer_by_name(name) if isinstance(name, str) else None
    except RuntimeError:
        found = None
    if not (isinstance(found, type) and issubclass(found, BaseReaderWriter) and found is not BaseReaderWriter):
        readers = ", ".join(reader.__name__ for reader in LIST_OF_IO_CLASSES)
        raise LimitedError(f"{file}: {OVERWRITE} is {name!r:.60}; use one of {readers}, or remove the key")


def reader_for(dataset_json: dict[str, Any], example: Path) -> Any:
    """Return nnU-Net's reader class for images like ``example``, which it must be able to read."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    named = dataset_json.get(OVERWRITE, "None")
    try:
        # nnU-Net prints a traceback for each reader that fails, and a line for the one that does not.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            reader = determine_reader_writer_from_dataset_json(dataset_json, str(example), verbose=False)
            if named != "None":  # nnU-Net tries only readers that it finds by the ending
                reader().read_images([str(example)])
    except Exception as error:  # readers raise what their libraries raise, nibabel and tifffile errors of their own
        if named != "None":
            raise LimitedError(
                f"{example} cannot be read by {named}, which {OVERWRITE} in dataset.json names ({_reason(error)}); "
                "check the file, or name another reader"
            ) from error
        raise LimitedError(
            f"{example} cannot be read by nnU-Net as {dataset_json['file_ending']!r}; check the file and "
            "file_ending in dataset.json"
        ) from error
    return reader


def read_scan(reader: Any, files: Sequence[Path], channels: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
    """Return an image (c, *spatial) of one or more ``files`` and its properties, by a ``reader`` of nnU-Net.

    Raises LimitedError for files that are damaged, unreadable, 4D or of vectors, without a spacing, or that differ in
    shape or spacing; if ``channels`` is given, for another number of them too.
    """
    for file in files:
        require_whole(file)
        _refuse_vectors(reader, file)
    printed = io.StringIO()
    names = ", ".join(map(str, files))
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):  # tifffile writes there
            image, properties = reader.read_images([str(file) for file in files])
    except Exception as error:  # see reader_for
        # nnU-Net prints the shapes or spacings that differ, in three lines, and raises without a message.
        differ = [] if str(error) else printed.getvalue().splitlines()[:3]
        reason = " ".join(differ) or _reason(error)
        remedy = "save them with one shape and spacing" if differ else _remedy(reason, "repair or replace it")
        raise LimitedError(f"{names} cannot be read: {reason}; {remedy}") from error
    for file in files:
        refuse_no_spacing(file, properties)
    if channels is not None and len(image) != channels:
        found = f"{len(image)} channel{'s' * (len(image) != 1)}"
        raise LimitedError(
            f"{names} has {found}, dataset.json declares {channels}; add the missing channels or correct channel_names"
        )
    if len(properties.get("sitk_stuff", {}).get("spacing", ())) == 4:
        raise LimitedError(f"{names} is 4D, on whose grid nnU-Net cannot write a label; save each channel as a 3D file")
    return image, properties


def count_hidden(reader: Any, files: Sequence[Path]) -> int:
    """Return the number of voxels of NIfTI ``files`` that are NaN or infinite and that nnU-Net's ``reader`` makes 0."""
    return sum(len(not_finite(file)) for file in files) if "SimpleITK" in type(reader).__name__ else 0


def _reason(error: Exception) -> str:
    """Return the line of an error that states what is wrong; ITK writes others before and after it."""
    lines = str(error).strip().splitlines() or [repr(error)]
    found = re.search(r"ERROR: (?:\w+\(0x\w+\): )?(.+)", str(error))
    return f"{type(error).__name__} {error}" if isinstance(error, KeyError) else found[1] if found else lines[-1]


def _remedy(reason: str, otherwise: str) -> str:
    """Return what to do about the ``reason`` why a reader of nnU-Net cannot read a file."""
    return next((remedy for part, remedy in REMEDIES.items() if part in reason), otherwise)


def _refuse_vectors(reader: Any, file: Path, what: str = "image") -> None:
    """Refuse a file with complex numbers or several components in a voxel, which readers turn into something else."""
    kind, components = "", 1
    if "SimpleITK" in type(reader).__name__:
        header = sitk.ImageFileReader()
        header.SetFileName(str(file))
        with contextlib.suppress(RuntimeError):  # the reader will say what is wrong
            header.ReadImageInformation()
            kind, components = sitk.GetPixelIDValueAsString(header.GetPixelID()), header.GetNumberOfComponents()
    elif "Nibabel" in type(reader).__name__:
        with contextlib.suppress(nibabel.filebasedimages.ImageFileError, OSError):
            stored: Any = nibabel.load(file)
            kind, components = stored.get_data_dtype().name, len(stored.get_data_dtype().names or "1")
    if "complex" in kind:
        raise LimitedError(f"{what} {file} holds complex numbers; save real numbers, as of their magnitude")
    if components > 1:
        remedy = "save each as a file of its own (_0000, _0001, …), or PNG images with NaturalImage2DIO"
        remedy = remedy if what == "image" else f"save a {what} of one channel"
        raise LimitedError(f"{what} {file} has {components} components in each voxel (vectors or colours); {remedy}")


def refuse_no_spacing(file: Path, properties: dict[str, Any], what: str = "image") -> None:
    """Refuse a NIfTI file whose header has a spacing of 0 or NaN, unless its reader goes by the affine alone."""
    if "reoriented_affine" in properties.get("nibabel_stuff", {}):
        stored: Any = nibabel.load(file)
        if stored.header["sform_code"] > 0:
            return
    refuse_no_length(file, what)


def read_label(reader: Any, file: Path, what: str = "label") -> tuple[np.ndarray, dict[str, Any]]:
    """Return a label (*spatial) as float32 and its properties, by a ``reader`` of nnU-Net.

    Raises LimitedError for a file that is damaged, unreadable, has several channels, or values that are no numbers.
    """
    require_whole(file, what)
    _refuse_vectors(reader, file, what)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            label, properties = reader.read_seg(str(file))
    except Exception as error:  # see reader_for
        reason = _reason(error)
        raise LimitedError(
            f"{what} {file} cannot be read ({reason}); {_remedy(reason, 'repair or remove it')}"
        ) from error
    if label.shape[0] != 1 or len(properties.get("sitk_stuff", {}).get("spacing", ())) == 4:
        raise LimitedError(f"{what} {file} has {label.shape[0]} channels; save a {what} of one channel")
    if "SimpleITK" in type(reader).__name__:
        check_stored(file, what)
    if type(reader).__name__ == "Tiff3DIO" and not file.with_suffix(".json").is_file():
        properties = {**properties, ASSUMED: True}
    return label[0], properties


def read_label_on(
    reader: Any,
    file: Path,
    image: Grid,
    allowed: Collection[int],
    aligned: bool = False,
    words: Words = LABEL,
) -> tuple[np.ndarray, str | None]:
    """Return a label (*spatial, int16) and a warning if its grid is a little off that of its ``image``.

    Raises LimitedError for what :func:`read_label` and :func:`check_label` refuse.
    """
    label, properties = read_label(reader, file, words.what)
    try:
        return check_label(file, label, grid_of(label.shape, properties), image, allowed, aligned, words)
    except LimitedError:
        refuse_no_spacing(file, properties, words.what)  # of which another grid is a consequence
        raise


def grid_of(shape: Sequence[int], properties: dict[str, Any]) -> Grid:
    """Return the grid of an array (*spatial) from the properties of nnU-Net's reader, as the reader has turned it."""
    spacing = None if properties.get(ASSUMED) else tuple(float(step) for step in properties["spacing"])
    if "sitk_stuff" in properties:
        stuff = properties["sitk_stuff"]
        return Grid.of_sitk(shape, stuff["spacing"], stuff["origin"], stuff["direction"])
    if "nibabel_stuff" in properties:
        stuff = properties["nibabel_stuff"]
        matrix = stuff.get("reoriented_affine", stuff["original_affine"])
        return Grid(tuple(shape), spacing, np.diag([-1.0, -1, 1, 1]) @ matrix)  # nibabel counts to the right and front
    return Grid(tuple(shape), spacing)


def scan_digest(image: np.ndarray, properties: dict[str, Any]) -> str:
    """Return a digest of an image (c, *spatial) and its grid; how the file stores them is no part of it.

    Numbers of the grid are rounded to 4 decimals, which is coarser than what files round them to.
    """
    grid = grid_of(image.shape[1:], properties)
    numbers: list[Any] = [grid.spacing or (), [] if grid.matrix is None else grid.matrix.ravel()]
    return array_digest(image, [(np.round(np.asarray(part, float), 4) + 0.0).tolist() for part in numbers])


def image_digest(files: Sequence[Path], reader_class: Any, cache: DigestCache) -> str:
    """Return the digest of an image, which is read only if ``cache`` does not know it."""
    found = cache.get(files)
    if found is None:
        found = scan_digest(*read_scan(reader_class(), files))
        cache.add(files, found)
    return found


def label_digest(file: Path, reader_class: Any, cache: DigestCache) -> str:
    """Return the digest of the values of a label, which is read only if ``cache`` does not know it.

    Its grid is that of its image.
    """
    found = cache.get([file])
    if found is None:
        found = array_digest(read_label(reader_class(), file)[0])
        cache.add([file], found)
    return found


def write_label(reader: Any, label: Any, file: Path, properties: Any) -> None:
    """Write a label (*spatial) with a reader of nnU-Net at once; the one of TIFF writes the spacing to ``.json``."""
    ending = next((ending for ending in NIFTI if file.name.endswith(ending)), file.suffix)
    with replacing(file, ending) as temporary:
        reader.write_seg(label, str(temporary), properties)
        spacing, place = (one.with_name(f"{one.name.removesuffix(ending)}.json") for one in (temporary, file))
        if spacing.is_file():
            with replacing(place) as moved:
                spacing.replace(moved)


def write_codes(reader: Any, codes: np.ndarray, file: Path, properties: Any) -> None:
    """Write whole numbers of 16 bits (*spatial) as :func:`write_label` does.

    The one that reorients would cut them to 8 bits, so its parent writes them, on axes that are in its order already.
    """
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    write_label(SimpleITKIO() if isinstance(reader, SimpleITKIO) else reader, codes, file, properties)


def listed_files(folder: Path, dataset_json: dict[str, Any]) -> dict[str, Any]:
    """Return the files of each training case of a raw dataset as nnU-Net lists them."""
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    return get_filenames_of_train_images_and_targets(str(folder), dataset_json)
