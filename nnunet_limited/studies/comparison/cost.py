"""What the unfinished runs of a comparison study cost."""

from __future__ import annotations

from typing import NamedTuple

from nnunet_limited.studies.comparison.folder import ComparisonFolder


class Cost(NamedTuple):
    """The unfinished runs of a method, and their cost as a number of supervised runs."""

    method: str
    runs: int
    supervised_runs: float


def estimate(folder: ComparisonFolder) -> list[Cost]:
    """Return the cost of each method."""
    from nnunet_limited.runs.request import find_trainer
    from nnunet_limited.trainers.catalogue import step_cost

    waiting = [one.run for one in folder.states() if one.state != "done"]
    costs = []
    for method in folder.study.methods:
        runs = sum(run.method == method.slug for run in waiting)
        trainer = find_trainer(method.trainer)
        cost = step_cost(trainer)["relative_time"] or 1.0
        if trainer.learns_pseudo_labels != "none":
            teacher = find_trainer(method.teacher or trainer.teacher)
            cost = (step_cost(teacher)["relative_time"] or 1.0) + method.rounds * cost
        costs.append(Cost(method.name, runs, runs * cost))
    return costs
