"""The shared training step. A method says what is special to it and nothing else; see ``mean_teacher.py``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.collate_outputs import collate_outputs
from torch import autocast, nn
from torch import distributed as dist

from nnunet_limited.data.loader import TwoStreamLoader, UnlabeledDataset, UnlabeledLoader
from nnunet_limited.data.preprocessing import fingerprint_folder, require
from nnunet_limited.data.random_state import seed_everything
from nnunet_limited.data.views import TwoViews, without_benchmark
from nnunet_limited.losses.consistency import class_shares, rampup
from nnunet_limited.networks.ema import unwrap
from nnunet_limited.trainers import checkpoint
from nnunet_limited.trainers.config import SemiSupervisedConfig, TrainerConfig, resolve
from nnunet_limited.trainers.hidden_labels import HiddenLabelDice
from nnunet_limited.trainers.logger import LimitedLogger
from nnunet_limited.trainers.run import check_unlabeled, preprocess_unlabeled, resolve_run

# Settings that are attributes of the host's trainer under the same name.
HOST_SETTINGS = (
    "num_epochs",
    "num_iterations_per_epoch",
    "num_val_iterations_per_epoch",
    "save_every",
    "initial_lr",
    "weight_decay",
    "oversample_foreground_percent",
)


class Unsupervised(NamedTuple):
    """The unsupervised loss of a batch, and the probabilities (b, c, *spatial) of the pseudo-labels behind it."""

    loss: torch.Tensor
    target: torch.Tensor


class LimitedTrainer(nnUNetTrainer):
    """nnU-Net's trainer with a second, unlabelled stream.

    A step is: labelled loss backward, ``weight * unsupervised loss`` backward, one clipped optimizer step,
    :meth:`after_step`. The two parts are back-propagated one after the other, so a step needs the memory of a
    supervised one. While the weight is 0 the step is that of ``nnUNetTrainer``, number for number.

    A method overrides ``Config``, :meth:`unsupervised_loss` and, if it has further networks, :meth:`make_partners`,
    :meth:`after_step` and ``predictor_name``.
    """

    Config: ClassVar[type[TrainerConfig]] = SemiSupervisedConfig
    config: Any
    network: Any
    preprocessed_dataset_folder_base: Any
    uses_unlabeled: ClassVar[bool] = True
    predictor_name: ClassVar[str] = "student"

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),
    ) -> None:
        """Take the host's arguments; refuse what would not train as asked before anything is written."""
        self.config = self.resolve_config(plans)
        self.run = resolve_run(type(self).__name__, plans, configuration, fold, self.config.model_dump(mode="json"))
        super().__init__(plans, configuration, fold, dataset_json, device)
        for name in HOST_SETTINGS:
            setattr(self, name, getattr(self.config, name))
        self.iteration = 0
        self.partners: dict[str, nn.Module] = {}
        self.resumed_state: dict[str, Any] | None = None
        self.unlabeled_loader: TwoStreamLoader | None = None
        self.hidden_labels: HiddenLabelDice | None = None
        self.logger.local_logger = LimitedLogger(self.logged_keys)

    @classmethod
    def resolve_config(cls, plans: dict[str, Any]) -> Any:
        """Return this trainer's settings from the section ``limited`` of ``plans``."""
        settings = plans.get("limited", {}).get("settings", {})
        return resolve(cls.Config, settings, known_settings(), f"plans {plans.get('plans_name')}")

    @property
    def logged_keys(self) -> tuple[str, ...]:
        """Return the log keys this trainer adds to the host's."""
        if not self.uses_unlabeled:
            return ()
        keys = ("supervised_losses", "unsupervised_losses", "unsupervised_weights", "pseudo_label_shares")
        return (*keys, "pseudo_label_dice") if self.config.log_pseudo_label_dice else keys

    # ---- what a method overrides -------------------------------------------------------------------------------------

    def make_partners(self) -> dict[str, nn.Module]:
        """Return the networks besides the student, by name; they are saved and resumed with it."""
        return {}

    def unsupervised_loss(self, weak: torch.Tensor, strong: torch.Tensor, mask: torch.Tensor) -> Unsupervised:
        """Return the loss on two views (b, c, *spatial) of unlabelled crops; ``mask`` is True inside the image."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Do what follows an optimizer step."""

    # ---- start -------------------------------------------------------------------------------------------------------

    def initialize(self) -> None:
        """Build the student as the host does, then the partners."""
        require(
            self.run.labeled_folder,
            {*self.run.fold.train, *self.run.fold.val},
            "labelled",
            self._preprocess_remedy,
        )
        if self.config.seed is not None:
            seed_everything(self.config.seed + self.local_rank)
        super().initialize()
        self.partners = self.make_partners()

    @property
    def _preprocess_remedy(self) -> str:
        return "run 'nnunet-limited plan'" if self.run.is_bound else "run 'nnUNetv2_plan_and_preprocess'"

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """Return the host's SGD, or AdamW with the same decay of the learning rate."""
        if self.config.optimizer == "sgd":
            return super().configure_optimizers()
        optimizer = torch.optim.AdamW(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def do_split(self) -> tuple[list[str], list[str]]:
        """Return labelled and validation cases of the fold."""
        return list(self.run.fold.train), list(self.run.fold.val)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:
        """Remember what the host decides about augmentation: the unlabelled stream uses the same."""
        self.augmentation = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        return self.augmentation

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Return the host's loaders, the training one with the unlabelled stream attached."""
        train, val = super().get_dataloaders()
        slot = "data_loader" if isinstance(train, SingleThreadedAugmenter) else "generator"
        labeled = getattr(train, slot)
        if self.config.seed is not None:
            without_benchmark(labeled.transforms)
        if self.uses_unlabeled:
            seed = None if self.config.seed is None else (self.config.seed, self.local_rank, self.iteration)
            self.unlabeled_loader = TwoStreamLoader(labeled, self._unlabeled_stream(), seed)
            if slot == "generator":
                train._finish()  # its workers hold the labelled loader alone; they start anew at the next batch
            setattr(train, slot, self.unlabeled_loader)
            if self.config.log_pseudo_label_dice:
                self.hidden_labels = HiddenLabelDice.of(self, val)
        return train, val

    def _unlabeled_stream(self) -> UnlabeledLoader:
        rotation, dummy_2d, initial_patch_size, mirror_axes = self.augmentation
        patch_size = self.configuration_manager.patch_size
        pipeline = self.get_training_transforms(
            patch_size, rotation, None, mirror_axes, dummy_2d, self.configuration_manager.use_mask_for_norm
        )
        if self.config.seed is not None:
            without_benchmark(pipeline)
        dataset = UnlabeledDataset(str(self.run.unlabeled_folder), list(self.run.fold.unlabeled))
        size = self.config.unlabeled_batch_size or self.batch_size
        return UnlabeledLoader(
            dataset, size, initial_patch_size, patch_size, self.label_manager, transforms=TwoViews(pipeline)
        )

    def on_train_start(self) -> None:
        """Check the unlabelled cases, start as the host does, and restore the random state of a resumed run last."""
        if self.uses_unlabeled:
            plans = self.plans_manager.plans
            check_unlabeled(self.run, type(self).__name__, plans["dataset_name"])
            preprocess_unlabeled(self.run, plans, self.configuration_name, self.print_to_log_file)
        host_folder = self.preprocessed_dataset_folder_base
        if self.run.is_bound:  # the host copies dataset_fingerprint.json from here; ours is that of the split
            self.preprocessed_dataset_folder_base = str(
                fingerprint_folder(Path(host_folder), self.plans_manager.plans_name)
            )
        try:
            super().on_train_start()
        finally:
            self.preprocessed_dataset_folder_base = host_folder
        if self.resumed_state is not None:
            checkpoint.restore_random_state(self, self.resumed_state)
        if self.local_rank == 0:
            self.run.write_record()
        settings = ", ".join(f"{key}={value}" for key, value in self.config.model_dump().items())
        fold = self.run.fold
        self.print_to_log_file(
            f"{type(self).__name__}: split {self.run.split.name} ({self.run.split.hash}), {len(fold.train)} labelled, "
            f"{len(fold.unlabeled) if self.uses_unlabeled else 0} unlabelled, {len(fold.val)} validation cases; "
            f"{settings}"
        )
        if set(fold.train) & set(fold.val):
            self.print_to_log_file(
                "Some validation cases are trained on too: the validation Dice says nothing of them."
            )
        if not self.run.is_bound:
            self.print_to_log_file("These plans are not bound to a split: they may have been made from hidden labels.")

    # ---- the step ----------------------------------------------------------------------------------------------------

    @property
    def unsupervised_weight(self) -> float:
        """Return the weight of the unsupervised loss at the current iteration."""
        if not self.uses_unlabeled or not self.config.consistency_weight:
            return 0.0
        total = self.num_epochs * self.num_iterations_per_epoch
        since_start = self.iteration - self.config.start_fraction * total
        if since_start < 0:
            return 0.0
        length = self.config.rampup_fraction * total
        return float(self.config.consistency_weight * rampup(since_start / length if length else 1.0))

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do one optimizer step on the labelled batch and, once it has weight, on the unlabelled one."""
        weight = self.unsupervised_weight
        data, target = self._to_device(batch["data"]), self._to_device(batch["target"])
        self.optimizer.zero_grad(set_to_none=True)
        with self._without_sync() if weight else nullcontext():
            with self._autocast():
                supervised = self.loss(self.network(data), target)
            self._backward(supervised)
        supervised = supervised.detach()
        terms = [supervised, torch.zeros_like(supervised)]
        shares = torch.zeros(self.label_manager.num_segmentation_heads, device=self.device)
        if weight:
            mask = self._to_device(batch["unlabeled"]["target"])
            # Contiguous, because torch.compile would compile anew for the strides of a half.
            weak, strong = (v.contiguous() for v in self._to_device(batch["unlabeled"]["data"]).chunk(2, dim=1))
            with self._autocast(cache=False):  # or weights cast under no_grad would be reused without gradient
                loss, pseudo = self.unsupervised_loss(weak, strong, mask)
            self._backward(weight * loss)
            terms[1] = loss.detach()
            shares = class_shares(pseudo, mask, self.label_manager.has_regions)
        self._optimizer_step()
        self.after_step()
        self.iteration += 1
        values = torch.cat([torch.stack(terms).float(), shares.float()]).cpu().numpy()
        if not self.uses_unlabeled:
            return {"loss": values[0]}
        return {
            "loss": values[0] + weight * values[1] if weight else values[0],
            "supervised_losses": values[0],
            "unsupervised_losses": values[1],
            "unsupervised_weights": weight,
            "pseudo_label_shares": values[2:],
        }

    def full_resolution(self, output: Any) -> torch.Tensor:
        """Return the full-resolution head of a network output.

        Under DistributedDataParallel every head must take part in every backward pass; the others join with weight 0.
        """
        if not isinstance(output, (list, tuple)):
            return output
        if self.is_ddp and output[0].requires_grad:
            return output[0] + 0.0 * sum(head.mean() for head in output[1:])
        return output[0]

    def _to_device(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._to_device(v) for v in value]
        return value.to(self.device, non_blocking=True)

    def _autocast(self, cache: bool = True) -> AbstractContextManager[Any]:
        return autocast("cuda", cache_enabled=cache) if self.device.type == "cuda" else nullcontext()

    def _without_sync(self) -> AbstractContextManager[Any]:
        return self.network.no_sync() if self.is_ddp else nullcontext()

    def _backward(self, loss: torch.Tensor) -> None:
        (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()

    def _optimizer_step(self) -> None:
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Log the epoch's mean of every term."""
        super().on_train_epoch_end(train_outputs)
        if not self.uses_unlabeled:
            return
        collated = collate_outputs(train_outputs)
        means = {key: np.mean(collated[key], axis=0) for key in self.logged_keys if key in collated}
        if self.is_ddp:
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, means)
            means = {key: np.mean([g[key] for g in gathered], axis=0) for key in means}
        for key, value in means.items():
            self.logger.log(key, value.tolist(), self.current_epoch)
        if self.hidden_labels is not None:
            with self.predicting():
                self.logger.log("pseudo_label_dice", self.hidden_labels.dice(self), self.current_epoch)
        elif self.config.log_pseudo_label_dice:
            self.logger.log("pseudo_label_dice", float("nan"), self.current_epoch)

    def on_epoch_end(self) -> None:
        """Print our terms with the host's, and warn when the pseudo-labels have become useless."""
        for key in self.logged_keys:
            self.print_to_log_file(key, np.round(self.logger.get_value(key, step=-1), 4))
        if self.uses_unlabeled and self.logger.get_value("unsupervised_weights", step=-1) > 0:
            shares = np.asarray(self.logger.get_value("pseudo_label_shares", step=-1))
            if (shares > 0).sum() <= (0 if self.label_manager.has_regions else 1):
                self.print_to_log_file(
                    "WARNING: in this epoch all pseudo-labels were of one class. Lower consistency_weight, raise "
                    "start_fraction, or check that the labelled cases contain every class."
                )
        super().on_epoch_end()

    # ---- validation, saving, resuming --------------------------------------------------------------------------------

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Return the student and its partners, unwrapped."""
        return {"student": unwrap(self.network), **{name: unwrap(net) for name, net in self.partners.items()}}

    @contextmanager
    def predicting(self) -> Iterator[None]:
        """Let ``self.network`` be the network to predict with."""
        student = self.network
        if self.predictor_name != "student":
            self.network = self.partners[self.predictor_name]
        try:
            yield
        finally:
            self.network = student

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Switch deep supervision of every network that has a decoder."""
        for network in self.networks.values():
            decoder: Any = getattr(network, "decoder", None)
            if decoder is not None:
                decoder.deep_supervision = enabled

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Validate the network to predict with."""
        with self.predicting():
            return super().validation_step(batch)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate the network to predict with."""
        with self.predicting():
            super().perform_actual_validation(save_probabilities)

    def save_checkpoint(self, filename: str) -> None:
        """Write the host's checkpoint at once, with ``network_weights`` to predict with and all else under our key."""
        if self.local_rank == 0 and not self.disable_checkpointing:
            checkpoint.save(self, Path(filename), super().save_checkpoint)

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        """Resume from a checkpoint of this trainer with these settings; anything else is refused."""
        if not self.was_initialized:
            self.initialize()
        checkpoint.load(self, Path(filename_or_checkpoint), super().load_checkpoint)


def trainer_classes() -> list[type[LimitedTrainer]]:
    """Return every trainer there is, the user's own subclasses too."""
    classes: list[type[LimitedTrainer]] = list(LimitedTrainer.__subclasses__())
    for cls in classes:
        classes.extend(cls.__subclasses__())  # the list grows while it is walked
    return classes


def known_settings() -> set[str]:
    """Return the settings that any trainer understands."""
    classes: list[type[LimitedTrainer]] = [LimitedTrainer, *trainer_classes()]
    return {key for cls in classes for key in cls.Config.model_fields}
