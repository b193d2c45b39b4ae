"""Sparsely labelled cases with the labels of their annotated slices propagated to the slices between."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from nnunet_limited.annotations.propagate import annotated_slices, distances, propagate
from nnunet_limited.data.sparse import BEYOND, AnnotatedCases, UnannotatedDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.cases import network_spacing, save_label
from nnunet_limited.host.plans import managers
from nnunet_limited.planners.case_record import contents_of
from nnunet_limited.util.files import read_object, write_json
from nnunet_limited.util.locks import one_at_a_time
from nnunet_limited.util.parallel import default_processes, run_all
from nnunet_limited.util.provenance import is_made_from, write_sources

AXES = (0, 1, 2)


class ChannelStack:
    """Arrays (channels, *spatial) that are read as one; only slices that are asked for are read."""

    def __init__(self, *parts: Any) -> None:
        """Stack ``parts`` along their channels; the first gives the type."""
        self.parts = parts
        self.shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        self.dtype = parts[0].dtype

    def __getitem__(self, item: tuple[slice, ...]) -> np.ndarray:
        channels, *place = item
        inside = (slice(None), *place)
        return np.concatenate([np.asarray(part[inside], self.dtype) for part in self.parts])[channels]


class PropagatedDataset(UnannotatedDataset):
    """Sparse cases, at least half of the crops, with labels propagated across each axis, and cases without label.

    The segmentation is the mask and a label for each axis, -1 where there is none; three channels after those of the
    image are the weights of these labels. ``axes`` are those across which some case has annotated slices.
    """

    further_channels = len(AXES)
    identifiers: list[str]

    def __init__(self, *arguments: Any, plans: dict[str, Any], configuration: str, decay: float) -> None:
        """Take the parent's arguments, plans, configuration and decay; propagate the labels of new cases.

        The weight is 1 in an annotated slice and falls by the factor ``decay`` with every step of the finest spacing.
        Raises LimitedError if there are sparse cases, but no annotated slice.
        """
        super().__init__(*arguments)
        sparse, self.decay = sorted(self.sparse), decay
        folder = Path(self.annotated.source_folder)
        self.propagated = propagate_cases(folder, sparse, self.annotated.ignore, plans, configuration)
        self.apart = {case: read_distances(self.propagated, case) for case in sparse}
        self.axes = [axis for axis in AXES if any(apart[axis] for apart in self.apart.values())]
        if sparse and not self.axes:
            raise LimitedError(
                f"no labelled case in {folder} has a slice that is annotated throughout at the spacing of the network, "
                "so no slice can be propagated; annotate whole slices, or use LimitedSparseMeanTeacherTrainer"
            )
        others = len(self.identifiers) - len(sparse)
        self.identifiers += sparse * (math.ceil(others / max(1, len(sparse))) - 1)

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Return data and weights, mask and labels, None and properties."""
        data, mask, previous, properties = super().load_case(identifier)
        shape = data.shape[1:]
        labels: Any = np.broadcast_to(np.int8(BEYOND), (len(AXES), *shape))
        apart = self.apart.get(identifier, [[]] * len(AXES))
        if identifier in self.apart:
            labels = blosc2.open(str(self.propagated / f"{identifier}.b2nd"), mode="r", dparams={"nthreads": 1})
        weights = [self._weights(steps, axis, shape) for axis, steps in zip(AXES, apart, strict=True)]
        return ChannelStack(data, *weights), ChannelStack(mask, labels), previous, properties

    def _weights(self, steps: list[float], axis: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return weights (1, *shape) that depend on the place along ``axis``, 0 without ``steps``."""
        along = self.decay ** np.array(steps or [np.inf] * shape[axis], np.float32)
        return np.broadcast_to(along.reshape([-1 if a == axis else 1 for a in AXES]), (1, *shape))


def propagate_cases(folder: Path, cases: list[str], ignore: int, plans: dict[str, Any], configuration: str) -> Path:
    """Return the folder with the propagated labels of ``cases`` preprocessed in ``folder``.

    Labels that were made from the case as it is are used again. One process makes them, others wait for it.
    """
    target = folder.with_name(f"{folder.name}_propagated")
    missing = partial(_missing, folder, cases, target)
    if missing():
        with one_at_a_time(target):
            tasks = [(case, folder, target, ignore, plans, configuration) for case in missing()]
            run_all(_propagate_case, tasks, default_processes(), "Propagating slices")
    return target


def _missing(folder: Path, cases: list[str], target: Path) -> list[str]:
    made = {case: (target / f"{case}.b2nd", {"case": contents_of(folder, case)}) for case in cases}
    return [case for case, (file, sources) in made.items() if not is_made_from(file, sources, [folder / f"{case}.pkl"])]


def _propagate_case(
    case: str, folder: Path, target: Path, ignore: int, plans: dict[str, Any], configuration: str
) -> None:
    """Write the labels propagated from the slices across each axis, and the distance of every slice from them."""
    manager, chosen = managers(plans, configuration)
    data, stored, _, properties = AnnotatedCases(str(folder), [case], ignore).load_case(case)
    image, label = data[0], stored[0]
    known = np.where(label == ignore, BEYOND, label)
    spacing = network_spacing(properties, manager, chosen)
    labels, apart = np.full((len(AXES), *label.shape), BEYOND, label.dtype), []
    for axis in AXES:
        found = annotated_slices(label, ignore, axis)
        if found:
            labels[axis] = propagate(image, known, found, axis)
        steps = distances(found, label.shape[axis]) * spacing[axis] / min(spacing)
        apart.append([round(float(step), 4) for step in steps])
    write_json(target / f"{case}.json", {"distances": apart})
    save_label(labels, target / f"{case}.b2nd")
    write_sources(target / f"{case}.b2nd", {"case": contents_of(folder, case)})


def read_distances(folder: Path, case: str) -> list[list[float]]:
    """Return the distance of each slice across each axis from the nearest annotated one; empty without one."""
    record = read_object(folder / f"{case}.json", "propagated label", f"delete {folder}")
    found: list[list[float]] = record["distances"]
    return found
