"""Run one function over many cases, in worker processes, with a progress bar."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.children import end_with
from nnunet_limited.util.processes import safe_folder

T = TypeVar("T")


def default_processes() -> int:
    """Return the number of worker processes to use: nnU-Net's ``nnUNet_def_n_proc``, at most one per core."""
    value = os.environ.get("nnUNet_def_n_proc", "8")
    if not value.isdecimal():
        raise LimitedError(f"nnUNet_def_n_proc={value} is not a number of processes; export a number or unset it")
    return max(1, min(int(value), os.cpu_count() or 1))


def run_all(function: Callable[..., T], tasks: Sequence[tuple[Any, ...]], processes: int, description: str) -> list[T]:
    """Return ``function(*task)`` for each task in order; the first error ends the work.

    With one process it runs here; otherwise in freshly spawned ones, as nnU-Net does (fork and torch do not mix).
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(description, total=len(tasks))
        if processes <= 1 or len(tasks) <= 1:
            return [function(*task) for task in progress.track(tasks, task_id=bar)]
        context = multiprocessing.get_context("spawn")
        with contextlib.ExitStack() as stack:
            with safe_folder():
                workers = min(processes, len(tasks))
                executor = ProcessPoolExecutor(workers, context, initializer=end_with, initargs=(os.getpid(),))
                pool = stack.enter_context(executor)
                futures = [pool.submit(function, *task) for task in tasks]
            try:
                for future in progress.track(as_completed(futures), total=len(tasks), task_id=bar):
                    future.result()
            except BrokenProcessPool as error:
                raise LimitedError(
                    f"{description}: a worker process died, probably out of memory; use fewer than {processes} "
                    "(-np, or export nnUNet_def_n_proc) and run the command again; finished work is skipped"
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)
        return [future.result() for future in futures]
