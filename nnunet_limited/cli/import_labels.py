"""``nnunet-limited import-labels``."""

from __future__ import annotations

import typer

from nnunet_limited.cli.options import ANNOTATE, JsonOption, add_command
from nnunet_limited.cli.output import show_json
from nnunet_limited.cli.sparsify import show_view
from nnunet_limited.datasets.request import ImportRequest


def register(app: typer.Typer) -> None:
    """Add the command."""
    groups = {"Label files": "labels unlabeled background", "Boxes and points": "boxes points coordinates radius"}
    add_command(app, import_labels, ImportRequest, panel=ANNOTATE, groups=groups)


def import_labels(request: ImportRequest, as_json: JsonOption = False) -> None:
    """Import sparse labels that people made, as a new dataset with the same images.

    Other cases keep their label, if they have one. Annotated cases with a dense label are validated on it.

    Example:
    nnunet-limited import-labels 501 --labels scribbles/ --unlabeled 4 --out Dataset601_HeartScribbles
    """
    from nnunet_limited.datasets.import_labels import import_labels as run
    from nnunet_limited.util.parallel import default_processes

    record = run(request, default_processes())
    if as_json:
        show_json(record)
        return
    show_view(record, request.out)
