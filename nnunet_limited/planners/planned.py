"""A planned dataset: its plans, and the data, split and results that they name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_limited.datasets.description import DatasetDescription
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import has_raw, preprocessed_folder, results_folder
from nnunet_limited.host.plans import managers, plans_manager, with_inherited
from nnunet_limited.planners.preprocessing import DATA_PREFIX, data_folders, is_bound, preprocessing_hash
from nnunet_limited.splits import Split, load_host_split, load_split
from nnunet_limited.util.files import content_hash, read_object
from nnunet_limited.util.names import check_name
from nnunet_limited.util.plans import check_networks

MAKE_PLANS = "make them with 'nnunet-limited plan'"


class CaseFolders(NamedTuple):
    """The folders of a configuration's preprocessed cases, with label and without."""

    labeled: Path
    unlabeled: Path


@dataclass(frozen=True, eq=False)
class PlannedData:
    """The dataset preprocessed in ``folder`` as ``plans`` describe it; each part is read when it is first used.

    The plans may be nnU-Net's own, which are not bound to a split, or not on disk yet.
    """

    folder: Path
    plans: dict[str, Any]

    @classmethod
    def load(cls, folder: Path, name: str) -> PlannedData:
        """Read the plans ``name`` of the preprocessed dataset ``folder``; raise LimitedError for what is no plans."""
        return cls(folder, load_plans(folder, name))

    @classmethod
    def of(cls, plans: dict[str, Any]) -> PlannedData:
        """Return the dataset that ``plans`` name."""
        return cls(preprocessed_folder(plans["dataset_name"]), plans)

    @property
    def dataset(self) -> str:
        """The full name of the dataset."""
        return str(self.plans["dataset_name"])

    @property
    def name(self) -> str:
        """The name of the plans."""
        return str(self.plans["plans_name"])

    @property
    def is_bound(self) -> bool:
        """Whether the plans were made from a split."""
        return is_bound(self.plans)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of trainers in the plans."""
        return (self.plans.get("limited") or {}).get("settings", {})

    @cached_property
    def hash(self) -> str:
        """A hash of the plans without their name, their settings (recorded apart) and the version that made them."""
        limited = {k: v for k, v in self.plans.get("limited", {}).items() if k not in ("version", "settings")}
        content = {k: v for k, v in self.plans.items() if k not in ("continue_training", "plans_name")}
        return content_hash({**content, "limited": limited})

    @cached_property
    def dataset_json(self) -> dict[str, Any]:
        """The description of the preprocessed dataset."""
        return read_object(self.folder / "dataset.json", "dataset description", "run 'nnunet-limited plan'")

    @property
    def description(self) -> DatasetDescription:
        """The description of the dataset, dataset.json."""
        return DatasetDescription(self.dataset_json)

    @cached_property
    def label_manager(self) -> Any:
        """nnU-Net's label manager."""
        return plans_manager(self.plans).get_label_manager(self.dataset_json)

    @cached_property
    def split(self) -> Split:
        """The split that the plans are bound to or, for plans of nnU-Net, ``splits_final.json``.

        Raises LimitedError if it is missing, malformed or, for bound plans, not the one that they were made from.
        """
        return self._bound_split() if self.is_bound else self._plain_split()

    def _bound_split(self) -> Split:
        limited = self.plans["limited"]
        split = load_split(self.folder, limited["split"])
        if split.hash != limited["split_hash"]:
            raise LimitedError(
                f"split {split.name!r} in {self.folder} has changed since these plans were made (hash {split.hash}, "
                f"plans say {limited['split_hash']}); run 'nnunet-limited plan' again"
            )
        return split

    def _plain_split(self) -> Split:
        images = RawDataset.load(self.folder.name).without_label if has_raw(self.folder.name) else []
        split = load_host_split(self.folder, images)
        if not split.unlabeled:
            raise LimitedError(
                f"{self.folder / 'splits_final.json'} has no key 'unlabeled' and no raw dataset with images without "
                f"label is in nnUNet_raw={os.environ.get('nnUNet_raw')}; add the key, put images into imagesUn/, or "
                "use 'nnunet-limited split' and 'plan'"
            )
        return split

    def check_edited(self, configuration: str) -> None:
        """Refuse plans whose ``configuration`` would preprocess otherwise than the data that it names were made."""
        chosen = self.configuration(configuration)
        if not self.is_bound or not chosen["data_identifier"].startswith(DATA_PREFIX):
            return
        now = preprocessing_hash(self.plans, chosen, self.description.labels)
        if not chosen["data_identifier"].startswith(f"{DATA_PREFIX}{now}_"):
            raise LimitedError(
                f"{self.folder / self.name}.json: spacing, normalization, resampling or labels of {configuration} were "
                f"changed after {chosen['data_identifier']} was made with them; restore them, or make plans with "
                "'nnunet-limited plan'"
            )

    def configuration(self, name: str) -> dict[str, Any]:
        """Return a configuration, which the plans must have, with all that it inherits."""
        if name not in self.plans["configurations"]:
            raise LimitedError(
                f"configuration {name!r} is not in plans {self.name}; use one of "
                f"{', '.join(self.plans['configurations'])}"
            )
        return with_inherited(self.plans, name)

    def managers(self, configuration: str) -> tuple[Any, Any]:
        """Return nnU-Net's managers of the plans and of a configuration."""
        return managers(self.plans, configuration)

    def cases(self, configuration: str) -> CaseFolders:
        """Return the folders of the preprocessed cases."""
        return CaseFolders(*data_folders(self.plans, configuration))

    def results(self, trainer: str, configuration: str) -> Path:
        """Return the folder with the folds of a trainer."""
        return results_folder(self.dataset) / f"{trainer}__{self.name}__{configuration}"


def load_plans(preprocessed: Path, plans: str) -> dict[str, Any]:
    """Load plans by name from the preprocessed folder of their dataset."""
    file = preprocessed / f"{check_name(plans, 'plans')}.json"
    content = read_object(file, "plans", MAKE_PLANS)
    if not isinstance(content.get("configurations"), dict):
        raise LimitedError(f"{file} is not a plans file, it has no 'configurations'; {MAKE_PLANS}")
    for key, expected in (("dataset_name", preprocessed.name), ("plans_name", plans)):
        if content.get(key) != expected:  # nnU-Net takes both for folder names
            raise LimitedError(
                f"{file} has {key} {content.get(key)!r}, not {expected!r}: it was copied or renamed; {MAKE_PLANS}"
            )
    check_networks(content, file)
    limited = content.get("limited", {})
    wanted = {"split", "split_hash", "settings"} if is_bound(content) else {"settings"}
    if "limited" in content and not (isinstance(limited, dict) and wanted <= set(limited)):
        raise LimitedError(f"{file}: section 'limited' lacks one of {sorted(wanted)}: {limited!r:.60}; {MAKE_PLANS}")
    return content
