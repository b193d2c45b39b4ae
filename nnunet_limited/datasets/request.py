"""What the commands ``sparsify`` and ``import-labels`` are asked for."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from nnunet_limited.util.request import Request, Voxels

OUT = "Name of the new dataset, e.g. Dataset601_HeartScribbles."


class SparsifyRequest(Request):
    """Dataset, kind of sparse label, and how it is drawn."""

    dataset: str = Field(description="Number or name of the dataset.")
    kind: Literal["scribbles", "slices", "orthogonal-slices", "boxes", "points", "patches"] = Field(
        description="Kind of sparse label to draw."
    )
    out: str = Field(description=OUT)
    seed: int = Field(0, ge=0, lt=2**32, description="Random seed of the drawing.")
    count: int | None = Field(
        None,
        ge=1,
        description="Number of slices per axis, points per object, patches, or slices with scribbles. Default: 1; for "
        "scribbles all slices.",
    )
    axis: int | None = Field(
        None,
        ge=0,
        le=2,
        description="Axis perpendicular to the slices: 0, 1 or 2 for z, y or x; default: that of the largest spacing.",
    )
    placement: Literal["centre", "equidistant", "random"] | None = Field(
        None, description="Position of slices or points; default: centre."
    )
    style: Literal["spline", "skeleton"] | None = Field(
        None, description="Shape of scribbles, with --kind scribbles; default: spline."
    )
    margin: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Largest margin added to each side of a box, as a fraction of the object's size; default: 0.",
    )
    size: Voxels = Field((), description="Size of a patch in voxels along each axis (z, y, x), e.g. 8x64x64.")
    background: int | None = Field(
        None, ge=0, description="Number of points in the background, with --kind points; default: 10."
    )
    radius: float | None = Field(
        None, ge=0, description="Radius of a point, in units of the smallest spacing; default: 2."
    )
    seconds: float | None = Field(
        None,
        ge=0,
        description="Seconds to draw one stroke, outline, box or point; used to estimate minutes. Default: a measured "
        "time for the kind.",
    )

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of the simulator that were given."""
        names = ("count", "axis", "placement", "style", "margin", "size", "background", "radius")
        return {name: value for name in names if (value := getattr(self, name)) not in (None, ())}


class ImportRequest(Request):
    """Dataset and annotations: exactly one of ``labels``, ``boxes`` and ``points``."""

    dataset: str = Field(description="Number or name of the dataset.")
    out: str = Field(description=OUT)
    labels: Path | None = Field(None, description="Folder of label files, each named after its case.")
    unlabeled: int | None = Field(None, ge=0, description="Value of unannotated voxels in the label files.")
    background: int = Field(0, ge=0, description="Value of annotated background in the label files.")
    grid_of_image: bool = Field(
        False, description="Take label files voxel by voxel although their position differs from that of their image."
    )
    boxes: Path | None = Field(
        None,
        description="CSV or JSON file of boxes: case,class,x0,y0,z0,x1,y1,z1 (first and last voxel of an object).",
    )
    points: Path | None = Field(None, description="CSV or JSON file of points: case,class,x,y,z.")
    coordinates: Literal["voxel", "lps", "ras"] = Field(
        "voxel", description="Coordinate system of boxes and points: voxel indices from 0, or millimetres (lps, ras)."
    )
    radius: float = Field(2.0, ge=0, description="Radius of a point, in units of the smallest spacing.")
