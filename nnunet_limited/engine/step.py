"""The shared training step. A method adds what is special to it and nothing else; see ``mean_teacher.py``."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.utilities.collate_outputs import collate_outputs
from torch import autocast, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from nnunet_limited.data.crops import Crops, Unsupervised, unpack
from nnunet_limited.data.geometry import StudentView
from nnunet_limited.data.loaders import TwoStreamLoader, UnlabeledDataset, UnlabeledLoader
from nnunet_limited.data.sparse import UnannotatedDataset
from nnunet_limited.data.strong_views import StrongViews
from nnunet_limited.data.views import Views
from nnunet_limited.engine.hidden_dice import HiddenLabelDice
from nnunet_limited.engine.run import Run, check_unlabeled, preprocess_unlabeled
from nnunet_limited.engine.settings import SemiSupervisedConfig, TrainerConfig
from nnunet_limited.engine.split_trainer import SplitTrainer
from nnunet_limited.engine.unlabeled_crops import crops_loader, record_foreground
from nnunet_limited.engine.views import device_views, student_view, unsuitable_views, worker_views
from nnunet_limited.host.loaders import loader_attribute, without_benchmark
from nnunet_limited.losses.consistency import entropy_limit, masked_mean, rampup
from nnunet_limited.losses.pseudo_label import deep_supervised_loss
from nnunet_limited.networks.perturb import NOT_PERTURBABLE, can_perturb
from nnunet_limited.util.random_state import RandomStream


class LimitedTrainer(SplitTrainer):
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
    supervised_partners: tuple[str, ...] = ()
    strong_views: ClassVar[int] = 1
    perturbs_features: ClassVar[bool] = False
    mixes_crops: ClassVar[bool] = False
    student_view: StudentView
    worker_views: Views
    device_views: StrongViews | None
    unlabeled_loader: TwoStreamLoader | None = None
    hidden_labels: HiddenLabelDice | None = None

    @property
    def logged_keys(self) -> tuple[str, ...]:
        """Return the log keys this trainer adds to nnU-Net's."""
        keys = ["supervised_losses", "unsupervised_losses", "unsupervised_weights"]
        keys += ["pseudo_label_shares", "counted_shares"]
        return (*keys, "pseudo_label_dice") if self.config.log_pseudo_label_dice else tuple(keys)

    # ---- what a method overrides -------------------------------------------------------------------------------------

    def make_partners(self) -> dict[str, nn.Module]:
        """Return the networks besides the student, by name.

        They are moved, saved and resumed with it; those with trainable parameters are also compiled, wrapped for DDP
        and given an optimizer, and those named in ``supervised_partners`` learn from the labelled crops.
        """
        return {}

    def make_partner_optimizer(self, name: str) -> tuple[torch.optim.Optimizer, Any]:
        """Return optimizer and schedule of a trainable partner, which are those of the student."""
        with self.using_network(name):
            return self.configure_optimizers()

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

    def initialize(self) -> None:
        """Build the student as nnU-Net does, then the partners, whose random numbers do not change the student's."""
        super().initialize()
        self.method_stream = RandomStream(self._seed(1))
        with self.method_stream.active():
            made = self.make_partners()
        for name, partner in made.items():
            self.partners[name] = self.to_channels_last(partner.to(self.device))
            if not any(parameter.requires_grad for parameter in partner.parameters()):
                continue
            if self._do_i_compile():
                self.partners[name] = torch.compile(self.partners[name])  # type: ignore[assignment]
            self.partner_optimizers[name] = self.make_partner_optimizer(name)
            if self.is_ddp:
                synced = nn.SyncBatchNorm.convert_sync_batchnorm(self.partners[name])
                self.partners[name] = DistributedDataParallel(synced, device_ids=[self.local_rank])

    def _build_loss(self) -> Any:
        """Return the loss on labelled crops, and keep the weights of the heads in it, the finest first."""
        loss: Any = super()._build_loss()
        self.head_weights = [float(weight) for weight in getattr(loss, "weight_factors", (1.0,))]
        return loss

    def _seed(self, stream: int) -> tuple[int, ...] | None:
        seed = self.config.seed
        return None if seed is None else (seed, self.local_rank, self.iteration, stream)

    def new_network(self) -> nn.Module:
        """Return a network like the student with weights of its own."""
        return self.build_network_architecture(
            self.plans_manager,
            self.configuration_manager,
            self.num_input_channels,
            self.labels.channels,
            self.enable_deep_supervision,
        )

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
        total = self.num_epochs * self.num_iterations_per_epoch
        since_start = self.iteration - self.config.start_fraction * total
        length = self.config.rampup_fraction * total
        return since_start / length if length else (1.0 if since_start >= 0 else -1.0)

    @property
    def entropy_limit(self) -> float:
        """Return the largest entropy of a confident voxel, as a fraction of the largest possible one.

        It rises over the whole run and not with the weight of the unsupervised loss, so that some voxels are left out
        until the end.
        """
        done = self.iteration / (self.num_epochs * self.num_iterations_per_epoch)
        return entropy_limit(done) * self.labels.boundary_entropy

    @property
    def unsupervised_weight(self) -> float:
        """Return the weight of the unsupervised loss at the current iteration."""
        return float(self.config.consistency_weight * rampup(self.progress)) if self.progress >= 0 else 0.0

    def on_train_epoch_start(self) -> None:
        """Start as nnU-Net does, the trainable partners too."""
        super().on_train_epoch_start()
        for name, (_, schedule) in self.partner_optimizers.items():
            self.partners[name].train()
            schedule.step(self.current_epoch)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do one optimizer step on the labelled batch and, once it has weight, on the unlabelled one."""
        weight = self.unsupervised_weight
        crops = self.crops(batch)
        for optimizer in (self.optimizer, *(optimizer for optimizer, _ in self.partner_optimizers.values())):
            optimizer.zero_grad(set_to_none=True)
        supervised = self._supervised_backward(self.network, crops, sync=not weight)
        for name in self.supervised_partners:
            self._supervised_backward(self.partners[name], crops, sync=not weight)
        terms = [supervised, torch.zeros_like(supervised), torch.zeros_like(supervised)]
        shares = torch.zeros(self.labels.channels, device=self.device)
        if weight:
            # Without the cache, or weights cast under no_grad would be reused without gradient.
            with self._autocast(cache=False), self.method_stream.active():
                loss, pseudo, partner_loss, valid = self.unsupervised_loss(crops)
            self._backward(weight * loss if partner_loss is None else weight * loss + partner_loss)
            valid = crops.valid if valid is None else valid
            terms[1], terms[2] = loss.detach(), masked_mean(valid.float(), crops.valid)
            shares = self.labels.class_fractions(pseudo, valid)
        self._optimizer_step()
        self.after_step()
        if weight:
            record_foreground(self, batch["unlabeled"], pseudo, crops.valid)
        self.iteration += 1
        values = torch.cat([torch.stack(terms).float(), shares.float()]).cpu().numpy()
        return {
            "loss": values[0] + weight * values[1] if weight else values[0],
            "supervised_losses": values[0],
            "unsupervised_losses": values[1],
            "unsupervised_weights": weight,
            "counted_shares": values[2],
            "pseudo_label_shares": values[3:],
        }

    def crops(self, batch: dict[str, Any]) -> Crops:
        """Return a batch of the training loader on the device."""
        labeled, unlabeled = (
            {key: self._to_device(part[key]) for key in ("data", "target")} for part in (batch, batch["unlabeled"])
        )
        crops = unpack(labeled, unlabeled, 1 + self.worker_views.strong)
        if self.device_views is None:
            return crops
        with self.method_stream.active():
            sources, cases = crops.views or (crops.weak,) * self.strong_views, batch["unlabeled"]["keys"]
            views = [self.device_views(source, crops.inside, cases) for source in sources]
        return crops._replace(views=tuple(views))

    def _supervised_backward(self, network: Any, crops: Crops, sync: bool) -> torch.Tensor:
        with nullcontext() if sync or not self.is_ddp else network.no_sync(), self._autocast():
            output = network(crops.image)
            if isinstance(output, (list, tuple)) or not isinstance(crops.label, list):
                loss = self.loss(output, crops.label)
            else:  # a partner without deep supervision
                loss = self.loss.loss(output, crops.full_label)
        self._backward(loss)
        return loss.detach()

    def full_resolution(self, output: Any) -> torch.Tensor:
        """Return the full-resolution head of a network output."""
        return self.heads(output, 1)[0]

    def heads(self, output: Any, count: int) -> list[torch.Tensor]:
        """Return the ``count`` finest heads of a network output (all, if there are fewer).

        Under DistributedDataParallel every head must take part in every backward pass; the others join with weight 0.
        """
        if not isinstance(output, (list, tuple)):
            return [output]
        used, others = list(output[:count]), output[count:]
        if self.is_ddp and others and used[0].requires_grad:
            used[0] = used[0] + 0.0 * sum(head.mean() for head in others)
        return used

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

    def probabilities(self, output: Any) -> torch.Tensor:
        """Return the float32 probabilities of the full-resolution head of a network output."""
        return self.labels.probabilities(self.full_resolution(output))

    def _to_device(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._to_device(v) for v in value]
        return value.to(self.device, non_blocking=True)

    def _autocast(self, cache: bool = True) -> AbstractContextManager[Any]:
        return autocast("cuda", cache_enabled=cache) if self.device.type == "cuda" else nullcontext()

    def _backward(self, loss: torch.Tensor) -> None:
        (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()

    def _optimizer_step(self) -> None:
        """Clip and step each network by itself; one without gradient in this step is left alone."""
        pairs = [(self.network, self.optimizer)]
        pairs += [(self.partners[name], optimizer) for name, (optimizer, _) in self.partner_optimizers.items()]
        pairs = [pair for pair in pairs if any(p.grad is not None for p in pair[0].parameters())]
        for network, optimizer in pairs:
            if self.grad_scaler is not None:
                self.grad_scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(network.parameters(), 12)
            optimizer.step() if self.grad_scaler is None else self.grad_scaler.step(optimizer)
        if self.grad_scaler is not None:
            self.grad_scaler.update()

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
        super().on_epoch_end()

    # ---- validation --------------------------------------------------------------------------------------------------

    @contextmanager
    def using_network(self, name: str) -> Iterator[None]:
        """Make ``self.network`` the network called ``name`` for the duration of the context."""
        student = self.network
        if name != "student":
            self.network = self.partners[name]
        try:
            yield
        finally:
            self.network = student

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Validate the network to predict with."""
        with self.using_network(self.predictor_name):
            return super().validation_step(batch)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate the network to predict with."""
        with self.using_network(self.predictor_name):
            super().perform_actual_validation(save_probabilities)
