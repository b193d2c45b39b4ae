"""Scribbles drawn by a machine on a dense label."""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from scipy import ndimage
from scipy.interpolate import BSpline
from skimage.draw import line
from skimage.graph import MCP_Geometric
from skimage.measure import find_contours
from skimage.morphology import skeletonize

from nnunet_limited.annotations.annotation import Annotation, classes, only
from nnunet_limited.annotations.objects import chosen_slices

Style = Literal["spline", "skeleton"]
THICK = np.ones((3, 3), bool)


def scribbles(
    label: np.ndarray,
    ignore: int,
    rng: np.random.Generator,
    axis: int = 0,
    style: Style = "spline",
    count: int | None = None,
) -> Annotation:
    """Draw on the slices across ``axis`` of ``label`` (2D or 3D, integers): one object of each class in each slice.

    The object is drawn with a probability proportional to its area, background included; afterwards every object in
    3D without a stroke gets one in its largest slice. ``spline`` draws a curve inside the object and an arc along its
    border, three voxels thick, after Gotkowski et al., Scribbles for all: ScribbleBench (MICCAI 2025); ``skeleton``
    draws the longest path of the object's skeleton, a little moved and turned, as in Luo et al., WSL4MIS (2022).
    ``count`` limits the slices to that many at equal distances through the foreground, and leaves out the last step.
    """
    view = label[None] if label.ndim == 2 else np.moveaxis(label, axis, 0)
    drawn = np.zeros(view.shape, bool)
    chosen = range(len(view)) if count is None else chosen_slices(view, ignore, rng, count, "equidistant")
    marks = 0
    for index in chosen:
        for value in classes(view[index], ignore):
            objects, number = ndimage.label(view[index] == value)
            area = np.bincount(objects.ravel(), minlength=number + 1)[1:]
            marks += _draw(drawn[index], objects == 1 + rng.choice(number, p=area / area.sum()), rng, style)
    for value in classes(view, ignore) if count is None else ():
        objects, number = ndimage.label(view == value)
        touched = np.unique(objects[drawn])
        for missed in np.setdiff1d(np.arange(1, number + 1), touched):
            inside = objects == missed
            index = int(inside.sum(axis=(1, 2)).argmax())
            marks += _draw(drawn[index], inside[index], rng, style)
    touched_slices = int(drawn.any(axis=(1, 2)).sum())
    annotated = drawn[0] if label.ndim == 2 else np.moveaxis(drawn, 0, axis)
    return Annotation(only(label, annotated, ignore), marks, touched_slices)


def _draw(drawn: np.ndarray, inside: np.ndarray, rng: np.random.Generator, style: Style) -> int:
    """Mark the strokes of one object, ``inside`` (h, w), in ``drawn``; return how many there are."""
    rows, columns = ndimage.find_objects(inside.astype(np.uint8))[0]
    window = (slice(max(rows.start - 1, 0), rows.stop + 1), slice(max(columns.start - 1, 0), columns.stop + 1))
    cut = inside[window]
    strokes = [stroke for stroke in STYLES[style](cut, rng) if stroke.any()]
    for stroke in strokes:
        drawn[window] |= ndimage.binary_dilation(stroke, THICK) & cut
    return len(strokes)


def _spline(inside: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    yield _curve(inside, rng)
    yield _arc(inside, rng)


def _curve(inside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a quadratic spline through the object whose four control points see each other inside it."""
    points = np.argwhere(inside)
    control = [points[rng.integers(len(points))]]
    for target in points[rng.integers(len(points), size=3)]:
        path = np.stack(line(*control[-1], *target), axis=1)
        outside = ~inside[path[:, 0], path[:, 1]]
        control.append(path[outside.argmax() - 1] if outside.any() else target)
    curve = BSpline([0, 0, 0, 0.5, 1, 1, 1], np.array(control, float), 2)
    return _raster(curve(np.linspace(0, 1, 1000)), inside)


def _arc(inside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return 7 to 15 % of a contour that runs two to five voxels inside the object, more likely where it bends."""
    if inside.all() or min(inside.shape) < 2:
        return np.zeros_like(inside)
    depth = ndimage.distance_transform_edt(inside)
    contours = find_contours((depth > min(1 + rng.integers(1, 5), depth.max() / 2)).astype(float), 0.5)
    if not contours:
        return np.zeros_like(inside)
    lengths = np.array([len(contour) for contour in contours], float)
    contour = contours[rng.choice(len(contours), p=lengths / lengths.sum())]
    smooth = ndimage.gaussian_filter1d(contour, 2, axis=0, mode="wrap")
    bend = np.linalg.norm(np.gradient(np.gradient(smooth, axis=0), axis=0), axis=1) if len(contour) > 2 else lengths[:1]
    bend = np.resize(bend, len(contour)) + 1e-6
    centre = rng.choice(len(contour), p=bend / bend.sum())
    half = max(1, round(len(contour) * rng.uniform(0.07, 0.15) / 2))
    return _raster(contour[np.arange(centre - half, centre + half + 1) % len(contour)], inside)


def _skeleton(inside: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the longest path of the skeleton, turned by up to 15 degrees and moved by up to 6 voxels."""
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    eroded = depth > min(3, depth.max() / 2)
    path = _longest_path(skeletonize(eroded) if eroded.sum() > 1 else eroded)
    angle, middle = np.deg2rad(rng.uniform(-15, 15)), path.mean(0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    reach = min(6.0, float(depth.max()) / 2)
    moved = _raster((path - middle) @ turn.T + middle + rng.uniform(-reach, reach, 2), inside)
    yield moved if moved.any() else _raster(path, inside)


def _longest_path(skeleton: np.ndarray) -> np.ndarray:
    """Return the points (n, 2) of the longest of the shortest paths through the largest part of a skeleton."""
    parts, _ = ndimage.label(skeleton, THICK)
    largest = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    ends = [tuple(np.argwhere(largest)[0])]
    for _ in range(2):  # the farthest point from anywhere is an end of a longest path
        search = MCP_Geometric(np.where(largest, 1.0, -1.0))
        costs, _ = search.find_costs(ends[-1:])
        ends.append(np.unravel_index(np.where(largest, costs, -1).argmax(), costs.shape))
    return np.array(search.traceback(ends[-1]))


def _raster(points: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the voxels of the curve through ``points`` (n, 2) that are inside the object."""
    stroke = np.zeros_like(inside)
    rows, columns = np.clip(np.rint(points).astype(int), 0, np.array(inside.shape) - 1).T
    stroke[rows, columns] = True
    return stroke & inside


STYLES: dict[Style, Callable[[np.ndarray, np.random.Generator], Iterator[np.ndarray]]] = {
    "spline": _spline,
    "skeleton": _skeleton,
}
