"""Studies that began when defaults were others: their remaining runs are trained as those that are there."""

from pathlib import Path
from typing import Any

from nnunet_limited.engine.run import RECORD
from nnunet_limited.engine.settings import recorded
from nnunet_limited.errors import LimitedError
from nnunet_limited.studies.engine.study_file import Method
from nnunet_limited.util.files import read_object


def former_defaults(
    method: Method, results: Path, configuration: str, plans: dict[str, Any], settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the settings that a run needs to be like the method's other runs in ``results``, a dataset's folder.

    ``settings`` are those that the study gives it. A run that has begun itself keeps its own and needs none. Raises
    LimitedError for self-training, whose teacher and student share settings but not defaults.
    """
    from nnunet_limited.runs.request import find_trainer

    trainer = find_trainer(method.trainer)
    given = {*plans["limited"]["settings"], *settings}
    needed: dict[str, Any] = {}
    for file in sorted(results.glob(f"{method.trainer}__*__{configuration}/fold_*/{RECORD}")):
        before = recorded(trainer.Config, read_object(file, "run record", "delete its folder").get("settings") or {})
        if any(before.get(key) != value for key, value in method.settings.items()):
            continue  # a run of another method
        model = file.parents[1].name.split("__")[1]
        if model.startswith(f"{plans['plans_name']}_") and before["seed"] == settings["seed"]:
            return {}
        fields = trainer.Config.model_fields.items()
        needed = {key: before[key] for key, field in fields if key not in given and before[key] != field.default}
    if needed and trainer.learns_pseudo_labels != "none":
        raise LimitedError(
            f"the runs of {method.name!r} in {results} began with other defaults ({', '.join(sorted(needed))}), which "
            "self-training cannot have again; remove the method from the study file, or start the study in a new folder"
        )
    return needed
