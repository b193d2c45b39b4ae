"""``nnunet-limited train``: the host's training command with our checks before it."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunet_limited.cli.options import (
    PASS_THROUGH,
    TRAIN,
    ConfigurationArgument,
    DatasetArgument,
    DeviceOption,
    EpochsOption,
    GpusOption,
    IterationsOption,
    PlansOption,
    SetOption,
    TrainerOption,
    WeightsOption,
    add_command,
)
from nnunet_limited.cli.output import console

GROUPS = {
    "Settings": "assignments epochs iterations",
    "nnU-Net": "device num_gpus pretrained_weights",
}


def host_flags(context: typer.Context, device: str | None, gpus: int | None, weights: str | None) -> tuple[str, ...]:
    """Return the flags to pass on to nnUNetv2_train."""
    flags = list(context.args)
    for flag, value in (("-device", device), ("-num_gpus", gpus), ("-pretrained_weights", weights)):
        flags += [flag, str(value)] if value is not None else []
    return tuple(flags)


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, train, panel=TRAIN, groups=GROUPS, context_settings=PASS_THROUGH)


def train(
    context: typer.Context,
    dataset: DatasetArgument,
    configuration: ConfigurationArgument,
    fold: Annotated[str, typer.Argument(metavar="FOLD", help="Fold number, or all.")],
    trainer: TrainerOption = "LimitedMeanTeacherTrainer",
    plans: PlansOption = "nnUNetPlans",
    assignments: SetOption = None,
    epochs: EpochsOption = None,
    iterations: IterationsOption = None,
    device: DeviceOption = None,
    num_gpus: GpusOption = None,
    pretrained_weights: WeightsOption = None,
) -> None:
    """Train one fold. All other flags are passed on to nnUNetv2_train (--c, --val, --npz …).

    Example:
    nnunet-limited train 4 3d_fullres 0 -tr LimitedMeanTeacherTrainer -p nnUNetPlans_l8 --epochs 200
    """
    from nnunet_limited.runs.launch import run_host_training
    from nnunet_limited.runs.request import TrainRequest

    request = TrainRequest(
        dataset=dataset,
        configuration=configuration,
        fold=fold,
        trainer=trainer,
        plans=plans,
        flags=host_flags(context, device, num_gpus, pretrained_weights),
    )
    request = request.with_settings(assignments or [], epochs, iterations)
    if request.plans != plans:
        console.print(f"The settings are stored in the plans {request.plans}", highlight=False)
    run_host_training(request)
