"""``nnunet-limited train``, ``crossval`` and ``self-train``: nnU-Net's training command with our checks before it."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field

from nnunet_limited.cli.options import DEVICE, PASS_THROUGH, SETTINGS, TRAIN, JsonOption, command
from nnunet_limited.cli.output import console, progress, show_json, show_next, show_table
from nnunet_limited.errors import LimitedError
from nnunet_limited.pseudo_labels.request import SourceOptions
from nnunet_limited.util.request import Request

if TYPE_CHECKING:
    from nnunet_limited.pseudo_labels.job import PseudoLabelJob
    from nnunet_limited.runs.request import TrainRequest

app = typer.Typer()
GROUPS = {"Settings": "assignments epochs iterations", "nnU-Net": "device num_gpus pretrained_weights"}


class TrainOptions(Request):
    """The options that the commands for training share."""

    dataset: str = Field(description="Number or name of the dataset.")
    configuration: str = Field(description="Configuration, e.g. 2d or 3d_fullres.")
    trainer: str = Field("LimitedMeanTeacherTrainer", description="Name of the trainer, e.g. LimitedSupervisedTrainer.")
    plans: str = Field("nnUNetPlans", description="Name of the plans, e.g. nnUNetPlans_l8.")
    folds: str | None = Field(None, description="Folds to train, e.g. --folds 0 1 2 (or 0,1,2). Default: all.")
    assignments: tuple[str, ...] = Field((), description=SETTINGS)
    epochs: int | None = Field(None, ge=1, description="Number of epochs; short for --set num_epochs=N.")
    iterations: int | None = Field(
        None, ge=1, description="Steps per epoch; short for --set num_iterations_per_epoch=N."
    )
    device: str | None = Field(None, description=DEVICE)
    num_gpus: int | None = Field(None, ge=1, description="Number of GPUs to train on.")
    pretrained_weights: str | None = Field(None, description="Checkpoint to start training from.")

    redo: bool = Field(
        False, description="Move a fold that was trained with other labels or images aside, and train it again."
    )
    dice_only: bool = Field(
        False, description="Leave out HD95 and NSD, which take time on large scans with many classes."
    )

    @property
    def settings(self) -> list[str]:
        """The assignments of all settings."""
        short = {"num_epochs": self.epochs, "num_iterations_per_epoch": self.iterations}
        return [*self.assignments, *(f"{key}={value}" for key, value in short.items() if value is not None)]

    def chosen_folds(self, context: typer.Context) -> list[int]:
        """Return the folds of ``--folds 0 1 2``, of which all but the first arrive as extra arguments."""
        if self.folds is None:
            return []
        chosen = self.folds.replace(",", " ").split()
        chosen += [argument for argument in context.args if argument.isdecimal()]
        context.args = [argument for argument in context.args if not argument.isdecimal()]
        if not chosen or not all(fold.isdecimal() for fold in chosen):
            raise LimitedError(f"--folds {' '.join(chosen)} is not a list of fold numbers; give e.g. --folds 0 1 2")
        return sorted({int(fold) for fold in chosen})

    def request(self, context: typer.Context, fold: str = "0") -> TrainRequest:
        """Return what is asked for, without the settings; other flags are passed on to nnUNetv2_train."""
        from nnunet_limited.runs.request import TrainRequest

        flags = list(context.args)
        for name in ("device", "num_gpus", "pretrained_weights"):
            if (value := getattr(self, name)) is not None:
                flags += [f"-{name}", str(value)]
        names = {"dataset": self.dataset, "configuration": self.configuration, "fold": fold}
        return TrainRequest(**names, trainer=self.trainer, plans=self.plans, flags=tuple(flags), redo=self.redo)


class SelfTrainOptions(TrainOptions, SourceOptions):
    """The options of self-training."""

    trainer: str = Field("LimitedRecipeTrainer", description="Trainer that trains on the pseudo-labels.")
    teacher: str | None = Field(
        None, description="Trainer of the models that make the first pseudo-labels; default: the teacher of -tr."
    )
    rounds: int = Field(1, ge=1, description="Number of rounds of pseudo-labelling and training.")


@command(app, TRAIN, groups=GROUPS, skip=("folds", "dice_only"), context_settings=PASS_THROUGH)
def train(
    options: TrainOptions,
    context: typer.Context,
    fold: Annotated[str, typer.Argument(metavar="FOLD", help="Fold number, or all.")],
) -> None:
    """Train one fold. All other flags are passed on to nnUNetv2_train (--c, --val, --npz …).

    Example:
    nnunet-limited train 4 3d_fullres 0 -tr LimitedMeanTeacherTrainer -p nnUNetPlans_l8 --epochs 200
    """
    from nnunet_limited.runs.launch import run_host_training

    request = options.request(context, fold).with_settings(options.settings)
    if request.plans != options.plans:
        console.print(f"The settings are stored in the plans {request.plans}")
    run_host_training(request)


@command(app, TRAIN, groups=GROUPS, metavars={"folds": "N N …"}, context_settings=PASS_THROUGH)
def crossval(options: TrainOptions, context: typer.Context, as_json: JsonOption = False) -> None:
    """Train all folds; finished ones are skipped, interrupted ones resumed.

    The result is compared with that of LimitedSupervisedTrainer with the same plans, if it is trained already.

    All other flags are passed on to nnUNetv2_train.

    Example:
    nnunet-limited crossval 4 3d_fullres -tr LimitedMeanTeacherTrainer -p nnUNetPlans_l8
    """
    from nnunet_limited.runs.crossval import crossvalidate, default_folds

    chosen = options.chosen_folds(context)
    request = options.request(context).with_settings(options.settings)
    log = partial(print, file=sys.stderr)
    result = crossvalidate(request, chosen or default_folds(request), log, options.dice_only)
    if as_json:
        return show_json(result)
    _show_result(result)
    _show_what_next(result, result["plans"])


@command(
    app,
    TRAIN,
    groups={"Pseudo-labels": "teacher rounds sources ask accept_licence", **GROUPS},
    metavars={"folds": "N N …"},
    context_settings=PASS_THROUGH,
)
def self_train(options: SelfTrainOptions, context: typer.Context, as_json: JsonOption = False) -> None:
    """Train a teacher, pseudo-label the unlabelled cases with it, and train on them: the recommended recipe.

    With --sources, several sources label together in each round. Settings apply to teacher and student. Finished work
    is skipped. All other flags are passed on to nnUNetv2_train.

    Examples:
    nnunet-limited self-train 4 3d_fullres -p nnUNetPlans_l8
    nnunet-limited self-train 500 3d_fullres -p nnUNetPlans_l1 --rounds 2 \\
      -tr LimitedPromptedPseudoLabelTrainer --sources student,atlas
    """
    from nnunet_limited.pseudo_labels.job import PseudoLabelJob
    from nnunet_limited.runs.crossval import default_folds
    from nnunet_limited.runs.launch import choose_device
    from nnunet_limited.runs.self_train import self_train as run

    chosen = options.chosen_folds(context)
    request = options.request(context)

    def label(model: TrainRequest, name: str, previous: str | None) -> PseudoLabelJob:
        labeller = options.labeller(model, choose_device(options.device))
        return PseudoLabelJob(labeller, options.set_name(name), previous)

    folds, log = chosen or default_folds(request), partial(print, file=sys.stderr)
    rounds, settings = options.rounds, options.settings
    results = run(request, options.teacher, settings, folds, rounds, label, log, progress, options.dice_only)
    if as_json:
        return show_json(results)
    for result in results:
        _show_result(result)
    _show_what_next(results[-1], results[0]["plans"])


def _show_result(result: dict[str, Any]) -> None:
    """Print the metrics per class against the baseline."""
    from nnunet_limited.metrics.registry import METRICS

    baseline, folds = result["baseline"], len(result["folds"])
    columns, rows = ["class"], [[name] for name in result["dice"]]
    for metric in (METRICS[name] for name in METRICS if name in result):
        digits = 4 if metric.unit == "" else 2
        columns.append(metric.heading(voxels=False))
        for row, value in zip(rows, result[metric.name].values(), strict=True):
            spread = f" ± {value['sd']:.{digits}f}" if folds > 1 else ""
            row.append(f"{value['mean']:.{digits}f}{spread}")
        if baseline and metric.name in baseline:
            columns.append("difference")
            difference = result["difference" if metric.name == "dice" else f"{metric.name}_difference"]
            for row, value in zip(rows, difference.values(), strict=True):
                row.append(f"{value:+.{digits}f}")
    names = " against ".join([result["trainer"], *([baseline["trainer"]] if baseline else [])])
    over = f"mean ± sd over {folds} folds" if folds > 1 else f"fold {result['folds'][0]}"
    show_table(f"{names}: {over}", columns, rows)
    if baseline and result["setbacks"] and result["difference"]["mean"] > 0:
        console.print(f"Dice is better, but {' and '.join(result['setbacks'])} folds: no gain is claimed.")


def _show_what_next(result: dict[str, Any], plans: str) -> None:
    """Print nnU-Net's commands for the models of a result, and one for its baseline if it has none."""
    folds, where = " ".join(map(str, result["folds"])), f"{result['dataset']} {result['configuration']}"
    models = f"-p {result['plans']} -c {result['configuration']} -tr {result['trainer']} -f {folds}"
    commands = [f"nnUNetv2_predict -i INPUT -o OUTPUT -d {result['dataset']} {models}"]
    if result["merged"]:  # or folds share validation cases, and nnU-Net refuses
        commands.insert(0, f"nnUNetv2_find_best_configuration {result['dataset']} {models} --disable_ensembling")
    if result["baseline"] is None and result["trainer"] != "LimitedSupervisedTrainer":
        console.print("No supervised baseline yet; the first command trains it.")
        baseline = f"nnunet-limited crossval {where} -tr LimitedSupervisedTrainer -p {plans} --folds {folds}"
        commands.insert(0, baseline)
    show_next(*commands)
