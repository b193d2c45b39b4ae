"""What a training holds while it runs: its fold, and the preprocessed cases that it reads."""

from __future__ import annotations

import weakref
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from nnunet_limited.engine.run import Run
from nnunet_limited.planners.preprocessing import box_folder
from nnunet_limited.planners.readers import TRUTH, reading
from nnunet_limited.util.children import tie_forks
from nnunet_limited.util.locks import alone

TRAINING = "training"


def training_alone(fold: Path, wait: bool = False) -> AbstractContextManager[None]:
    """Train or validate in the folder of a ``fold`` while no other process does; refuse it, or wait for that one."""
    return alone(fold, TRAINING, wait)


class Holding:
    """The fold of a run and the cases that it reads, held by the first process of a training.

    It ends with :meth:`release`, with the trainer and with the process.
    """

    def __init__(self, trainer: Any, run: Run, uses_unlabeled: bool) -> None:
        """Hold nothing yet."""
        self.run, self.uses_unlabeled = run, uses_unlabeled
        self.stack = ExitStack()
        self.holds = False
        weakref.finalize(trainer, self.stack.close)

    def take(self, wait: bool = False) -> None:
        """Hold the fold; raise LimitedError if another process does, or wait for it."""
        if self.holds:
            return
        tie_forks()
        self.stack.enter_context(training_alone(self.run.results, wait))
        self.stack.enter_context(reading(self.run.planned.folder, self._cases()))
        self.holds = True

    def release(self) -> None:
        """Let others work on the fold."""
        self.stack.close()
        self.holds = False

    def _cases(self) -> dict[str, tuple[str, ...]]:
        run, fold = self.run, self.run.fold
        found = {run.labeled_folder.name: (*fold.train, *fold.val), TRUTH: fold.val}
        found[box_folder(run.labeled_folder).name] = fold.train
        if self.uses_unlabeled:
            found[run.unlabeled_folder.name] = fold.unlabeled
        return found
