"""Replace the dense labels of a dataset by simulated sparse ones, in a view of it."""

from pathlib import Path
from typing import Any

from nnunet_limited.annotations.annotation import box_codes
from nnunet_limited.annotations.grid import check_label
from nnunet_limited.annotations.simulate import KINDS, check_options, simulate
from nnunet_limited.datasets.derived import box_file, write_view
from nnunet_limited.datasets.description import DatasetDescription
from nnunet_limited.datasets.raw import Case, RawDataset
from nnunet_limited.datasets.request import SparsifyRequest
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.images import grid_of, read_label, read_scan, write_codes, write_label


def sparsify(request: SparsifyRequest, processes: int) -> dict[str, Any]:
    """Make the view ``request.out`` and return its record."""
    check_options(request.kind, request.options)
    dataset = RawDataset.load(request.dataset)
    if not dataset.labeled:
        raise LimitedError(f"{dataset.folder} has no labelled case, so there is nothing to sparsify; add labels")
    seconds = KINDS[request.kind].seconds if request.seconds is None else request.seconds
    origin = {"kind": request.kind, "seed": request.seed, "options": request.options, "seconds_per_mark": seconds}
    arguments = dict.fromkeys(dataset.labeled, (dataset.description, request, seconds))
    return write_view(dataset, request.out, arguments, annotate, origin, processes)


def annotate(
    case: Case,
    target: Path,
    reader_class: Any,
    ignore: int,
    description: DatasetDescription,
    request: SparsifyRequest,
    seconds: float,
) -> dict[str, Any]:
    """Write the sparse label of one case to ``target``; return its cost, and its boxes where there are any."""
    assert case.label is not None
    reader = reader_class()
    label, properties = read_label(reader, case.label)
    image, of_image = read_scan(reader, case.images, description.num_channels)
    grid, place = grid_of(label.shape, properties), grid_of(image.shape[1:], of_image)
    dense, _ = check_label(case.label, label, grid, place, description.label_values, description.grid_of_image)
    spacing = properties["spacing"]
    made = simulate(request.kind, dense, ignore, case.identifier, request.seed, spacing, request.options)
    write_label(reader, made.label, target, properties)
    about: dict[str, Any] = made.cost(ignore, seconds)
    if request.kind == "boxes":
        write_codes(reader, box_codes(dense.shape, made.boxes), box_file(target), properties)
        about["boxes"] = [list(box) for box in made.boxes]
    return about
