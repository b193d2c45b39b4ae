"""The kinds of sparse labels that can be simulated, with their options."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nnunet_limited.annotations.annotation import Annotation, Box
from nnunet_limited.annotations.objects import boxes, patches, points, slices
from nnunet_limited.annotations.scribbles import scribbles
from nnunet_limited.errors import LimitedError


class Kind(NamedTuple):
    """A simulator, the options it understands, and the seconds that one of its marks takes a person.

    The times were measured on photographs: strokes and points by Bearman et al. (ECCV 2016, arXiv 1506.02106), boxes by
    Papadopoulos et al. (ICCV 2017, arXiv 1708.02750), outlines by Lin et al. (COCO, ECCV 2014, arXiv 1405.0312). A
    stroke is half a scribble there, as two are drawn here for one; a box has six faces here, not four.
    """

    simulator: Callable[..., Annotation]
    options: frozenset[str]
    seconds: float


KINDS = {
    "scribbles": Kind(scribbles, frozenset({"axis", "style", "count"}), 5.5),
    "slices": Kind(slices, frozenset({"axis", "count", "placement"}), 79.0),
    "orthogonal-slices": Kind(slices, frozenset({"count", "placement"}), 79.0),
    "boxes": Kind(boxes, frozenset({"margin"}), 10.5),
    "points": Kind(points, frozenset({"count", "placement", "background", "radius"}), 2.4),
    "patches": Kind(patches, frozenset({"size", "count"}), 79.0),
}


def check_options(kind: str, options: dict[str, Any]) -> None:
    """Raise LimitedError for an option that ``kind`` does not have, or needs and lacks."""
    for name, value in options.items():
        if name not in KINDS[kind].options:
            fitting = ", ".join(other for other, about in KINDS.items() if name in about.options)
            raise LimitedError(f"--{name} {value} has no effect with --kind {kind}; remove it (it is for {fitting})")
    if kind == "patches" and "size" not in options:
        raise LimitedError("--kind patches needs --size, the voxels of a patch along each axis; give e.g. 8x64x64")
    if kind == "points" and options.get("placement") == "equidistant":
        raise LimitedError("--placement equidistant is not possible with --kind points; give centre or random")


def simulate(
    kind: str, label: np.ndarray, ignore: int, case: str, seed: int, spacing: Sequence[float], options: dict[str, Any]
) -> Annotation:
    """Annotate the dense ``label`` (z, y, x) of ``case`` sparsely; an image of one slice counts as 2D.

    The random numbers come from ``seed`` and the case's name alone. Without an axis among the ``options``, slices lie
    across that with the largest ``spacing``. Raises LimitedError for an option that does not fit the image.
    """
    options = dict(options)
    flat = label.shape[0] == 1
    shown, spacing = (label[0], list(spacing)[1:]) if flat else (label, list(spacing))
    if flat and kind in ("slices", "orthogonal-slices"):
        raise LimitedError(f"case {case} is a single image, which has no slices to choose from; choose another --kind")
    axis = options.pop("axis", None)
    if axis is not None and axis >= shown.ndim:
        raise LimitedError(f"--axis {axis}: case {case} has the axes 0 to {shown.ndim - 1}; choose one of them")
    axis = int(np.argmax(spacing)) if axis is None else axis
    if kind == "scribbles":
        options["axis"] = axis
    elif kind == "slices":
        options["axes"] = (axis,)
    elif kind == "orthogonal-slices":
        options["axes"] = (0, 1, 2)
    elif kind == "points":
        options["spacing"] = spacing
        if "count" in options:
            options["per_object"] = options.pop("count")
    elif kind == "patches" and len(options["size"]) != shown.ndim:
        size = "x".join(map(str, options["size"]))
        raise LimitedError(
            f"--size {size} has {len(options['size'])} numbers, case {case} {shown.ndim} axes; give one for each"
        )
    rng = np.random.default_rng([seed, zlib.crc32(case.encode())])
    made = KINDS[kind].simulator(shown, ignore, rng, **options)
    if not flat:
        return made
    boxes = tuple(Box(box.value, (0, *box.start), (1, *box.stop)) for box in made.boxes)
    return made._replace(label=made.label[None], boxes=boxes)
