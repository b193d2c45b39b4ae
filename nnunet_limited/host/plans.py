"""nnU-Net's managers of plans, configurations and labels.

They are imported where they are used, because they import torch, which commands that only look at files do without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunet_limited.losses.label_space import LabelSpace


def plans_manager(plans: dict[str, Any]) -> Any:
    """Return nnU-Net's ``PlansManager`` of ``plans``."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    return PlansManager(plans)


def managers(plans: dict[str, Any], configuration: str) -> tuple[Any, Any]:
    """Return nnU-Net's managers of ``plans`` and of one of their configurations."""
    manager = plans_manager(plans)
    return manager, manager.get_configuration(configuration)


def with_inherited(plans: dict[str, Any], configuration: str) -> dict[str, Any]:
    """Return a configuration of ``plans`` with all that it inherits from others."""
    return managers(plans, configuration)[1].configuration


def label_space(manager: Any) -> LabelSpace:
    """Return what the channels of predictions are, from nnU-Net's ``LabelManager`` of a dataset."""
    from nnunet_limited.losses.label_space import ClassLabels, RegionLabels

    kind: type[LabelSpace] = RegionLabels if manager.has_regions else ClassLabels
    values = manager.foreground_regions if manager.has_regions else manager.all_labels
    groups = (value if isinstance(value, (list, tuple)) else (value,) for value in values)
    return kind(tuple(tuple(int(v) for v in group) for group in groups), manager.ignore_label)
