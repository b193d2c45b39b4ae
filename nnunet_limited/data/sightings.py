"""Where networks have seen foreground in unlabelled cases; crops are drawn around it."""

from collections.abc import Sequence

import numpy as np
import torch

BYTES = 4 * 2**20  # of all points together, which every process of the loader can see
MAX_POINTS = 64  # per case and class; more would not make crops more varied
NOWHERE = -1
ORIGIN = 13  # numbers that say where a crop comes from: its case and a map (3, 4)


def origins(cases: Sequence[int], corners: Sequence[Sequence[int]], maps: Sequence[np.ndarray | None]) -> torch.Tensor:
    """Return where each of u crops comes from (u, 13): the number of its case and the map (3, 4) of its voxels.

    ``corners`` (u, 3) are the first voxels of the boxes that were cut out, ``maps`` the affine matrices (4, 4) from
    voxels of a crop to those of its box; None, where it is unknown, becomes NaN.
    """
    made = torch.full((len(cases), ORIGIN), torch.nan, dtype=torch.float64)
    for row, case, corner, matrix in zip(made, cases, corners, maps, strict=True):
        row[0] = case
        if matrix is not None:
            row[1:] = torch.from_numpy((matrix + np.pad(np.reshape(corner, (3, 1)), ((0, 1), (3, 0))))[:3].ravel())
    return made


class Sightings:
    """The latest voxels of each foreground class that a network has seen in each case, in shared memory.

    ``points`` (cases, classes, k, 3) are voxels, -1 where there is none, the latest first.
    """

    def __init__(self, cases: Sequence[str], classes: int) -> None:
        """Take the names of the cases and the number of foreground classes or regions."""
        self.index = {case: number for number, case in enumerate(sorted(set(cases)))}
        each = int(np.clip(BYTES // (len(self.index) * classes * 3 * 2), 4, MAX_POINTS))
        shape = (len(self.index), classes, each, 3)
        self.points = torch.full(shape, NOWHERE, dtype=torch.int16).share_memory_()
        self.per_crop = each // 4  # so that points of several crops along a large object stay

    def foreground(self, case: str) -> dict[int, np.ndarray]:
        """Return the voxels (n, 4) of each class, in the format of nnU-Net's class locations."""
        points = self.points[self.index[case]].numpy().astype(np.int64)
        found = {number: voxels[voxels[:, 0] != NOWHERE] for number, voxels in enumerate(points)}
        return {number: np.pad(voxels, ((0, 0), (1, 0))) for number, voxels in found.items()}

    def update(self, origin: np.ndarray, seen: np.ndarray, patch: Sequence[int]) -> None:
        """Replace what is known of the places of crops by what is seen there now.

        ``origin`` (u, 13) is that of :func:`origins`; rows with NaN are left out. ``seen`` (u, classes, s) are indices
        into the flattened crops of ``patch`` (3,) voxels, -1 for none.
        """
        points = self.points.numpy()
        for (case, *numbers), voxels in zip(origin, seen, strict=True):
            if not np.isfinite(numbers).all():
                continue
            matrix = np.reshape(numbers, (3, 4))
            known = points[int(case)]
            # Points of which the crop shows the place vanish; if the class is still there, it is among the new ones.
            inside = (known - matrix[:, 3]) @ np.linalg.inv(matrix[:, :3]).T
            gone = ((inside > -0.5) & (inside < np.asarray(patch) - 0.5)).all(-1)
            places = np.stack(np.unravel_index(np.maximum(voxels, 0), patch), -1) @ matrix[:, :3].T + matrix[:, 3]
            new = np.where(voxels[..., None] < 0, NOWHERE, np.maximum(np.rint(places), 0))
            both = np.concatenate([new, np.where(gone[..., None], NOWHERE, known)], 1)
            order = np.argsort(both[..., 0] == NOWHERE, axis=1, kind="stable")[:, : known.shape[1]]
            known[:] = np.take_along_axis(both, order[..., None], 1)
