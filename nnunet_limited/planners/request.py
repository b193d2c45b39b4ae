"""What the command ``plan`` is asked for."""

from typing import Literal

from pydantic import Field

from nnunet_limited.util.parallel import default_processes
from nnunet_limited.util.request import Request, Voxels


class PlanRequest(Request):
    """Dataset and split, and what to plan for them."""

    dataset: str = Field(description="Number or name of the dataset.")
    split: str = Field(description="Name of the split to plan for.")
    configurations: tuple[str, ...] = Field(
        (), description="Configuration to preprocess, e.g. 2d or 3d_fullres; repeatable. Default: all."
    )
    planner: str = Field("ExperimentPlanner", description="nnU-Net planner, e.g. nnUNetPlannerResEncM.")
    size: Literal["default", "tiny"] = Field(
        "default", description="Size of the network; tiny trains on a CPU in minutes, to try things out."
    )
    geometry: Literal["all", "labeled"] = Field(
        "all", description="Images that spacing and patch size are planned from: all, or the labelled ones."
    )
    patch: Voxels = Field(
        (), description="Patch size in voxels, in the axis order of the plans, e.g. 80x112x112; default: nnU-Net's."
    )
    processes: int = Field(
        default_factory=default_processes,
        ge=1,
        description="Number of worker processes; default: nnUNet_def_n_proc, at most one per core.",
    )
