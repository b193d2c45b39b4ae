"""Requests of the commands ``pseudo-label`` and ``zero-shot``, and the options of sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from nnunet_limited.engine.settings import Config, parse_assignments, resolve
from nnunet_limited.errors import LimitedError
from nnunet_limited.pseudo_labels.spec import USAGES, parse_sources
from nnunet_limited.util.files import content_hash
from nnunet_limited.util.request import Request

if TYPE_CHECKING:
    from nnunet_limited.pseudo_labels.job import ModelLabeller, PseudoLabelJob
    from nnunet_limited.runs.request import TrainRequest


class SourceOptions(Request):
    """Options of what labels: the model alone, or several sources with their settings."""

    sources: str | None = Field(
        default=None,
        description=f"Sources that label together, separated by commas: {USAGES}. "
        "Default: student, which is the model trained last.",
    )
    ask: tuple[str, ...] = Field(
        default=(),
        description="Setting of promptable models and atlases, e.g. kind=two-pass, axes=3, channel=1 or clean=0; "
        "repeatable.",
    )
    accept_licence: str | None = Field(
        default=None, description="Licence of a model's weights that you accept, where the weights require it."
    )

    components: Literal["auto", "largest", "all"] = Field(
        default="auto",
        description="Classes whose voxels outside of the largest component have confidence 0: auto, those that are one "
        "component in nearly all labelled cases; largest, every class; all, none.",
    )

    def labeller(self, model: TrainRequest, device: str) -> ModelLabeller:
        """Return what labels with the trained ``model``; raise LimitedError for sources that cannot work together."""
        from nnunet_limited.pseudo_labels.ensemble import EnsembleLabeller
        from nnunet_limited.pseudo_labels.job import ModelLabeller
        from nnunet_limited.pseudo_labels.sources.base import SourceSettings

        if self.sources is None:
            if self.ask or self.accept_licence:
                raise LimitedError("--ask and --accept-licence are for several sources; give --sources student,… too")
            return ModelLabeller(model, components=self.components)
        settings = parse_ask(SourceSettings, self.ask)
        sources = parse_sources(self.sources)
        return EnsembleLabeller(model, sources, settings, self.accept_licence, device, components=self.components)

    def set_name(self, name: str) -> str:
        """Return a name for pseudo-labels of a model ``name``; other sources make other pseudo-labels."""
        if self.sources is not None:
            name = f"{name}-{content_hash([self.sources, list(self.ask) or None])[:6]}"
        return name if self.components == "auto" else f"{name}-{self.components}"


class PseudoLabelRequest(SourceOptions):
    """A trained model, the sources beside it, and the name of the pseudo-labels to make."""

    dataset: str = Field(description="Number or name of the dataset.")
    configuration: str = Field(description="Configuration of the plans: 2d, 3d_fullres, 3d_lowres.")
    trainer: str = Field(default="LimitedSupervisedTrainer", description="Trainer of the model.")
    plans: str = Field(default="nnUNetPlans", description="Plans of the model.")
    name: str | None = Field(
        default=None, description="Name of the pseudo-labels. Default: model, or consensus with --sources."
    )
    folds: tuple[str, ...] = Field(default=(), description="Fold of the model; repeatable. Default: all of the split.")
    previous: str | None = Field(
        default=None, description="Name of the previous round; stability is then the agreement with it."
    )
    ensemble: bool = Field(
        default=False,
        description="Predict with all folds together, for a model to deploy. The validation labels of the folds leak "
        "into it.",
    )

    @property
    def model(self) -> TrainRequest:
        """The trained model."""
        from nnunet_limited.runs.request import TrainRequest

        return TrainRequest(
            dataset=self.dataset, configuration=self.configuration, trainer=self.trainer, plans=self.plans
        )

    @property
    def default_name(self) -> str:
        """The name of the pseudo-labels that the trainers look for."""
        return "model" if self.sources is None else "consensus"

    def chosen_folds(self) -> list[int | str]:
        """Return the folds of the model, by default all of the split."""
        from nnunet_limited.runs.crossval import default_folds

        return [int(fold) if fold.isdecimal() else fold for fold in self.folds] or list(default_folds(self.model))

    def job(self, device: str) -> PseudoLabelJob:
        """Return the job that makes the pseudo-labels on ``device``."""
        from nnunet_limited.pseudo_labels.job import PseudoLabelJob

        labeller = self.labeller(self.model, device)
        return PseudoLabelJob(labeller, self.name or self.default_name, self.previous, self.ensemble)


class ZeroShotRequest(Request):
    """A promptable model to try on labelled cases of a dataset."""

    dataset: str = Field(description="Number or name of the dataset.")
    prompter: str = Field(
        description="Promptable model: sam:FOLDER, tiny-vit:FILE.pt, nninteractive:FOLDER or module:factory."
    )
    out: Path = Field(description="Folder for the table, the pictures and the results of each case.")
    cases: int = Field(default=5, ge=1, description="Number of labelled cases to try, in the order of their names.")
    split: str | None = Field(
        default=None, description="Split whose labelled cases are tried. Default: all cases with a label."
    )
    every: int = Field(default=5, ge=1, description="Use every N-th slice with foreground.")
    ask: tuple[str, ...] = Field(
        default=(), description="Setting of the prompts, e.g. boxes=3, margin=2 or min_area=10; repeatable."
    )
    accept_licence: str | None = Field(
        default=None, description="Licence of the model's weights that you accept, where the weights require it."
    )


def parse_ask(model: type[Config], ask: Sequence[str]) -> Config:
    """Return the settings in assignments of ``--ask``; raise LimitedError for unknown ones."""
    return resolve(model, parse_assignments(ask, "--ask", "kind=box"), set(model.model_fields), "--ask")
