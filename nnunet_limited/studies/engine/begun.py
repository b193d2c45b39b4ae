"""Studies that began when defaults were others: their remaining runs are trained as those that are there."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_limited.engine.run import RECORD
from nnunet_limited.engine.settings import merged, recorded, with_current_names
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import preprocessed_folder
from nnunet_limited.planners.planned import load_plans
from nnunet_limited.studies.engine.folder import RECORD as TRAINED
from nnunet_limited.studies.engine.study_file import SHARED, Method
from nnunet_limited.util.files import read_object, write_json

FORMER = "former_defaults.json"  # in the folder of a run: settings that it is trained with besides the method's


@dataclass(frozen=True)
class Training:
    """What is trained in a run of a study: ``plans`` are those of its split, ``folder`` has what is recorded of it."""

    method: Method
    seed: int
    dataset: str
    configuration: str
    plans: str
    fold: int
    folder: Path


def former_defaults(training: Training, others: Iterable[Training], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a training needs, besides ``settings``, to be like ``others`` of its method.

    They are those of the others that today's defaults, and today's plans of a ``--size``, have changed. A training that
    has begun has the same ones each time it is continued, because its plans are named after its settings. Raises
    LimitedError for self-training, whose teacher and student share settings but not defaults.
    """
    from nnunet_limited.runs.request import find_trainer

    method = training.method
    chosen = _chosen(training)
    if _records(training, settings | chosen):
        return chosen
    rounds = find_trainer(method.trainer).learns_pseudo_labels != "none"
    if rounds:  # a student that is not complete cannot be told from that of another teacher
        others = [other for other in others if (other.folder / TRAINED).is_file()]
    found = (_records(other, settings | {"seed": other.seed} | _chosen(other)) for other in others)
    base = load_plans(preprocessed_folder(training.dataset), training.plans)
    plans = _with_settings(base, settings)
    needed: dict[str, Any] = {}
    for file in next(filter(None, found), []):
        record = read_object(file, "run record", "delete its folder")
        trainer = find_trainer(record.get("trainer", method.trainer))
        before = recorded(trainer.Config, record.get("settings") or {})
        today = trainer.resolve_config(plans).model_dump(mode="json")
        fixed = {*SHARED, *with_current_names(settings)}
        needed |= {key: before[key] for key in today if key not in fixed and before[key] != today[key]}
    defaults = sorted(needed.keys() - base["limited"]["settings"].keys())
    if defaults and rounds:
        raise LimitedError(
            f"the runs of {method.name!r} in {training.dataset} began with other defaults ({', '.join(defaults)}), "
            "which self-training cannot have again; remove the method from the study file, or start the study in a new "
            "folder"
        )
    if chosen != needed or not (training.folder / FORMER).is_file():
        write_json(training.folder / FORMER, needed)
    return needed


def _chosen(training: Training) -> dict[str, Any]:
    """Return the former defaults that were chosen for a training when it was first started."""
    file = training.folder / FORMER
    return read_object(file, "former defaults of a run", "delete it") if file.is_file() else {}


def _records(training: Training, settings: dict[str, Any]) -> list[Path]:
    """Return the records of the runs of a training, all rounds of it if it is complete; [] if it has not begun."""
    results = Path(os.environ["nnUNet_results"])
    done = training.folder / TRAINED
    if done.is_file():
        content = read_object(done, "record of a run", "delete its folder and run again")
        files = [results.parent / folder / RECORD for folder in content["results"]]
        return [file for file in files if file.is_file()]
    folder = preprocessed_folder(training.dataset)
    asked = _given(_with_settings(load_plans(folder, training.plans), settings))
    models = f"{training.method.trainer}__{training.plans}_*__{training.configuration}"
    found = []
    for file in sorted((results / training.dataset).glob(f"{models}/fold_{training.fold}/{RECORD}")):
        name = file.parents[1].name.split("__")[1]
        if (folder / f"{name}.json").is_file() and _given(load_plans(folder, name)) == asked:
            found.append(file)
    return found


def _with_settings(plans: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    limited = plans["limited"]
    return {**plans, "limited": {**limited, "settings": merged(limited["settings"], settings)}}


def _given(plans: dict[str, Any]) -> dict[str, Any]:
    """Return the settings in plans, but the pseudo-labels, whose name is known after the teacher's training only."""
    settings = with_current_names(plans["limited"]["settings"])
    return {key: value for key, value in settings.items() if key != "pseudo_labels"}
