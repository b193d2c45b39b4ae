"""What the command ``evaluate`` is asked for."""

from pathlib import Path

from pydantic import Field

from nnunet_limited.util.parallel import default_processes
from nnunet_limited.util.request import Request


class EvaluateRequest(Request):
    """Predictions, the labels to compare them with, and how to measure distances."""

    predictions: Path = Field(description="Folder of predictions, e.g. the output of nnUNetv2_predict.")
    truth: Path = Field(description="Folder of labels with the same file names.")
    dataset_json: Path | None = Field(
        None, description="dataset.json that names the classes; default: the one beside either folder."
    )
    tolerance: float = Field(1.0, ge=0, description="Tolerance of the surface Dice (NSD) in mm (voxels with --voxels).")
    voxels: bool = Field(False, description="Measure distances and volumes in voxels instead of mm.")
    allow_missing: bool = Field(False, description="Leave out labels without a prediction instead of stopping.")
    grid_of_image: bool = Field(
        False, description="Compare arrays voxel by voxel although prediction and label differ in their position."
    )
    processes: int = Field(
        default_factory=default_processes,
        ge=1,
        description="Number of cases evaluated at the same time; default: nnUNet_def_n_proc, at most one per core.",
    )
