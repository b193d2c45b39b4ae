"""``nnunet-limited split``."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunet_limited.cli.options import START, DatasetArgument, JsonOption, add_command
from nnunet_limited.cli.output import console, show_json, show_next, show_table
from nnunet_limited.splits.request import SplitRequest

ReplaceOption = Annotated[bool, typer.Option("--replace", help="Overwrite a split of this name.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    groups = {
        "Labelled cases": "labeled seed group_by labeled_cases published",
        "Folds": "folds protocol test_cases",
    }
    add_command(app, split, SplitRequest, panel=START, groups=groups)


def split(
    request: SplitRequest, dataset: DatasetArgument, replace: ReplaceOption = False, as_json: JsonOption = False
) -> None:
    """Choose the labelled cases of each fold.

    Example:
    nnunet-limited split 4 --name l8 --labeled 8
    """
    from nnunet_limited.datasets.raw import RawDataset
    from nnunet_limited.splits.make import create_split

    raw = RawDataset.load(dataset)
    made, written = create_split(raw, request, replace)
    if as_json:
        show_json({"files": [str(f) for f in written], "info": made.info, "folds": [vars(f) for f in made.folds]})
        return
    rows = [(n, len(f.train), len(f.val), len(f.unlabeled)) for n, f in enumerate(made.folds)]
    show_table(
        f"Split {request.name} of {raw.name} ({made.info['protocol']}, seed {request.seed})",
        ("fold", "labelled", "validation", "unlabelled"),
        rows,
    )
    if any(set(fold.train) & set(fold.val) for fold in made.folds):
        console.print("The only labelled case is used for training and validation: its Dice is not informative.")
    if request.folds is not None and len(made.folds) < request.folds:
        console.print(
            f"{len(made.folds)} folds instead of {request.folds}: there are no more labelled cases to validate on."
        )
    if not made.unlabeled:
        console.print(
            "No case is unlabelled: train LimitedSupervisedTrainer or, on sparse labels, a trainer for sparse labels."
        )
    for file in written:
        console.print(f"wrote {file}", highlight=False)
    show_next(f"nnunet-limited plan {raw.name} --split {request.name}")
