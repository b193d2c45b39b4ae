"""Which crops of the unlabelled cases a trainer sees."""

from typing import Any

from nnunet_limited.data.exploration import Exploration
from nnunet_limited.data.loaders import UnlabeledDataset, UnlabeledLoader
from nnunet_limited.data.views import Views


def crops_loader(trainer: Any, dataset: UnlabeledDataset, views: Views) -> UnlabeledLoader:
    """Return the loader of a trainer's unlabelled crops, sampled as the setting ``unlabeled_sampling`` says."""
    config, exploration = trainer.config, None
    if config.unlabeled_sampling == "foreground":
        exploration = Exploration(dataset.identifiers, config.seed, trainer.local_rank, trainer.gpus)
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
