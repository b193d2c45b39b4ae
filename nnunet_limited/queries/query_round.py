"""Choose what to annotate next: score the pool by a model, or describe it without one, and let a strategy choose."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.datasets.derived import ignore_of
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.queries import cold_start
from nnunet_limited.queries.aggregation import class_counts
from nnunet_limited.queries.hand_over import View, begin_label, copy_images, write_pictures
from nnunet_limited.queries.model_scores import CaseScores, ModelScorer
from nnunet_limited.queries.pool import ENCODER, Pool
from nnunet_limited.queries.record import LABELS, Query, Round, begin_round, within
from nnunet_limited.queries.request import CasePool, QueryRequest, dice_so_far
from nnunet_limited.queries.strategies.base import Strategy
from nnunet_limited.queries.strategies.registry import find_strategy
from nnunet_limited.queries.windows import MapExtent, Window, WindowGrid
from nnunet_limited.runs.predict import trained
from nnunet_limited.splits import Split, load_split
from nnunet_limited.util.files import file_hash, replacing
from nnunet_limited.util.parallel import default_processes

SCORES = ".scores"
Track = Callable[[list[str]], Iterable[str]]


class QueryRound:
    """One round of queries, from the check of what is asked for to the choice."""

    def __init__(self, request: QueryRequest) -> None:
        """Check the request; raise LimitedError for what cannot be asked."""
        self.request = request
        self.strategy = find_strategy(request.strategy)
        if (request.items is None) == (request.minutes is None):
            raise LimitedError("a budget is a number of --items or of --minutes; give one of the two")
        self.raw = RawDataset.load(request.dataset)
        self.split = self._split()
        folds = [self.split.fold(k) for k in request.folds or range(len(self.split.folds))] if self.split else []
        group_by = self.split.info.get("group_by") if self.split else None
        self.field = CasePool.of(self.raw, folds, self.label, group_by)
        if request.model is None:
            _refuse_cold(self.strategy, request)
        self.origin = self._origin()
        first = self.raw.cases[self.field.pool[0]]
        shape, spacing, _ = cold_start.describe(first, self.raw.reader())
        request.granularity.window_grid(shape, spacing, first.identifier)
        if request.features is not None:
            cold_start.given_features(request.features, sorted({*self.field.pool, *self.field.known}))
        begin_round(request.out, self.origin)

    # ---- what may be asked for ---------------------------------------------------------------------------------------

    def _split(self) -> Split | None:
        request = self.request
        if request.model is not None:
            return request.model.planned.split
        if request.split is None:
            return None
        from nnunet_limited.host.folders import preprocessed_folder

        return load_split(preprocessed_folder(self.raw.name), request.split)

    def label(self, case: str) -> np.ndarray:
        """Return the label image of an annotated case."""
        return self._read(self.raw.cases[case].label)

    def _read(self, file: Path | None) -> np.ndarray:
        try:
            return np.asarray(self.raw.reader()().read_seg(str(file))[0][0])
        except Exception as error:
            raise LimitedError(f"label {file} cannot be read ({error}); mend it or put it there") from error

    def _origin(self) -> dict[str, Any]:
        """Return all that the queries depend on."""
        request = self.request
        origin: dict[str, Any] = {
            "dataset": self.raw.name,
            "round": request.number,
            "rounds": request.rounds,
            "strategy": request.strategy,
            "seed": request.seed,
            "items": request.items,
            "minutes": request.minutes,
            "granularity": [request.granularity.kind, request.granularity.axis, list(request.granularity.size)],
            "overlap": request.most_annotated,
            "seconds": request.seconds,
            "oracle": request.oracle is not None,
            "split": self.split.name if self.split else None,
            "split_hash": self.split.hash if self.split else None,
            "folds": list(request.folds or range(len(self.split.folds))) if self.split else [],
            "features": file_hash(request.features) if request.features and request.features.is_file() else None,
            "model": None,
        }
        origin["dice"] = dice_so_far(self.raw, request.model, origin["folds"])
        model = request.model
        if model is not None:
            about = {"trainer": model.trainer, "plans": model.plans, "configuration": model.configuration}
            model.planned.configuration(model.configuration)
            assert self.split is not None
            origin["model"] = {**about, "checkpoints": trained(model, self.split, origin["folds"])}
        return origin

    # ---- scoring -----------------------------------------------------------------------------------------------------

    def score(self, device: str, track: Track) -> None:
        """Score or describe every case that is not done yet; memory does not grow with their number."""
        cases = self.field.pool
        if self.strategy.features is not None:
            cases = sorted({*cases, *self.field.known})
        missing = [case for case in cases if not self._file(case).is_file()]
        if not missing:
            return
        make = self._scorer(device)
        with ThreadPoolExecutor(max(1, default_processes() // 2)) as workers:
            waiting: list[Future[None]] = []
            for case in track(missing):
                waiting.append(workers.submit(self._finish, case, make(case)))
                if len(waiting) > workers._max_workers:
                    waiting.pop(0).result()
            for last in waiting:
                last.result()

    def _scorer(self, device: str) -> Callable[[str], Callable[[], CaseScores]]:
        """Return what does the first part of the work on a case and returns the rest."""
        strategy, simulated = self.strategy, self.request.oracle is not None
        if self.request.model is None or (simulated and not strategy.needs_model and strategy.features is None):
            return lambda case: partial(self._describe, case)
        values = sorted(self.raw.description.foreground_values)
        return ModelScorer(self.request, self.strategy, self.field, values, self.origin["folds"], device)

    def _finish(self, case: str, work: Callable[[], CaseScores]) -> None:
        self.save(case, *work())

    def _file(self, case: str) -> Path:
        return self.request.out / SCORES / f"{case}.npz"

    def save(self, case: str, windows: WindowGrid, known: dict[str, np.ndarray]) -> None:
        """Write what is known of the windows of a case, with the share of each that is annotated."""
        if case in self.field.known:
            annotated = self.label(case) != ignore_of(self.raw)
            whole = MapExtent((0.0,) * annotated.ndim, tuple(map(float, annotated.shape)))
            share = whole.sums(annotated, windows.bounds).reshape(len(windows)) / np.prod(windows.size)
        else:
            share = np.zeros(len(windows))
        if self.request.oracle is not None and self.strategy.needs_foreground:
            label = self._read(self.request.oracle / f"{case}{self.raw.dataset_json['file_ending']}")
            whole = MapExtent((0.0,) * label.ndim, tuple(map(float, label.shape)))
            known |= class_counts(label, sorted(self.raw.description.foreground_values), whole, windows)
        content: dict[str, Any] = {f"start_{axis}": start for axis, start in enumerate(windows.starts)}
        content |= {"size": np.array(windows.size), "annotated": share, **known}
        with replacing(self._file(case)) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **content)

    def _describe(self, case: str) -> CaseScores:
        shape, spacing, about = cold_start.describe(self.raw.cases[case], self.raw.reader())
        windows = self.request.granularity.window_grid(shape, spacing, case)
        looks = windows.size[self.request.granularity.plane_axis(spacing)] * self.request.seconds / 60
        return windows, {"about": about, "minutes": np.full(len(windows), looks)}

    # ---- choosing ----------------------------------------------------------------------------------------------------

    def choose(self) -> list[Query]:
        """Return what the strategy chooses out of all that was scored."""
        request = self.request
        pool, minutes = self.pool()
        count = request.items
        if count is None:
            assert request.minutes is not None
            count = max(1, int(np.ceil(request.minutes / max(float(np.median(minutes)), 1e-6)))) * 2
        while True:
            ranked = self.strategy.ranked(pool, min(count, len(pool)), request.seed)
            asked = sum(minutes[index] for index, _ in ranked)
            if request.minutes is None or count >= len(pool) or asked >= request.minutes:
                break
            count *= 2  # those that it likes are shorter than most
        queries = []
        for index, score in ranked:
            why = _why(pool, index, self.strategy, self.class_names())
            queries.append(Query(pool.windows[index], score, round(float(minutes[index]), 2), why))
        return queries if request.minutes is None else within(queries, request.minutes)

    # ---- handing over ------------------------------------------------------------------------------------------------

    def hand_over(self, queries: list[Query], device: str, track: Track) -> Round:
        """Write what annotators need, and at the end the record of the round, which is returned.

        With an oracle there are no people: label files are empty, and there are neither images nor pictures.
        """
        simulated = self.request.oracle is not None
        scorer = None if self.request.model is None or simulated else self._scorer(device)
        asked = Round(self.request.out, self.origin, tuple(queries), {})
        ending, reader = self.raw.description.file_ending, self.raw.reader()()
        views: dict[Window, View] = {}
        hashes = {}
        for case in track(asked.cases):
            image, properties = reader.read_images([str(file) for file in self.raw.cases[case].images])
            label, entropy = scorer.on_scan(case) if isinstance(scorer, ModelScorer) else (None, None)
            before = self.label(case) if case in self.field.known else None
            file, windows = asked.folder / LABELS / f"{case}{ending}", asked.of(case)
            hashes[case] = begin_label(file, self.raw, image.shape[1:], properties, windows, label, before)
            if not simulated:
                copy_images(asked.folder, self.raw, case)
                spacing = properties["spacing"]
                axis = self.request.granularity.plane_axis(spacing)
                views |= {window: View.of(window, image[0], label, entropy, spacing, axis) for window in windows}
        if not simulated:
            title = f"Round {self.request.number} of {self.raw.name}: what to annotate next"
            classes = {name: [value] for value, name in self.class_names().items()}
            write_pictures(asked.folder, title, [(query, views[query.window]) for query in queries], classes)
        done = replace(asked, prefilled=hashes)
        done.write()
        return done

    def class_names(self) -> dict[int, str]:
        """Return the name of each single label, by value."""
        labels = self.raw.description.labels
        names = {int(value): name for name, value in labels.items() if not isinstance(value, list)}
        return {value: names.get(value, str(value)) for value in sorted(self.raw.description.foreground_values)}

    def pool(self) -> tuple[Pool, np.ndarray]:
        """Return the candidates, and the minutes that each is thought to take."""
        parts: dict[str, list[np.ndarray]] = {}
        known: dict[str, list[np.ndarray]] = {}
        windows = []
        askable = set(self.field.pool)
        described = self._descriptions()
        for file in sorted((self.request.out / SCORES).glob("*.npz")):
            case = file.name.removesuffix(".npz")
            with np.load(file) as stored:
                content = {key: stored[key] for key in stored.files if key != "about"}
            size = tuple(int(s) for s in content.pop("size"))
            starts = tuple(content.pop(f"start_{axis}") for axis in range(len(size)))
            share = content.pop("annotated")
            if case in described:
                content[f"features_{ENCODER}"] = np.repeat(described[case][None], len(share), axis=0)
            for key in [key for key in content if key.startswith("features_")]:
                known.setdefault(key, []).append(content[key][share > 0.5])
            if case not in askable:
                continue
            free = share <= self.request.most_annotated
            found = WindowGrid(starts, size).windows(case)
            windows += [window for window, one in zip(found, free, strict=True) if one]
            for key, values in content.items():
                parts.setdefault(key, []).append(values[free])
        if not windows:
            raise LimitedError("no window is left to ask for: all of the pool is annotated; stop here")
        joined = {key: np.concatenate(values) for key, values in parts.items()}
        progress = (self.request.number - 1) / max(1, self.request.rounds - 1)
        pool = Pool(
            windows,
            {key.removeprefix("score_"): joined[key] for key in joined if key.startswith("score_")},
            joined.get("class_scores"),
            joined.get("foreground"),
            joined.get("border"),
            {key.removeprefix("features_"): joined[key] for key in joined if key.startswith("features_")},
            {key.removeprefix("features_"): np.concatenate(values) for key, values in known.items()},
            progress=min(1.0, progress),
        )
        return pool, joined["minutes"]

    def _descriptions(self) -> dict[str, np.ndarray]:
        """Return the features of each case for a cold start."""
        if self.request.model is not None or self.strategy.features is None:
            return {}
        files = sorted((self.request.out / SCORES).glob("*.npz"))
        cases = [file.name.removesuffix(".npz") for file in files]
        if self.request.features is not None:
            features = cold_start.given_features(self.request.features, cases)
        else:
            features = np.stack([np.load(file)["about"] for file in files])
        return dict(zip(cases, features, strict=True))


def _refuse_cold(strategy: Strategy, request: QueryRequest) -> None:
    if strategy.needs_model or (strategy.needs_foreground and request.oracle is None):
        raise LimitedError(
            f"--strategy {request.strategy} needs a trained model; give its -tr, -p and configuration, or begin with "
            "--strategy typiclust, core_set or random"
        )
    if strategy.features is not None and request.granularity.kind != "case":
        raise LimitedError(
            f"--strategy {request.strategy} without a model compares whole cases; give --what case, or another strategy"
        )


def _why(pool: Pool, index: int, strategy: Strategy, names: dict[int, str]) -> str:
    """Return in words what is known of a window that was chosen."""
    told = []
    for key, name in (("entropy", "entropy"), ("bald", "disagreement of the members")):
        if key in pool.scores:
            values = pool.scores[key]
            above = 100 * float((values > values[index]).mean())
            told.append(f"{name} {values[index]:.3g} (higher in {above:.0f} % of the candidates)")
    if pool.foreground is not None and pool.foreground[index].any():
        shown = [name for name, count in zip(names.values(), pool.foreground[index], strict=False) if count >= 1]
        told.append(f"predicted there: {', '.join(shown)}")
    about = type(strategy).__doc__ or ""
    return "; ".join(told) or about.splitlines()[0].rstrip(".")
