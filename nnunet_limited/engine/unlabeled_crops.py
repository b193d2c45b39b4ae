"""Which crops of the unlabelled cases a trainer sees."""

from typing import Any

import numpy as np
import torch
from torch import distributed as dist

from nnunet_limited.data.exploration import Exploration
from nnunet_limited.data.loaders import PseudoLabeledDataset, UnlabeledDataset, UnlabeledLoader
from nnunet_limited.data.sightings import ORIGIN, Sightings
from nnunet_limited.data.views import Views


def crops_loader(trainer: Any, dataset: UnlabeledDataset, views: Views) -> UnlabeledLoader:
    """Return the loader of a trainer's unlabelled crops, sampled as the setting ``unlabeled_sampling`` says.

    Foreground is that of stored pseudo-labels or, without them, what :func:`record_foreground` has recorded.
    """
    config, exploration = trainer.config, None
    if config.unlabeled_sampling == "foreground":
        exploration = Exploration(dataset.identifiers, config.seed, trainer.local_rank, trainer.gpus)
        if not isinstance(dataset, PseudoLabeledDataset):
            dataset.sightings = Sightings(dataset.identifiers, len(trainer.labels.foreground_values))
            if views.unmapped:
                trainer.print_to_log_file(
                    f"Foreground in unlabelled crops moved by {', '.join(views.unmapped)} is not recorded, because "
                    "their places in the case are unknown; without any, all these crops are uniform."
                )
    size = config.unlabeled_batch_size or trainer.batch_size
    _, _, initial_patch_size, _ = trainer.augmentation
    return UnlabeledLoader(
        dataset,
        size,
        initial_patch_size,
        trainer.configuration_manager.patch_size,
        trainer.label_manager,
        exploration=exploration,
        oversample_foreground_percent=trainer.oversample_foreground_percent,
        # Of a single crop nnU-Net would round the fraction to none.
        probabilistic_oversampling=trainer.probabilistic_oversampling or size == 1,
        transforms=views,
    )


def record_foreground(trainer: Any, batch: dict[str, Any], target: torch.Tensor, valid: torch.Tensor) -> None:
    """Record where the pseudo-labels ``target`` (u, c, *spatial) of an unlabelled ``batch`` have foreground.

    ``valid`` (u, 1, *spatial) is False outside of the image and where something is annotated. With several GPUs each
    records the crops of all, so that all draw from the same places.
    """
    sightings: Sightings | None = trainer.unlabeled_loader.unlabeled.sightings
    if sightings is None:
        return
    seen = trainer.labels.foreground_voxels(target, valid, sightings.per_crop)
    rows = torch.cat([batch["origin"], seen.flatten(1).double().cpu()], 1)
    if trainer.is_ddp:
        rows = _of_all_gpus(rows.to(trainer.device), trainer.config.unlabeled_batch_size or _largest_batch(trainer))
    origin, voxels = np.split(rows.cpu().numpy(), [ORIGIN], axis=1)
    shape = (1, *target.shape[2:])[-3:]  # a 2D crop is a slice
    sightings.update(origin, voxels.astype(np.int64).reshape(len(rows), *seen.shape[1:]), shape)


def _largest_batch(trainer: Any) -> int:
    """Return the most crops that nnU-Net gives to one of several GPUs."""
    return -(-int(trainer.configuration_manager.batch_size) // int(trainer.gpus))


def _of_all_gpus(rows: torch.Tensor, largest: int) -> torch.Tensor:
    """Return the rows of all processes in their order; none has more than ``largest``."""
    mine = rows.new_full((largest, rows.shape[1]), torch.nan)
    mine[: len(rows)] = rows
    gathered = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, mine)
    everything = torch.cat(gathered)
    return everything[everything[:, 0].isfinite()]
