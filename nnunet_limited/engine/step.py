"""The shared training step. A method adds what is special to it and nothing else; see ``mean_teacher.py``."""

from contextlib import nullcontext
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.utilities.collate_outputs import collate_outputs
from torch import distributed as dist
from torch import nn

from nnunet_limited.data.crops import Crops, Unsupervised, unpack
from nnunet_limited.data.geometry import StudentView
from nnunet_limited.data.loaders import TwoStreamLoader, UnlabeledDataset, UnlabeledLoader
from nnunet_limited.data.sparse import UnannotatedDataset
from nnunet_limited.data.strong_views import StrongViews
from nnunet_limited.data.views import Views
from nnunet_limited.engine.hidden_dice import HiddenLabelDice
from nnunet_limited.engine.partners import PartnersTrainer
from nnunet_limited.engine.run import Run, check_unlabeled, preprocess_unlabeled
from nnunet_limited.engine.settings import SemiSupervisedConfig, TrainerConfig
from nnunet_limited.engine.unlabeled_crops import crops_loader, record_foreground
from nnunet_limited.engine.views import device_views, student_view, unsuitable_views, worker_views
from nnunet_limited.host.loaders import loader_attribute, without_benchmark
from nnunet_limited.losses.consistency import entropy_limit, masked_mean, rampup
from nnunet_limited.losses.pseudo_label import deep_supervised_loss
from nnunet_limited.networks.perturb import NOT_PERTURBABLE, can_perturb
from nnunet_limited.util.random_state import RandomStream


def _gradient(network: nn.Module) -> torch.Tensor:
    """Return a copy of the gradients of a network's parameters, in one vector."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])


class LimitedTrainer(PartnersTrainer):
    """nnU-Net's trainer with a second, unlabelled stream.

    A step is: labelled loss backward, ``weight * unsupervised loss`` backward, one clipped optimizer step,
    :meth:`after_step`. The two parts are back-propagated one after the other, so a step with one unlabelled pass
    needs the memory of a supervised one. While the weight is 0 the student's step is that of ``nnUNetTrainer``, number
    for number.

    A method overrides ``Config``, :meth:`unsupervised_loss` and, if it has further networks, :meth:`make_partners`,
    ``supervised_partners``, :meth:`after_step` and ``predictor_name``.
    """

    Config: ClassVar[type[TrainerConfig]] = SemiSupervisedConfig
    uses_unlabeled: ClassVar[bool] = True
    strong_views: ClassVar[int] = 1
    perturbs_features: ClassVar[bool] = False
    mixes_crops: ClassVar[bool] = False
    student_view: StudentView
    worker_views: Views
    device_views: StrongViews | None
    unlabeled_loader: TwoStreamLoader | None = None
    hidden_labels: HiddenLabelDice | None = None
    gradient_ratio = float("nan")  # unsupervised / supervised, of the student, in the last step of an epoch

    @property
    def logged_keys(self) -> tuple[str, ...]:
        """Return the log keys this trainer adds to nnU-Net's."""
        keys = ["supervised_losses", "unsupervised_losses", "unsupervised_weights"]
        keys += ["gradient_ratios", "pseudo_label_shares", "counted_shares", *super().logged_keys]
        return (*keys, "pseudo_label_dice") if self.config.log_pseudo_label_dice else tuple(keys)

    # ---- what a method overrides -------------------------------------------------------------------------------------

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the loss on the unlabelled crops."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Do what follows an optimizer step."""

    # ---- start -------------------------------------------------------------------------------------------------------

    @classmethod
    def unsuitable(cls, configuration: dict[str, Any], config: Any) -> str | None:
        """Refuse views or perturbed features that cannot be made, and a method without a loss."""
        if cls.unsupervised_loss is LimitedTrainer.unsupervised_loss:
            return "it has no unsupervised_loss; choose another -tr, or define it in your trainer"
        if cls.perturbs_features and not can_perturb(configuration):
            return NOT_PERTURBABLE
        return unsuitable_views(configuration, config, cls.mixes_crops)

    def _build_loss(self) -> Any:
        """Return the loss on labelled crops, and keep the weights of the heads in it, the finest first."""
        loss: Any = super()._build_loss()
        self.head_weights = [float(weight) for weight in getattr(loss, "weight_factors", (1.0,))]
        return loss

    @property
    def streams(self) -> dict[str, RandomStream]:
        """Return the random streams besides the global one."""
        loader = self.unlabeled_loader
        return {"method": self.method_stream} | ({"unlabeled": loader.stream} if loader is not None else {})

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """Return what decides which unlabelled crops are drawn; it is shared with the loader's processes."""
        return {} if self.unlabeled_loader is None else self.unlabeled_loader.unlabeled.buffers

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:
        """Keep nnU-Net's choices of augmentation, which the unlabelled stream uses too."""
        self.augmentation = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        return self.augmentation

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Return nnU-Net's loaders, the training one with the unlabelled stream attached."""
        train, val = super().get_dataloaders()
        slot = loader_attribute(train)
        self.unlabeled_loader = TwoStreamLoader(getattr(train, slot), self._unlabeled_stream(), self._seed(0))
        if slot == "generator":
            train._finish()  # its workers hold the labelled loader alone; they start again at the next batch
        setattr(train, slot, self.unlabeled_loader)
        self._wake_unlabeled_stream()
        if self.config.log_pseudo_label_dice:
            self.hidden_labels = HiddenLabelDice.of(self, getattr(val, loader_attribute(val)))
        return train, val

    def _unlabeled_stream(self) -> UnlabeledLoader:
        rotation, dummy_2d, _, mirror_axes = self.augmentation
        patch_size = self.configuration_manager.patch_size
        pipeline = self.get_training_transforms(
            patch_size, rotation, None, mirror_axes, dummy_2d, self.configuration_manager.use_mask_for_norm
        )
        if self.config.seed is not None:
            without_benchmark(pipeline)
        dataset = self.unlabeled_dataset()
        self.student_view, self.device_views = student_view(self), device_views(self)
        self.worker_views = worker_views(self, pipeline, dataset)
        return crops_loader(self, dataset, self.worker_views)

    def unlabeled_dataset(self) -> UnlabeledDataset:
        """Return the unlabelled cases of the fold and, for sparse labels, the sparsely labelled ones."""
        run, folder, cases = self.run, str(self.run.unlabeled_folder), list(self.run.fold.unlabeled)
        if self.sparse_ignore is None:
            check_unlabeled(run, type(self).__name__)
            return UnlabeledDataset(folder, cases)
        return UnannotatedDataset(folder, cases, str(run.labeled_folder), run.fold.train, self.sparse_ignore)

    @classmethod
    def check_unlabeled(cls, run: Run, config: Any) -> None:
        """Refuse a fold without unlabelled cases, or whose unlabelled cases cannot be loaded.

        Where labels are sparse, they may be all there is.
        """
        if run.fold.unlabeled or not config.sparse_labels:
            check_unlabeled(run, cls.__name__)

    def prepare_data(self) -> None:
        """Preprocess the unlabelled cases that are missing."""
        preprocess_unlabeled(self.run, self.print_to_log_file)

    # ---- the step ----------------------------------------------------------------------------------------------------

    @property
    def progress(self) -> float:
        """Return how far the ramp-up of the unsupervised loss is: 0 at its start, 1 at its end, negative before."""
        since_start = self.iteration - self.start_step
        length = self._limited_steps(self.config.rampup_fraction)
        return since_start / length if length else (1.0 if since_start >= 0 else -1.0)

    @property
    def entropy_limit(self) -> float:
        """Return the largest entropy of a confident voxel, as a fraction of the largest possible one.

        It rises over the whole run and not with the weight of the unsupervised loss, so that some voxels are left out
        until the end.
        """
        return entropy_limit(self.iteration / self.total_steps) * self.labels.boundary_entropy

    @property
    def total_steps(self) -> int:
        """Return the number of optimizer steps of the run."""
        return int(self.num_epochs * self.num_iterations_per_epoch)

    @property
    def start_step(self) -> float:
        """Return the number of steps before the unsupervised loss starts."""
        return self._limited_steps(self.config.start_fraction)

    def _limited_steps(self, fraction: float) -> float:
        """Return a fraction of the run in steps.

        There is a limit because a fraction of a long run is long: 100,000 steps on a handful of cases make a teacher
        that is sure of its errors, and leave little of the learning rate.
        """
        limit = self.config.schedule_limit
        return min(fraction * self.total_steps, self.total_steps if limit is None else limit)

    @property
    def unsupervised_weight(self) -> float:
        """Return the weight of the unsupervised loss at the current iteration."""
        return float(self.config.consistency_weight * rampup(self.progress)) if self.progress >= 0 else 0.0

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do one optimizer step on the labelled batch and, once it has weight, on the unlabelled one."""
        weight = self.unsupervised_weight
        while weight and "unlabeled" not in batch:  # worker processes prepared it while the stream was resting
            batch = next(self.dataloader_train)
        crops = self.crops(batch)
        measured = bool(weight) and (self.iteration + 1) % self.num_iterations_per_epoch == 0
        for optimizer in (self.optimizer, *(optimizer for optimizer, _ in self.partner_optimizers.values())):
            optimizer.zero_grad(set_to_none=True)
        supervised = self._supervised_backward(self.network, crops, sync=measured or not weight)
        gradient = _gradient(self.network) if measured else None
        for name in self.supervised_partners:
            self._supervised_backward(self.partners[name], crops, sync=not weight)
        terms = [supervised, torch.zeros_like(supervised), torch.zeros_like(supervised)]
        shares = torch.zeros(self.labels.channels, device=self.device)
        if weight:
            # Without the cache, or weights cast under no_grad would be reused without gradient.
            with self._autocast(cache=False), self.method_stream.active():
                loss, pseudo, partner_loss, valid = self.unsupervised_loss(crops)
            self._backward(weight * loss if partner_loss is None else weight * loss + partner_loss)
            if gradient is not None:
                self.gradient_ratio = float((_gradient(self.network) - gradient).norm() / gradient.norm())
            valid = crops.valid if valid is None else valid
            terms[1], terms[2] = loss.detach(), masked_mean(valid.float(), crops.valid)
            shares = self.labels.class_fractions(pseudo, valid)
        self._optimizer_step()
        self.after_step()
        if weight:
            record_foreground(self, batch["unlabeled"], pseudo, crops.valid)
        self.iteration += 1
        self._wake_unlabeled_stream()
        values = torch.cat([torch.stack(terms).float(), shares.float()]).cpu().numpy()
        return {
            "loss": values[0] + weight * values[1] if weight else values[0],
            "supervised_losses": values[0],
            "unsupervised_losses": values[1],
            "unsupervised_weights": weight,
            "counted_shares": values[2],
            "pseudo_label_shares": values[3:],
        }

    def _wake_unlabeled_stream(self) -> None:
        """Let the loader draw unlabelled crops from when they have weight on; before, it would do so in vain."""
        if self.unlabeled_loader is not None:
            self.unlabeled_loader.active.fill_(bool(self.unsupervised_weight))

    def crops(self, batch: dict[str, Any]) -> Crops:
        """Return a batch of the training loader on the device; without unlabelled crops while their stream rests."""
        labeled, *unlabeled = (
            {key: self._to_device(part[key]) for key in ("data", "target")}
            for part in (batch, batch.get("unlabeled"))
            if part
        )
        crops = unpack(labeled, unlabeled[0] if unlabeled else None, 1 + self.worker_views.strong)
        if self.device_views is None or not unlabeled:
            return crops
        with self.method_stream.active():
            sources, cases = crops.views or (crops.weak,) * self.strong_views, batch["unlabeled"]["keys"]
            views = [self.device_views(source, crops.inside, cases) for source in sources]
        return crops._replace(views=tuple(views))

    def loss_of(self, image: torch.Tensor) -> Any:
        """Return the loss of labelled crops with this ``image`` (b, c, *spatial)."""
        return self.loss

    def _supervised_backward(self, network: Any, crops: Crops, sync: bool) -> torch.Tensor:
        with nullcontext() if sync or not self.is_ddp else network.no_sync(), self._autocast():
            output = network(crops.image)
            criterion = self.loss_of(crops.image)
            if isinstance(output, (list, tuple)) or not isinstance(crops.label, list):
                loss = criterion(output, crops.label)
            else:  # a partner without deep supervision
                loss = criterion.loss(output, crops.full_label)
        self._backward(loss)
        return loss.detach()

    def pseudo_label_loss(
        self, output: Any, target: torch.Tensor, weight: torch.Tensor, valid: torch.Tensor, every_head: bool = True
    ) -> torch.Tensor:
        """Return cross-entropy plus soft Dice loss of a network output against pseudo-labels.

        Shapes and meaning are those of :func:`~nnunet_limited.losses.pseudo_label.segmentation_loss`. With
        ``every_head`` the deep-supervision heads take part with the weights that nnU-Net gives them, which add up to 1;
        without it, the finest head alone.
        """
        heads = self.heads(output, sum(w != 0 for w in self.head_weights) if every_head else 1)
        return deep_supervised_loss(heads, target, weight, valid, self.labels, self.head_weights[: len(heads)])

    def _to_device(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._to_device(v) for v in value]
        return value.to(self.device, non_blocking=True)

    # ---- logging -----------------------------------------------------------------------------------------------------

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Log the epoch's mean of every term."""
        super().on_train_epoch_end(train_outputs)
        collated = collate_outputs(train_outputs)
        means = {key: np.mean(collated[key], axis=0) for key in self.logged_keys if key in collated}
        if self.is_ddp:
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, means)
            means = {key: np.mean([g[key] for g in gathered], axis=0) for key in means}
        for key, value in means.items():
            self.logger.log(key, value.tolist(), self.current_epoch)
        self.logger.log("gradient_ratios", self.gradient_ratio, self.current_epoch)
        if self.config.log_pseudo_label_dice:
            with self.using_network(self.predictor_name):
                dice = self.hidden_labels.dice(self) if self.hidden_labels is not None else float("nan")
            self.logger.log("pseudo_label_dice", dice, self.current_epoch)

    def on_epoch_end(self) -> None:
        """Print our terms with nnU-Net's, and warn when the pseudo-labels have become useless."""
        for key in self.logged_keys:
            self.print_to_log_file(key, np.round(self.logger.get_value(key, step=-1), 4))
        if self.logger.get_value("unsupervised_weights", step=-1) > 0:
            shares = np.asarray(self.logger.get_value("pseudo_label_shares", step=-1))
            if (shares > 0).sum() <= self.labels.first_foreground:
                self.print_to_log_file(
                    "WARNING: all pseudo-labels used in this epoch, if any, were of one class. Lower "
                    "consistency_weight, raise start_fraction, or check that the labelled cases contain every class."
                )
            self._warn_of_a_teacher_behind()
        super().on_epoch_end()

    def _warn_of_a_teacher_behind(self) -> None:
        """Warn when the network that teaches and predicts has been worse than its student for five epochs."""
        if "student_dice" in self.logged_keys:
            student, teacher = (
                np.mean(self.logger.get_value(key, step=None)[-5:]) for key in ("student_dice", "mean_fg_dice")
            )
            setting = "ema_window" if self.config.ema_decay is None else "ema_decay"
            if student - teacher > 0.01:
                self.print_to_log_file(
                    f"WARNING: in the last epochs the pseudo-Dice of the {self.predictor_name} was "
                    f"{student - teacher:.3f} below that of the student. Lower {setting}."
                )
