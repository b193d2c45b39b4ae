"""``nnunet-limited train``: the host's training command with our checks before it."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunet_limited.cli.output import SetOption, console

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}
EpochsOption = Annotated[int | None, typer.Option("--epochs", min=1, help="Short for --set num_epochs=N.")]
IterationsOption = Annotated[
    int | None,
    typer.Option("--iterations", min=1, help="Steps an epoch: short for --set num_iterations_per_epoch=N."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train", context_settings=PASS_THROUGH)(train)


def train(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="Number or name of the dataset.")],
    configuration: Annotated[str, typer.Argument(help="2d, 3d_fullres, …")],
    fold: Annotated[str, typer.Argument(help="Fold number, or all.")],
    trainer: Annotated[str, typer.Option("-tr", help="Trainer.")] = "LimitedMeanTeacherTrainer",
    plans: Annotated[str, typer.Option("-p", help="Plans.")] = "nnUNetPlans",
    assignments: SetOption = None,
    epochs: EpochsOption = None,
    iterations: IterationsOption = None,
) -> None:
    """Train one fold; every other flag of nnUNetv2_train is passed on (--c, --val, --npz, -device, -num_gpus …).

    Example: nnunet-limited train 4 3d_fullres 0 -tr LimitedMeanTeacherTrainer -p nnUNetPlans_l8 --epochs 200
    """
    from nnunet_limited.trainers.launch import TrainRequest, run_host_training

    request = TrainRequest(dataset, configuration, fold, trainer, plans, tuple(context.args))
    request = request.with_settings(assignments or [], epochs, iterations)
    if request.plans != plans:
        console.print(f"Settings go by the plans name {request.plans}", highlight=False)
    run_host_training(request)
