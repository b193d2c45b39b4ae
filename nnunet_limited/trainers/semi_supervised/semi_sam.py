"""SemiSAM, a mean teacher with a promptable model beside it (Zhang et al., BIBM 2024, arXiv 2312.06316)."""

from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.engine.run import Run
from nnunet_limited.engine.settings import TrainerConfig
from nnunet_limited.errors import LimitedError
from nnunet_limited.losses.consistency import mean_squared_difference, rampup
from nnunet_limited.prompters.outlining import iou, outline
from nnunet_limited.prompters.prompter import find_prompter
from nnunet_limited.prompters.prompts import PromptSettings
from nnunet_limited.trainers.semi_supervised.mean_teacher import LimitedMeanTeacherTrainer, MeanTeacherConfig


class SemiSAMConfig(MeanTeacherConfig):
    """Settings of SemiSAM."""

    prompter: str | None = Field(None, description="promptable model (required), e.g. sam:FOLDER or tiny-vit:FILE.pt")
    prompter_weight: float = Field(
        0.5, ge=0, description="initial weight of the loss against the masks of the promptable model; it decreases"
    )
    prompter_every: int = Field(10, ge=1, description="steps between two uses of the promptable model")
    prompter_slices: int = Field(4, ge=1, description="random slices of a crop that the promptable model outlines")
    prompter_agreement: float = Field(
        0.5, ge=0, le=1, description="smallest IoU of the promptable model with the teacher in a slice that is used"
    )
    prompter_channel: int = Field(0, ge=0, description="image channel that the promptable model sees")


class LimitedSemiSAMTrainer(LimitedMeanTeacherTrainer):
    """A mean teacher whose predictions prompt a frozen model of the SAM family; the student trains on both.

    The prompts are boxes around the predictions of the teacher in some slices of an unlabelled crop. Where its
    mask and the prediction overlap enough, the target is the mean of the two; the weight of this loss falls over the
    run to less than a hundredth. In the published code prompts come from the hidden labels; here they cannot.
    The time of a step does not include the promptable model. The published ``consistency_weight`` is 0.1, next to
    nothing beside nnU-Net's loss (see the mean teacher); ``prompter_weight`` is relative to it.
    """

    Config: ClassVar[type[TrainerConfig]] = SemiSAMConfig

    @classmethod
    def check_unlabeled(cls, run: Run, config: Any) -> None:
        """Refuse a run without a promptable model, or with another one than it has begun with."""
        super().check_unlabeled(run, config)
        if config.prompter is None:
            raise LimitedError(f"{cls.__name__} needs a promptable model; give e.g. --set prompter=sam:FOLDER")
        prompter = find_prompter(config.prompter)
        if prompter.ndim != 2:
            raise LimitedError(f"prompter={config.prompter} outlines volumes; give one for slices, e.g. sam:FOLDER")
        run.record_input("prompter", prompter.about.hash)

    def on_train_start(self) -> None:
        """Load the promptable model, which only training needs."""
        channels = self.run.planned.description.num_channels
        if self.config.prompter_channel >= channels:
            raise LimitedError(
                f"prompter_channel={self.config.prompter_channel}, but the images have {channels} channels, counted "
                "from 0; give another one"
            )
        super().on_train_start()
        self.prompter = find_prompter(self.config.prompter, self.device.type)
        self.print_to_log_file(f"Prompts go to {self.prompter.about}")

    @property
    def prompter_weight(self) -> float:
        """Return the weight of the promptable model, which falls as that of the teacher rises."""
        total = self.total_steps
        begin = self.start_step
        return float(self.config.prompter_weight * rampup(1 - (self.iteration - begin) / (total - begin)))

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the mean teacher's loss and, every some steps, that against the mean of teacher and prompted model."""
        taught = self.teach(crops.weak)
        target, answered = taught, torch.zeros_like(crops.valid)
        if self.iteration % self.config.prompter_every == 0:
            target, answered = self.prompted(crops.weak, taught, crops.valid)
        image, expected, valid, target, answered = self.student_view(
            crops.strong, taught, crops.valid, target, answered
        )
        prediction = self.probabilities(self.network(image))
        loss = mean_squared_difference(prediction, expected, valid)
        loss = loss + self.prompter_weight * mean_squared_difference(prediction, target, answered)
        return Unsupervised(loss, taught)

    @torch.no_grad()
    def prompted(
        self, image: torch.Tensor, taught: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean of teacher and prompted model (u, c, *spatial) and where there is one (u, 1, *spatial)."""
        target, answered = taught.clone(), torch.zeros_like(valid)
        settings = PromptSettings(boxes=1, channel=self.config.prompter_channel)
        rng = np.random.default_rng(np.random.randint(2**31))
        for number, guess in enumerate(taught.float() * valid):
            shown, seen = (v.cpu().numpy() for v in (image[number, settings.channel].float(), guess))
            if shown.ndim == 2:
                shown, seen = shown[None], seen[:, None]
            foreground = seen[self.labels.first_foreground :]
            having = np.flatnonzero((foreground > 0.5).any((0, 2, 3)))
            if not having.size:
                continue
            chosen = np.sort(rng.permutation(having)[: self.config.prompter_slices])
            made = outline(self.prompter, shown[chosen], foreground[:, chosen], (2.0, 1.0, 1.0), settings, rng)
            known = np.isfinite(made.probability)  # elsewhere the teacher's prediction stays
            said = self.labels.with_background(np.where(known, made.probability, foreground[:, chosen]))
            for k, place in enumerate(chosen):
                asked = known[:, k].any((1, 2))
                pairs = zip(made.probability[asked, k] > 0.5, foreground[asked, place] > 0.5, strict=True)
                if not asked.any() or np.mean([iou(*pair) for pair in pairs]) < self.config.prompter_agreement:
                    continue
                where = (number, slice(None)) if image.ndim == 4 else (number, slice(None), int(place))
                both = (target[where] + torch.from_numpy(said[:, k]).to(target)) / 2
                target[where] = torch.where(valid[where], both, target[where])
                answered[where] = valid[where]
        return target, answered
