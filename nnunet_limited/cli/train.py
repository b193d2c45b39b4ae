"""``nnunet-limited train``: the host's training command with our checks before it."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunet_limited.cli.output import SetOption, console

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}
DatasetArgument = Annotated[str, typer.Argument(help="Number or name of the dataset.")]
ConfigurationArgument = Annotated[str, typer.Argument(help="2d, 3d_fullres, …")]
EpochsOption = Annotated[int | None, typer.Option("--epochs", min=1, help="Short for --set num_epochs=N.")]
IterationsOption = Annotated[
    int | None,
    typer.Option("--iterations", min=1, help="Steps an epoch: short for --set num_iterations_per_epoch=N."),
]
# Declared because click would read -num_gpus as -n -u -m … and find the -p in it.
DeviceOption = Annotated[str | None, typer.Option("-device", help="cuda, cpu or mps; default: what is there.")]
GpusOption = Annotated[int | None, typer.Option("-num_gpus", min=1, help="GPUs to train on.")]
WeightsOption = Annotated[str | None, typer.Option("-pretrained_weights", help="Checkpoint to start from.")]


def host_flags(context: typer.Context, device: str | None, gpus: int | None, weights: str | None) -> tuple[str, ...]:
    """Return the flags to pass on to nnUNetv2_train."""
    flags = list(context.args)
    for flag, value in (("-device", device), ("-num_gpus", gpus), ("-pretrained_weights", weights)):
        flags += [flag, str(value)] if value is not None else []
    return tuple(flags)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train", context_settings=PASS_THROUGH)(train)


def train(
    context: typer.Context,
    dataset: DatasetArgument,
    configuration: ConfigurationArgument,
    fold: Annotated[str, typer.Argument(help="Fold number, or all.")],
    trainer: Annotated[str, typer.Option("-tr", help="Trainer.")] = "LimitedMeanTeacherTrainer",
    plans: Annotated[str, typer.Option("-p", help="Plans.")] = "nnUNetPlans",
    assignments: SetOption = None,
    epochs: EpochsOption = None,
    iterations: IterationsOption = None,
    device: DeviceOption = None,
    num_gpus: GpusOption = None,
    pretrained_weights: WeightsOption = None,
) -> None:
    """Train one fold; every other flag of nnUNetv2_train is passed on (--c, --val, --npz …).

    Example: nnunet-limited train 4 3d_fullres 0 -tr LimitedMeanTeacherTrainer -p nnUNetPlans_l8 --epochs 200
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
        console.print(f"Settings go by the plans name {request.plans}", highlight=False)
    run_host_training(request)
