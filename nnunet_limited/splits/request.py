"""What the command ``split`` is asked for."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from nnunet_limited.util.request import CaseList, Request


class SplitRequest(Request):
    """Folds, and which cases are labelled in each; ``labeled`` counts groups (patients) with ``group_by``."""

    name: str = Field(description="Name of the split, e.g. l8.")
    labeled: str | None = Field(
        None,
        description="Number or percentage of labelled cases in each fold's training part (of groups with --group-by), "
        "e.g. 8 or 10%. Default: all.",
    )
    folds: int | None = Field(None, description="Number of folds; default: those of splits_final.json, else 5.")
    seed: int = Field(
        0, ge=0, lt=2**32, description="Random seed of the labelled cases; smaller sets of one seed are subsets."
    )
    protocol: Literal["benchmark", "deployment"] | None = Field(
        None,
        description="benchmark: folds over all cases, all of which have labels; most labels are hidden. deployment: "
        "folds over the labelled cases; all others are unlabelled in every fold. Default: deployment if the dataset "
        "has cases without a label, or one labelled case (patient) only.",
    )
    group_by: str | None = Field(
        None,
        description="Regular expression that finds the patient in a case name (by its parentheses, if it has them); "
        "cases of one patient stay together, and the unlabelled ones of a validated patient are left out of the fold. "
        "With --published it is only checked.",
    )
    labeled_from: str | None = Field(
        None,
        description="Regular expression of the names of the cases to draw the labelled ones from, e.g. one site or "
        "scanner; all others stay unlabelled. With --group-by every case of a patient must match. A percentage of "
        "--labeled is one of the matching cases.",
    )
    cover: Literal["classes", "none"] | None = Field(
        None,
        description="classes: prefer cases that together have every class; this reads labels, even of cases that stay "
        "hidden. none: read no label. Default: none under benchmark, else classes.",
    )
    labeled_cases: CaseList = Field((), description="File that lists the labelled cases, one per line.")
    test_cases: CaseList = Field((), description="File that lists cases to exclude from all folds, one per line.")
    published: Path | None = Field(
        None,
        description="JSON file of a published split, which lists the labelled cases or their order.",
    )
