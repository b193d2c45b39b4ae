"""Give plans other settings, under a name of their own: same data, no preprocessing."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_limited.engine.settings import merged
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import dataset_name, nnunet_folder, preprocessed_folder
from nnunet_limited.planners.planned import load_plans
from nnunet_limited.splits import split_name
from nnunet_limited.util.files import content_hash, copy_file, write_json


def find_plans(plans: str, dataset: str | None) -> Path:
    """Return the preprocessed folder that holds ``plans``; without a dataset they must be unique."""
    if dataset is not None:
        return preprocessed_folder(dataset_name(dataset))
    preprocessed = nnunet_folder("nnUNet_preprocessed")
    folders = sorted(file.parent for file in preprocessed.glob(f"Dataset*/{plans}.json"))
    if len(folders) != 1:
        raise LimitedError(
            f"plans {plans!r} are in {len(folders)} datasets of {preprocessed}"
            f"{': ' + ', '.join(f.name for f in folders) if folders else ''}; "
            f"{'give one with -d' if folders else 'make them with nnunet-limited plan'}"
        )
    return folders[0]


def variant_name(settings: dict[str, Any]) -> str:
    """Return a readable, file-safe name for settings, e.g. ``num_epochs-20``."""
    text = "_".join(f"{key}-{value}" for key, value in sorted(settings.items()))
    safe = re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_")
    return safe if len(safe) <= 60 and "-" in safe else f"set-{content_hash(settings)[:8]}"


@dataclass(frozen=True)
class Variant:
    """Plans ``content`` made from the plans ``base`` of ``folder``: checked, not yet written."""

    folder: Path
    base: str
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """Return the new plans' name."""
        return str(self.content["plans_name"])

    def write(self) -> str:
        """Write a copy of the base's fingerprint, and then the plans; return their name."""
        base, mine = (self.folder / "fingerprints" / name for name in (self.base, self.name))
        for file in sorted(base.glob("*.json")):
            copy_file(file, mine / file.name)
        write_json(self.folder / f"{self.name}.json", self.content)
        return self.name


def check_settings(plans: dict[str, Any]) -> None:
    """Refuse settings of ``plans`` that no trainer knows, or that one which knows them does not accept."""
    from nnunet_limited.trainers import trainer_classes

    for trainer in trainer_classes():
        trainer.resolve_config(plans)


def configure(folder: Path, plans: str, settings: dict[str, Any], name: str | None = None) -> str:
    """Write ``<plans>_<name>`` with ``settings`` over those of ``plans``; return the new plans' name."""
    return make_variant(folder, plans, settings, name).write()


def _without_version(plans: dict[str, Any]) -> dict[str, Any]:
    """Return what the section ``limited`` of plans has besides the version."""
    return {key: value for key, value in plans.get("limited", {}).items() if key != "version"}


def make_variant(
    folder: Path, plans: str, settings: dict[str, Any], name: str | None = None, redo: bool = False
) -> Variant:
    """Return ``<plans>_<name>`` with ``settings`` over those of ``plans``; nothing is written.

    A file of this name must have this content; with ``redo``, it may also be of ``plans`` as they were before a label
    or an image was changed.
    """
    content = load_plans(folder, plans)
    new = f"{plans}_{split_name(name or variant_name(settings))}"
    limited = content.get("limited", {})  # plans of nnU-Net have none and are not bound to a split by settings
    content["limited"] = {**limited, "settings": merged(limited.get("settings", {}), settings)}
    content["plans_name"] = new
    check_settings(content)
    file = folder / f"{new}.json"
    if file.is_file() and (there := load_plans(folder, new)) != content:
        former = _without_version(there) == _without_version(content)
        if not (former and redo):
            remedy = "train again with --redo, which replaces it" if former else "choose another --name or delete it"
            what = f"was made from {plans} before they were planned again" if former else "exists with other content"
            raise LimitedError(f"{file} {what}; {remedy}")
    return Variant(folder, plans, content)
