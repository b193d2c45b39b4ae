"""Settings of a trainer, where they come from, and how they are checked.

Settings reach a trainer by one channel, the plans' section ``limited``, because nnU-Net names results by trainer, plans
and configuration: two settings are two plans.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nnunet_limited.errors import LimitedError

StrongView = Annotated[
    Literal["default", "strong"],
    Field(
        description="changes of intensity of the strong view: nnU-Net's own, which leave a third of the crops as they "
        "are, or stronger ones, of which at least one always acts"
    ),
]
GeometricView = Annotated[
    Literal["none", "rot90", "flip", "both"],
    Field(description="moves of the student's view, and of its target: quarter turns, mirror images, or both"),
]
CutMix = Annotated[
    bool, Field(description="paste a box of the next crop into the student's view, and of its target into the target")
]
Heads = Annotated[
    Literal["finest", "all"],
    Field(description="deep-supervision heads that learn pseudo-labels; all have nnU-Net's weights"),
]


class TrainerConfig(BaseModel):
    """Settings of every trainer. The defaults are nnU-Net's own."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    num_epochs: int = Field(1000, ge=1, description="length of the run in epochs")
    num_iterations_per_epoch: int = Field(250, ge=1, description="optimizer steps per epoch")
    num_val_iterations_per_epoch: int = Field(50, ge=1, description="validation batches per epoch")
    save_every: int = Field(50, ge=1, description="epochs between two writes of checkpoint_latest")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="nnU-Net's SGD, or AdamW; both with polynomial decay")
    initial_lr: float = Field(1e-2, gt=0, le=1, description="learning rate of the first epoch")
    weight_decay: float = Field(3e-5, ge=0, le=1, description="weight decay of the optimizer")
    oversample_foreground_percent: float = Field(
        0.33, ge=0, le=1, description="fraction of crops forced onto foreground"
    )
    sparse_labels: bool = Field(False, description="treat unannotated voxels of partly annotated images as unlabelled")
    channels_last: bool = Field(False, description="use channels-last memory on a CPU, which is faster")
    cpu_autocast: bool = Field(
        False, description="compute in bfloat16 on a CPU that has instructions for it (AMX or AVX512-BF16)"
    )
    seed: int | None = Field(
        None, ge=0, lt=2**32, description="random seed; on a CPU a run with nnUNet_n_proc_DA=0 is repeatable to the bit"
    )


class SemiSupervisedConfig(TrainerConfig):
    """Settings of every trainer that uses unlabelled cases."""

    consistency_weight: float = Field(1.0, ge=0, description="weight of the unsupervised loss after the ramp-up")
    start_fraction: float = Field(
        0.1, ge=0, lt=1, description="fraction of the run before the unsupervised loss starts"
    )
    rampup_fraction: float = Field(
        0.1, ge=0, le=1, description="fraction of the run over which the weight of the unsupervised loss rises"
    )
    schedule_limit: int | None = Field(
        5000, ge=0, description="largest number of steps before the start, and of the ramp-up; none: no limit"
    )
    unlabeled_batch_size: int | None = Field(
        None, ge=1, description="unlabelled crops per step and GPU; default: as many as labelled ones"
    )
    unlabeled_sampling: Literal["foreground", "uniform"] = Field(
        "foreground",
        description="unlabelled crops: forced onto foreground like labelled ones, where a network or a stored "
        "pseudo-label has it, or uniform",
    )
    strong_view: StrongView = "default"
    log_pseudo_label_dice: bool = Field(
        False, description="log the Dice of the predicting network on unlabelled cases where hidden labels exist"
    )


class StudentViewConfig(SemiSupervisedConfig):
    """Settings of trainers whose student sees other views of the crops than those that its target is made from.

    Methods whose predictions are all of one crop (URPC, CCT, R-Drop, deep co-training, entropy minimisation) have none:
    there is no target of another view that could be moved or mixed with the image.
    """

    strong_view: StrongView = "strong"
    geometric_view: GeometricView = "none"
    cutmix: CutMix = False


Config = TypeVar("Config", bound=BaseModel)

# Former names of settings in plans, study files and run records.
RENAMED = {
    "least_area": "min_area",
    "most_objects": "max_objects",
    "least_filled": "min_filled_fraction",
    "most_filled": "max_filled_fraction",
    "queried_share": "queried_fraction",
    "stable_share": "stable_fraction",
    "largest_component": "components",
}
# Their former values, of settings whose values have changed too.
RENAMED_VALUES = {"components": {True: "largest", False: "all"}}
# Settings whose default is not how runs were trained before they existed, with the value that is.
BEFORE: dict[str, Any] = {
    "schedule_limit": None,
    "unlabeled_sampling": "uniform",
    "strong_view": "default",
    "unsupervised_heads": "finest",
    "components": "all",
}


def with_current_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Return ``settings`` under their present names and values; of two names of one setting the later counts."""
    renamed = {RENAMED.get(key, key): value for key, value in settings.items()}
    for key in RENAMED_VALUES.keys() & renamed.keys():
        if isinstance(renamed[key], bool):
            renamed[key] = RENAMED_VALUES[key][renamed[key]]
    return renamed


def recorded(model: type[BaseModel], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings in the record of a run, under present names and with those that are newer than the record."""
    defaults = {key: field.default for key, field in model.model_fields.items()}
    before = {key: value for key, value in BEFORE.items() if key in defaults}
    return defaults | before | with_current_names(settings)


def merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``settings`` with ``changes``, under the names that were given."""
    replaced = with_current_names(changes)
    return {key: value for key, value in settings.items() if RENAMED.get(key, key) not in replaced} | changes


def resolve(model: type[Config], settings: dict[str, Any], known: set[str], source: str) -> Config:
    """Return the ``model`` filled from ``settings``; keys of other trainers (``known``) are left out.

    Former names are accepted. Raises LimitedError naming ``source``, the key, the value and what is allowed.
    """
    settings = with_current_names(settings)
    for key in settings:
        if key not in known:
            raise LimitedError(f"{source}: unknown setting {key!r}; known are {', '.join(sorted(known))}")
    try:
        return model(**{key: value for key, value in settings.items() if key in model.model_fields})
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise LimitedError(
            f"{source}: setting {key}={first['input']!r} is not allowed ({first['msg'].lower()}); give another value "
            f"({key}: {model.model_fields[key].description})"
        ) from error


def parse_assignments(
    assignments: Sequence[str], flag: str = "--set", example: str = "consistency_weight=0.3"
) -> dict[str, Any]:
    """Turn ``["consistency_weight=0.3", "seed=none"]`` into settings; values keep their text for pydantic to parse.

    Raises LimitedError, which names the ``flag`` and an ``example`` of it, for what is no assignment.
    """
    settings: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise LimitedError(f"{flag} {assignment!r} is not of the form key=value; write e.g. {example}")
        settings[key.strip()] = _value(value.strip())
    return settings


def _value(text: str) -> Any:
    """Return a JSON number, true, false or none as what it is, and any other text as it stands.

    A number that JSON would write in another way stays a text, which names of plans are made of; pydantic parses it.
    """
    if text.lower() in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text.lower()]
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (int, float)) and str(value) == text else text
