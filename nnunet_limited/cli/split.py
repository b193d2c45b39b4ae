"""``nnunet-limited split``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from nnunet_limited.cli.output import JsonOption, console, read_list, show_json, show_next, show_table
from nnunet_limited.errors import LimitedError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("split")(split)


def split(
    dataset: Annotated[str, typer.Argument(help="Number or name, e.g. 4 or Dataset004_Hippocampus.")],
    name: Annotated[str, typer.Option(help="Name of the split, e.g. l8.")],
    labeled: Annotated[
        str | None,
        typer.Option(
            help="Labelled cases of each fold's training part (groups, with --group-by): 8, or 10%. Default: all."
        ),
    ] = None,
    folds: Annotated[int | None, typer.Option(help="Folds; default 5, or those of splits_final.json.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Which cases are labelled; subsets are nested.")] = 0,
    protocol: Annotated[
        Literal["benchmark", "deployment"] | None,
        typer.Option(
            help="benchmark: all cases have labels, folds over all, most labels hidden. deployment: folds over the "
            "labelled cases, all others unlabelled in every fold. Default: by what the dataset has."
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(help="Regular expression; cases with the same match stay together (patients)."),
    ] = None,
    labeled_cases: Annotated[Path | None, typer.Option(help="File that lists the labelled cases.")] = None,
    test_cases: Annotated[Path | None, typer.Option(help="File that lists cases to leave out altogether.")] = None,
    published: Annotated[
        Path | None,
        typer.Option(help="JSON of a published split: its order, or its list of patients, decides who is labelled."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a split of this name.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say which cases are labelled, in every fold.

    Example: nnunet-limited split 4 --name l8 --labeled 8
    """
    from nnunet_limited.datasets.raw import RawDataset
    from nnunet_limited.host.folders import preprocessed_folder
    from nnunet_limited.splits import SplitRequest, adopt_partition, make_split, write_split
    from nnunet_limited.splits.classes import class_reader
    from nnunet_limited.splits.published import make_published_split, write_published_partition

    raw = RawDataset.load(dataset)
    folder = preprocessed_folder(raw.name)
    if published is not None:
        for option, value in (
            ("--folds", folds),
            ("--protocol", protocol),
            ("--group-by", group_by),
            ("--labeled-cases", labeled_cases),
            ("--test-cases", test_cases),
        ):
            if value is not None:
                raise LimitedError(f"--published and {option} {value} exclude each other; leave one of them out")
        made = make_published_split(raw, name, published, labeled)
        partition = write_published_partition(folder, made)
    else:
        request = SplitRequest(
            name,
            labeled,
            folds,
            seed,
            protocol,
            group_by,
            read_list(labeled_cases, "--labeled-cases"),
            read_list(test_cases, "--test-cases"),
        )
        adopt_partition(raw, folder)
        made, partition = make_split(raw, folder, request, class_reader(raw))
    written = write_split(folder, made, partition, replace)
    if as_json:
        show_json({"files": [str(f) for f in written], "info": made.info, "folds": [vars(f) for f in made.folds]})
        return
    rows = [(n, len(f.train), len(f.val), len(f.unlabeled)) for n, f in enumerate(made.folds)]
    show_table(
        f"Split {name} of {raw.name} ({made.info['protocol']}, seed {seed})",
        ("fold", "labelled", "validation", "unlabelled"),
        rows,
    )
    if any(set(fold.train) & set(fold.val) for fold in made.folds):
        console.print("With one labelled case it is trained and validated on: the validation Dice says nothing.")
    if folds is not None and len(made.folds) < folds:
        console.print(f"{len(made.folds)} folds instead of {folds}: there are no more labelled cases to validate on.")
    if not made.unlabeled:
        console.print(
            "No case is unlabelled: train LimitedSupervisedTrainer or, on sparse labels, the trainers for them."
        )
    for file in written:
        console.print(f"wrote {file}", highlight=False)
    show_next(f"nnunet-limited plan {raw.name} --split {name}")
