"""Self-training from end to end: a teacher, then rounds of pseudo-labelling and training."""

import gc
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

import torch

from nnunet_limited.data.pseudo_label_store import PseudoLabels
from nnunet_limited.engine.run import check_unlabeled
from nnunet_limited.engine.settings import parse_assignments
from nnunet_limited.engine.split_trainer import SplitTrainer
from nnunet_limited.errors import LimitedError
from nnunet_limited.runs.crossval import crossvalidate
from nnunet_limited.runs.launch import choose_device
from nnunet_limited.runs.request import TrainRequest, find_trainer, is_ours, run_of

Track = Callable[..., Iterable[str]]


class PseudoLabelMaker(Protocol):
    """The job that labels the unlabelled cases of a round; see ``pseudo_labels``."""

    @property
    def name(self) -> str:
        """The name of the sets."""

    @property
    def uses_sources(self) -> bool:
        """Whether several sources label together."""

    def check_sources(self, folds: Sequence[int | str]) -> None:
        """Raise LimitedError for what is wrong whatever the models of ``folds`` are."""

    def check(self, folds: Sequence[int | str]) -> list[PseudoLabels]:
        """Return the sets to make, with the cases that are done."""

    def move_stale_aside(self, folds: Sequence[int | str]) -> None:
        """Move sets aside that a model made before it was trained again."""

    def make(self, labels: PseudoLabels, device: str, track: Callable[[list[str]], Iterable[str]]) -> PseudoLabels:
        """Label the cases of one set that are missing."""

    def summary_lines(self, labels: PseudoLabels) -> list[str]:
        """Return lines about a set that is complete."""


def self_train(
    request: TrainRequest,
    teacher: str | None,
    settings: Sequence[str],
    folds: Sequence[int],
    rounds: int,
    sources: Callable[[TrainRequest, str, str | None], PseudoLabelMaker],
    log: Callable[[str], None],
    track: Track,
    dice_only: bool = False,
) -> list[dict[str, Any]]:
    """Complete every round and return its cross-validation, that of the teacher first.

    ``teacher`` is the trainer whose models make the first pseudo-labels; None for the one that the student names.
    ``settings`` are those of both. ``sources`` makes what labels a round of a model, a name and that of the round
    before.

    Finished work is skipped. A round's pseudo-labels are called after the model that made them.
    ``track(cases, title=…)`` yields the cases and shows how far pseudo-labelling is. With ``dice_only``, the results
    have no distances.
    """
    trainer = find_trainer(request.trainer)
    if not is_ours(trainer) or trainer.learns_pseudo_labels == "none":
        raise LimitedError(f"-tr {request.trainer} does not train on pseudo-labels; use LimitedRecipeTrainer")
    if "pseudo_labels" in parse_assignments(settings):
        raise LimitedError("self-train sets pseudo_labels in each round; remove it from --set, or train with crossval")
    device = choose_device(request.value_of("-device"))
    teacher = teacher or trainer.teacher
    if not is_ours(find_trainer(teacher, "--teacher")):
        raise LimitedError(f"--teacher {teacher} keeps no record of its labels; use e.g. LimitedSupervisedTrainer")
    model = request.changed(trainer=teacher).with_settings(settings)
    _check_student(model.changed(trainer=request.trainer), trainer, folds)
    source = sources(model, "round", None)
    if trainer.learns_pseudo_labels == "sources" and not source.uses_sources:
        raise LimitedError(f"-tr {request.trainer} needs several sources; give e.g. --sources student,atlas")
    source.check_sources(folds)
    results = [crossvalidate(model, folds, log, dice_only)]
    previous = None
    for _ in range(rounds):
        name = f"{model.trainer}-{model.plans}-{model.configuration}"
        source = sources(model, name, previous)
        name = source.name
        if request.redo:
            source.move_stale_aside(list(folds))
        for labels in source.check(list(folds)):
            log(f"pseudo-labels of {labels.folder.name}: {name}")
            made = source.make(labels, device, partial(track, title=f"Pseudo-labels of {labels.folder.name}"))
            for line in source.summary_lines(made):
                log(line)
        del source  # with its models; those of the next training are in a process of their own
        if torch.cuda.is_initialized():
            gc.collect()
            torch.cuda.empty_cache()
        model = request.with_settings([*settings, f"pseudo_labels={name}"])
        results.append(crossvalidate(model, folds, log, dice_only))
        previous = name
    return results


def _check_student(request: TrainRequest, trainer: type[SplitTrainer], folds: Sequence[int]) -> None:
    """Refuse now what the trainer of the pseudo-labels would refuse after the teacher's runs."""
    for fold in folds:
        run, config = run_of(request, fold)
        trainer.check_start(run, config, request.gpus, trains=False)
        check_unlabeled(run, request.trainer)
