"""What the commands that run a study are asked for."""

import os

from pydantic import Field

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.request import Request


class Execution(Request):
    """Where a study runs: on this machine, or as jobs of a cluster."""

    cores: int | None = Field(
        None, ge=1, description="Number of CPU cores (default: all); with --executor: cores of each job (default: 1)."
    )
    gpus: int | None = Field(
        None,
        ge=0,
        description="Number of GPUs, one training on each (default: all); with --executor: GPUs of each training, "
        "0 or 1 (required).",
    )
    share_gpus: int = Field(1, ge=1, description="Number of trainings at the same time on one GPU.")
    executor: str | None = Field(None, description="Snakemake executor, e.g. slurm; default: this machine.")
    jobs: int = Field(100, ge=1, description="Number of jobs at the same time with --executor.")
    redo: bool = Field(
        False, description="Move runs that were trained with other labels or images aside, and train them again."
    )
    options: tuple[str, ...] = Field((), description="Further options for Snakemake.")

    def devices(self) -> tuple[str, ...]:
        """Return the names of the GPUs to use, as CUDA_VISIBLE_DEVICES has them; with an executor they are empty.

        Raises LimitedError if there are fewer GPUs than asked for.
        """
        import torch

        if self.executor is not None:
            if self.gpus not in (0, 1):
                problem = "choose with --gpus 0 or --gpus 1 whether a training gets a GPU"
                raise LimitedError(f"--executor {self.executor}: {problem}")
            return ("",) * self.gpus
        count = torch.cuda.device_count()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        if self.gpus is not None and self.gpus > count:
            raise LimitedError(f"--gpus {self.gpus}: this machine shows {count} GPUs; ask for that many, or fewer")
        return tuple(visible.split(",")[: count if self.gpus is None else self.gpus]) if count else ()
