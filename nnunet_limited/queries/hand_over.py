"""Write what annotators get: images, initial label files and pictures of each query."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.datasets.derived import ignore_of
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.host.images import write_label
from nnunet_limited.queries.model_scores import ModelScorer
from nnunet_limited.queries.pictures import View, write_pictures
from nnunet_limited.queries.query_round import QueryRound
from nnunet_limited.queries.record import IMAGES, LABELS, InitialLabel, Query, Round, window_hash
from nnunet_limited.queries.score import Track
from nnunet_limited.queries.windows import Window
from nnunet_limited.util.files import file_hash, replacing


def hand_over(query_round: QueryRound, queries: list[Query], device: str, track: Track) -> Round:
    """Write the files for annotators and finally the record of the round, which is returned.

    In a simulation there are neither images nor pictures, and label files show no prediction. ``track`` yields the
    cases one by one and shows the progress.
    """
    simulated, raw = query_round.simulated, query_round.raw
    scorer = None if query_round.request.model is None or simulated else ModelScorer(query_round, device)
    handed = Round(query_round.request.out, query_round.record, tuple(queries))
    ending, reader = raw.description.file_ending, raw.reader()()
    views: dict[Window, View] = {}
    labels = {}
    for case in track(handed.cases):
        image, properties = reader.read_images([str(file) for file in raw.cases[case].images])
        predicted, entropy = (None, None) if scorer is None else scorer.on_scan(case)
        annotated = query_round.label(case) if case in query_round.cases.annotated else None
        file, windows = handed.folder / LABELS / f"{case}{ending}", handed.windows_of(case)
        labels[case] = write_initial_label(file, raw, image.shape[1:], properties, windows, predicted, annotated)
        if not simulated:
            copy_images(handed.folder, raw, case)
            spacing = properties["spacing"]
            axis = query_round.request.granularity.plane_axis(spacing)
            views |= {window: View.of(window, image[0], predicted, entropy, spacing, axis) for window in windows}
    if not simulated:
        title = f"Round {query_round.record.round} of {raw.name}: what to annotate next"
        classes = {name: [value] for value, name in query_round.class_names.items()}
        write_pictures(handed.folder, title, [(query, views[query.window]) for query in queries], classes)
    done = replace(handed, initial_labels=labels)
    done.write()
    return done


def copy_images(folder: Path, raw: RawDataset, case: str) -> None:
    """Copy the images of a case."""
    ending = raw.description.file_ending
    for channel, file in enumerate(raw.cases[case].images):
        _copy(file, folder / IMAGES / f"{case}_{channel:04d}{ending}")
        beside = file.with_name(f"{file.name.removesuffix(ending)}.json")  # nnU-Net reads the spacing of TIFF from it
        if beside.is_file():
            _copy(beside, folder / IMAGES / f"{case}_{channel:04d}.json")


def write_initial_label(
    file: Path,
    raw: RawDataset,
    shape: tuple[int, ...],
    properties: Any,
    windows: list[Window],
    predicted: np.ndarray | None,
    annotated: np.ndarray | None,
) -> InitialLabel:
    """Write the label file that annotators start from, on a scan of ``shape``; return its hashes.

    It holds what is ``annotated`` already and, in the rest of the ``windows``, the prediction or background without
    one. Elsewhere it is ignore. The label of the case in ``raw`` is not read: it may be hidden.
    """
    ignore = ignore_of(raw)
    label = np.full(shape, ignore, np.uint8 if ignore < 256 else np.uint16)
    for window in windows:
        label[window.inside] = 0 if predicted is None else predicted[window.inside]
    if annotated is not None:
        label = np.where(annotated == ignore, label, annotated).astype(label.dtype)
    write_label(raw.reader()(), label, file, properties, raw.description.file_ending)
    return InitialLabel(file=file_hash(file), windows=tuple(window_hash(label, window) for window in windows))


def _copy(source: Path, target: Path) -> None:
    if not target.is_file():
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
