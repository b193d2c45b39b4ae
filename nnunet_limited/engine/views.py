"""Which views of unlabelled crops a trainer makes: in the loader's workers, on its device, and for its student."""

from typing import Any

from nnunet_limited.data.geometry import StudentView, square_planes
from nnunet_limited.data.intensity_transfer import IntensityTransfer
from nnunet_limited.data.loaders import UnlabeledDataset
from nnunet_limited.data.strong_views import StrongViews
from nnunet_limited.data.views import Views


def unsuitable_views(configuration: dict[str, Any], config: Any, mixes: bool) -> str | None:
    """Return why the views of the settings ``config`` cannot be made, or None; ``mixes`` is what the method does."""
    cutmix = getattr(config, "cutmix", False)
    if (mixes or cutmix) and (config.unlabeled_batch_size or configuration["batch_size"]) < 2:
        remedy = "give --set unlabeled_batch_size=2 or more" + (", or --set cutmix=false" if cutmix else "")
        return f"it mixes pairs of unlabelled crops on each GPU; {remedy}"
    turned = getattr(config, "geometric_view", "none") == "rot90"
    if turned and not square_planes(configuration["patch_size"], configuration["spacing"]):
        return "no two edges of a crop have equal length and spacing to turn it; give --set geometric_view=flip"
    return None


def worker_views(trainer: Any, pipeline: Any, dataset: UnlabeledDataset) -> Views:
    """Return what turns a crop into its views in the loader's workers.

    Where strong views are made on the device, workers apply no intensity augmentation but the user's own.
    """
    channels = trainer.num_input_channels
    patch_size, of_host = trainer.configuration_manager.patch_size, trainer.config.strong_view == "default"
    return Views(pipeline, trainer.strong_views, dataset.further_channels, channels, patch_size, of_host)


def device_views(trainer: Any) -> StrongViews | None:
    """Return what makes strong views of a batch on the device, or None if the workers make them."""
    if trainer.config.strong_view == "default":
        return None
    run, configuration = trainer.run, trainer.configuration_manager
    folders = {run.labeled_folder: run.fold.train, run.unlabeled_folder: run.fold.unlabeled}
    transfer = IntensityTransfer.of(folders, configuration.configuration["normalization_schemes"])
    return StrongViews(configuration.use_mask_for_norm, transfer)


def student_view(trainer: Any) -> StudentView:
    """Return the moves and the mixing of the settings; crops are mirrored along nnU-Net's own axes alone."""
    configuration, (_, _, _, mirror_axes) = trainer.configuration_manager, trainer.augmentation
    planes = square_planes(configuration.patch_size, configuration.spacing)
    kind, mix = (getattr(trainer.config, key, None) for key in ("geometric_view", "cutmix"))
    return StudentView(kind or "none", bool(mix), planes, mirror_axes or ())
