"""The requests of the commands ``query`` and ``absorb``."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.request import Request, Voxels

if TYPE_CHECKING:
    from nnunet_limited.queries.windows import Granularity
    from nnunet_limited.runs.request import TrainRequest

DEFAULT_STRATEGY, COLD_STRATEGY = "clasp_pe", "typiclust"
# The strategies of this package, written out so that the help needs none of their modules; a test holds them current.
STRATEGY_NAMES = (
    *("badge", "bald", "cdal", "clasp_pe", "core_set", "disagreement", "entropy", "expected_entropy", "kmeans_bald"),
    *("least_confidence", "margin", "power_bald", "power_entropy", "random", "random_fg33", "random_fg66"),
    *("random_stratified", "softrank_bald", "softrank_entropy", "typiclust"),
)


class QueryRequest(Request):
    """Dataset, model, budget and strategy of a round of queries; without a model it is a cold start."""

    dataset: str = Field(description="Number or name of the dataset.")
    configuration: str | None = Field(
        None, description="Configuration of the model, e.g. 2d or 3d_fullres; leave it out for a cold start."
    )
    out: Path = Field(Path("round_1"), description="Folder to create for the annotators, e.g. round_1.")
    items: int | None = Field(
        None, ge=1, description="Budget: number of cases, slices or patches to annotate (or give --minutes)."
    )
    minutes: float | None = Field(
        None, ge=1, description="Budget: estimated time to annotate, in minutes (or give --items)."
    )
    what: Literal["case", "slice", "patch"] = Field(
        "case", description="Unit of annotation: whole cases, slices or 3D patches."
    )
    size: Voxels | None = Field(None, description="Size of a patch in voxels along each axis (z, y, x), e.g. 16x64x64.")
    axis: int | None = Field(
        None,
        ge=0,
        le=2,
        description="Axis perpendicular to the slices: 0, 1 or 2 for z, y or x; default: that of the largest spacing.",
    )
    strategy: str | None = Field(
        None,
        description=f"Query strategy: {', '.join(STRATEGY_NAMES)}. "
        f"Default: {DEFAULT_STRATEGY}; for a cold start {COLD_STRATEGY}.",
    )
    trainer: str | None = Field(None, description="Trainer of the model, e.g. LimitedSparseTrainer.")
    plans: str | None = Field(None, description="Plans of the model, e.g. nnUNetPlans_start.")
    folds: tuple[int, ...] = Field((), description="Fold of the model or split; repeatable. Default: all.")
    split: str | None = Field(
        None, description="Split that names the annotated cases in a cold start; default: all cases with a label."
    )
    features: Path | None = Field(
        None, description="File (.npz) with an array of features for each case of a cold start, e.g. embeddings."
    )
    rounds: int = Field(5, ge=1, description="Number of planned rounds; clasp_pe explores in early ones.")
    overlap: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Largest fraction of a queried case, slice or patch that may already be annotated; default: 0 for "
        "patches; slices and cases may be annotated in part.",
    )
    seconds: float = Field(
        79.0, ge=0, description="Seconds to outline one object on one slice; used to estimate minutes."
    )
    seed: int = Field(0, ge=0, description="Random seed of the selection.")
    oracle: Path | None = Field(
        None, description="Folder of the hidden labels for a simulation; no files for annotators are written."
    )

    @cached_property
    def model(self) -> TrainRequest | None:
        """The trained model, None for a cold start."""
        if self.configuration is None or self.trainer is None or self.plans is None:
            return None
        from nnunet_limited.runs.request import TrainRequest

        return TrainRequest(
            dataset=self.dataset, configuration=self.configuration, fold="0", trainer=self.trainer, plans=self.plans
        )

    @property
    def strategy_name(self) -> str:
        """Return the name of the strategy, by default the one for a model or for a cold start."""
        return self.strategy or (COLD_STRATEGY if self.model is None else DEFAULT_STRATEGY)

    @property
    def granularity(self) -> Granularity:
        """Return the unit of annotation."""
        from nnunet_limited.queries.windows import Granularity

        return Granularity(self.what, self.axis, self.size or ())

    @property
    def max_annotated(self) -> float:
        """Return the largest fraction of a window that may already be annotated, 0 to 1."""
        if self.overlap is not None:
            return self.overlap
        return 0.0 if self.what == "patch" else 1 - 1e-9

    def check(self) -> None:
        """Raise LimitedError for options that contradict each other or have no effect."""
        if (self.items is None) == (self.minutes is None):
            raise LimitedError("the budget is either --items or --minutes; give one of the two")
        names = (self.configuration, self.trainer, self.plans)
        cold = names == (None, None, None)
        if not cold and None in names:
            raise LimitedError(
                f"configuration={names[0]}, -tr {names[1]}, -p {names[2]}: a model needs all three; give them, or none "
                "for a cold start"
            )
        for option, value, used, where in (
            ("--split", self.split, cold, "with a model"),
            ("--features", self.features, cold, "with a model"),
            ("-f", self.folds or None, not cold or self.split is not None, "without a model or split"),
            ("--size", self.size and "x".join(map(str, self.size)), self.what == "patch", f"with --what {self.what}"),
            ("--axis", self.axis, self.what == "slice", f"with --what {self.what}"),
        ):
            if value is not None and not used:
                raise LimitedError(f"{option} {value} has no effect {where}; remove it")
        if self.what == "patch" and self.size is None:
            raise LimitedError("--what patch needs --size, the voxels of a patch along each axis; give e.g. 16x64x64")


class AbsorbRequest(Request):
    """An annotated round, and the dataset and split to create from it."""

    folder: Path = Field(description="Folder of an annotated round, e.g. round_1.")
    out: str = Field(description="Name of the dataset to create, e.g. Dataset601_Heart.")
    name: str | None = Field(None, description="Name of the split to create; default: r1 after round 1, and so on.")
    accept_unchanged: bool = Field(False, description="Accept files returned unchanged as correct annotations.")
    oracle: Path | None = Field(None, description="Folder of dense labels that answer every query of a simulation.")
    group_by: str | None = Field(
        None, description="Regular expression that finds the patient in a case name, to make folds after a cold start."
    )
