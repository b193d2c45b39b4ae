"""nnU-Net's trainer with further networks beside the student, its partners: a teacher, a second network, a decoder."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import autocast, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from nnunet_limited.engine.split_trainer import SplitTrainer
from nnunet_limited.util.random_state import RandomStream

COUNTS = ("tp_hard", "fp_hard", "fn_hard")  # of a validation step


class PartnersTrainer(SplitTrainer):
    """A student with partners that are moved, saved, resumed and, where they are trainable, optimised with it.

    The network called ``predictor_name`` is validated and predicts.
    """

    supervised_partners: tuple[str, ...] = ()

    @property
    def logged_keys(self) -> tuple[str, ...]:
        """Return the log key of the student's pseudo-Dice, where nnU-Net's is that of another network."""
        return () if self.predictor_name == "student" else ("student_dice",)

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

    # ---- start -------------------------------------------------------------------------------------------------------

    def initialize(self) -> None:
        """Build the student as nnU-Net does, then the partners, whose random numbers do not change the student's."""
        super().initialize()
        self.method_stream = RandomStream(self._seed(1))
        with self.method_stream.active():
            made = self.make_partners()
        for name, partner in made.items():
            self.partners[name] = self.prepare_for_cpu(partner.to(self.device))
            if not any(parameter.requires_grad for parameter in partner.parameters()):
                continue
            if self._do_i_compile():
                self.partners[name] = torch.compile(self.partners[name])  # type: ignore[assignment]
            self.partner_optimizers[name] = self.make_partner_optimizer(name)
            if self.is_ddp:
                synced = nn.SyncBatchNorm.convert_sync_batchnorm(self.partners[name])
                self.partners[name] = DistributedDataParallel(synced, device_ids=[self.local_rank])

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

    def on_train_epoch_start(self) -> None:
        """Start as nnU-Net does, the trainable partners too."""
        super().on_train_epoch_start()
        for name, (_, schedule) in self.partner_optimizers.items():
            self.partners[name].train()
            schedule.step(self.current_epoch)

    # ---- passes and steps --------------------------------------------------------------------------------------------

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

    def probabilities(self, output: Any) -> torch.Tensor:
        """Return the float32 probabilities of the full-resolution head of a network output."""
        return self.labels.probabilities(self.full_resolution(output))

    def _autocast(self, cache: bool = True) -> AbstractContextManager[Any]:
        return autocast("cuda", cache_enabled=cache) if self.device.type == "cuda" else self.cpu_autocast(cache)

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
        """Validate the network to predict with, and the student too where that is another one."""
        if self.predictor_name == "student":
            return super().validation_step(batch)
        target = batch["target"]  # nnU-Net replaces ignored voxels in place
        copied = [part.clone() for part in target] if isinstance(target, list) else target.clone()
        student = super().validation_step({**batch, "target": copied})
        return self.predictor_validation_step(batch) | {f"student_{key}": student[key] for key in COUNTS}

    def predictor_validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do nnU-Net's validation step with the network to predict with."""
        with self.using_network(self.predictor_name):
            return super().validation_step(batch)

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """Log the pseudo-Dice of the predicting network as nnU-Net does, and that of the student beside it."""
        super().on_validation_epoch_end(val_outputs)
        if "student_dice" not in self.logged_keys:
            return
        counts = np.stack([[output[f"student_{key}"] for key in COUNTS] for output in val_outputs]).sum(0)
        if self.is_ddp:
            gathered: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, counts)
            counts = np.sum(gathered, axis=0)
        true, false_positive, false_negative = counts
        dice = np.nanmean(2 * true / (2 * true + false_positive + false_negative))
        self.logger.log("student_dice", float(dice), self.current_epoch)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate the network to predict with."""
        with self.using_network(self.predictor_name):
            super().perform_actual_validation(save_probabilities)
