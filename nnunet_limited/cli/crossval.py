"""``nnunet-limited crossval``."""

from __future__ import annotations

import sys
from typing import Any

import typer

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
    TrainerOption,
    WeightsOption,
    add_command,
)
from nnunet_limited.cli.output import console, show_json, show_next, show_table
from nnunet_limited.cli.train import GROUPS, host_flags
from nnunet_limited.errors import LimitedError


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, crossval, panel=TRAIN, groups=GROUPS, context_settings=PASS_THROUGH)


def crossval(
    context: typer.Context,
    dataset: DatasetArgument,
    configuration: ConfigurationArgument,
    trainer: TrainerOption = "LimitedMeanTeacherTrainer",
    plans: PlansOption = "nnUNetPlans",
    folds: FoldsOption = None,
    assignments: SetOption = None,
    epochs: EpochsOption = None,
    iterations: IterationsOption = None,
    device: DeviceOption = None,
    num_gpus: GpusOption = None,
    pretrained_weights: WeightsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train all folds and compare with the supervised baseline. Finished folds are skipped, interrupted ones resumed.

    All other flags are passed on to nnUNetv2_train.

    Example:
    nnunet-limited crossval 4 3d_fullres -tr LimitedMeanTeacherTrainer -p nnUNetPlans_l8
    """
    from nnunet_limited.runs.crossval import crossvalidate, default_folds
    from nnunet_limited.runs.request import TrainRequest

    chosen = chosen_folds(context, folds)
    flags = host_flags(context, device, num_gpus, pretrained_weights)
    request = TrainRequest(
        dataset=dataset, configuration=configuration, fold="0", trainer=trainer, plans=plans, flags=flags
    )
    request = request.with_settings(assignments or [], epochs, iterations)
    numbers = chosen or default_folds(request)
    result = crossvalidate(request, numbers, lambda line: print(line, file=sys.stderr))
    if as_json:
        show_json(result)
        return
    show_result(result)
    show_what_next(result, result["plans"])


def chosen_folds(context: typer.Context, folds: str | None) -> list[int]:
    """Return the folds of ``--folds 0 1 2``, of which all but the first arrive as extra arguments."""
    if folds is None:
        return []
    chosen = folds.replace(",", " ").split()
    chosen += [argument for argument in context.args if argument.isdecimal()]
    context.args = [argument for argument in context.args if not argument.isdecimal()]
    if not chosen or not all(fold.isdecimal() for fold in chosen):
        raise LimitedError(f"--folds {' '.join(chosen)} is not a list of fold numbers; give e.g. --folds 0 1 2")
    return sorted({int(fold) for fold in chosen})


def show_result(result: dict[str, Any]) -> None:
    """Print Dice per class against the baseline."""
    baseline = result["baseline"]
    columns = ["class", result["trainer"]] + ([baseline["trainer"], "difference"] if baseline else [])
    rows = []
    for name, dice in result["dice"].items():
        row = [name, f"{dice['mean']:.4f} ± {dice['sd']:.4f}"]
        if baseline:
            other = baseline["dice"][name]
            row += [f"{other['mean']:.4f} ± {other['sd']:.4f}", f"{result['difference'][name]:+.4f}"]
        rows.append(row)
    show_table(f"Dice, mean ± sd over {len(result['folds'])} folds", columns, rows)


def show_what_next(result: dict[str, Any], plans: str) -> None:
    """Print the host's commands for the models of a result, and one for its baseline if it has none."""
    folds = " ".join(map(str, result["folds"]))
    models = f"-p {result['plans']} -c {result['configuration']} -tr {result['trainer']} -f {folds}"
    commands = [f"nnUNetv2_predict -i INPUT -o OUTPUT -d {result['dataset']} {models}"]
    if result["merged"]:  # or folds share validation cases, and the host refuses
        commands.insert(0, f"nnUNetv2_find_best_configuration {result['dataset']} {models} --disable_ensembling")
    if result["baseline"] is None and result["trainer"] != "LimitedSupervisedTrainer":
        console.print("No supervised baseline yet; the first command trains it.")
        commands.insert(
            0,
            f"nnunet-limited crossval {result['dataset']} {result['configuration']} -tr LimitedSupervisedTrainer "
            f"-p {plans} --folds {folds}",
        )
    show_next(*commands)
