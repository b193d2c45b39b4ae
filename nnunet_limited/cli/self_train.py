"""``nnunet-limited self-train``: the recommended recipe in one command."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from nnunet_limited.cli.crossval import chosen_folds, show_result, show_what_next
from nnunet_limited.cli.options import (
    PASS_THROUGH,
    TRAIN,
    ConfigurationArgument,
    DatasetArgument,
    DeviceOption,
    EpochsOption,
    FoldsOption,
    GpusOption,
    IterationsOption,
    JsonOption,
    PlansOption,
    SetOption,
    WeightsOption,
    add_command,
)
from nnunet_limited.cli.output import show_json
from nnunet_limited.cli.pseudo_label import SOURCES, progress
from nnunet_limited.cli.train import GROUPS, host_flags
from nnunet_limited.pseudo_labels.request import SourceOptions

if TYPE_CHECKING:
    from nnunet_limited.pseudo_labels.job import PseudoLabelJob
    from nnunet_limited.runs.request import TrainRequest


def register(app: typer.Typer) -> None:
    """Add the command."""
    groups = {"Pseudo-labels": f"teacher rounds {SOURCES}", **GROUPS}
    add_command(app, self_train, SourceOptions, panel=TRAIN, arguments=(), groups=groups, context_settings=PASS_THROUGH)


def self_train(
    options: SourceOptions,
    context: typer.Context,
    dataset: DatasetArgument,
    configuration: ConfigurationArgument,
    trainer: Annotated[
        str, typer.Option("-tr", help="Trainer that trains on the pseudo-labels.")
    ] = "LimitedRecipeTrainer",
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", help="Trainer of the first pseudo-labelling models; default: the teacher of -tr."),
    ] = None,
    plans: PlansOption = "nnUNetPlans",
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds of pseudo-labelling and training.")] = 1,
    folds: FoldsOption = None,
    assignments: SetOption = None,
    epochs: EpochsOption = None,
    iterations: IterationsOption = None,
    device: DeviceOption = None,
    num_gpus: GpusOption = None,
    pretrained_weights: WeightsOption = None,
    as_json: JsonOption = False,
) -> None:
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
    from nnunet_limited.runs.request import TrainRequest
    from nnunet_limited.runs.self_train import self_train as run

    settings = list(assignments or [])
    settings += [f"num_epochs={epochs}"] if epochs else []
    settings += [f"num_iterations_per_epoch={iterations}"] if iterations else []
    chosen = chosen_folds(context, folds)
    flags = host_flags(context, device, num_gpus, pretrained_weights)
    request = TrainRequest(
        dataset=dataset, configuration=configuration, fold="0", trainer=trainer, plans=plans, flags=flags
    )
    numbers = chosen or default_folds(request)

    def label(model: TrainRequest, name: str, previous: str | None) -> PseudoLabelJob:
        labeller = options.labeller(model, choose_device(request.value_of("-device")))
        return PseudoLabelJob(labeller, options.set_name(name), previous)

    log = partial(print, file=sys.stderr)
    results = run(request, teacher, settings, numbers, rounds, label, log, progress)
    if as_json:
        show_json(results)
        return
    for result in results:
        show_result(result)
    show_what_next(results[-1], results[0]["plans"])
