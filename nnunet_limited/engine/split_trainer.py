"""nnU-Net's trainer on the labelled cases of a split: settings, data, start, saving and resuming."""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import autocast, distributed, nn

from nnunet_limited.data.sparse import IgnoreBeyondBorder, SparseDataset
from nnunet_limited.engine import checkpoint
from nnunet_limited.engine.holding import Holding
from nnunet_limited.engine.inputs import check_same, record_inputs, truth_files, truth_of
from nnunet_limited.engine.log import LimitedLogger
from nnunet_limited.engine.run import FINAL, Run, first_format, open_run, recorded_settings
from nnunet_limited.engine.settings import TrainerConfig, resolve, with_current_names
from nnunet_limited.engine.starting_weights import check_leak, given_weights, weights_digest
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.loaders import loader_attribute, without_benchmark
from nnunet_limited.host.plans import label_space
from nnunet_limited.losses.sparse import AnnotatedSamples
from nnunet_limited.networks.ema import unwrap
from nnunet_limited.planners.planned import PlannedData
from nnunet_limited.planners.preprocessing import DIGESTS, fingerprint_folder, require_preprocessed
from nnunet_limited.util.files import to_disk
from nnunet_limited.util.plans import check_networks
from nnunet_limited.util.provenance import digest_cache
from nnunet_limited.util.random_state import RandomStream, seed_everything

# Settings that are attributes of nnU-Net's trainer under the same name.
HOST_SETTINGS = (
    "num_epochs",
    "num_iterations_per_epoch",
    "num_val_iterations_per_epoch",
    "save_every",
    "initial_lr",
    "weight_decay",
    "oversample_foreground_percent",
)
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class SplitTrainer(nnUNetTrainer):
    """Base of all trainers: a run is one fold of a split, with settings from the plans, and can be continued."""

    Config: ClassVar[type[TrainerConfig]] = TrainerConfig
    config: Any
    network: Any
    optimizer: Any
    preprocessed_dataset_folder_base: Any
    uses_unlabeled: ClassVar[bool] = False
    runs_on_several_gpus: ClassVar[bool] = True
    # Stored pseudo-labels that it learns: none, those of a model, or those that several sources agree on.
    learns_pseudo_labels: ClassVar[Literal["none", "model", "sources"]] = "none"
    predictor_name: str = "student"
    # What runs with a record of format 1 computed otherwise, where no setting brings it back; "" for nothing.
    changed_since_format_1: ClassVar[str] = ""
    # Set by a short name, which is a subclass because nnU-Net names results after the class and after -tr.
    alias_of: ClassVar[str | None] = None

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),
    ) -> None:
        """Take nnU-Net's arguments; refuse what would not train as asked before anything is written."""
        self.run, self.config = self.open_run(PlannedData.of(plans), configuration, fold)
        several = distributed.is_available() and distributed.is_initialized()
        self.gpus = distributed.get_world_size() if several else 1
        self.check_start(self.run, self.config, self.gpus, trains=False)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.holding = Holding(self, self.run, self.uses_unlabeled)
        self.labels = label_space(self.label_manager)
        for name in HOST_SETTINGS:
            setattr(self, name, getattr(self.config, name))
        self.iteration = 0
        self.partners: dict[str, nn.Module] = {}
        self.predictor_name = self.predictor(self.config)
        self.partner_optimizers: dict[str, tuple[torch.optim.Optimizer, Any]] = {}
        self.resumed_state: dict[str, Any] | None = None
        self.logger.local_logger = LimitedLogger(self.logged_keys)

    @classmethod
    def resolve_config(cls, plans: dict[str, Any], begun: dict[str, Any] | None = None) -> Any:
        """Return this trainer's settings from the section ``limited`` of ``plans``.

        What the plans leave open is as in ``begun``, settings of runs that are there, and the default otherwise.
        """
        settings = with_current_names(plans.get("limited", {}).get("settings", {}))
        known = known_settings()
        before = {key: value for key, value in (begun or {}).items() if key in known}
        return resolve(cls.Config, before | settings, known, f"plans {plans.get('plans_name')}")

    @classmethod
    def open_run(cls, planned: PlannedData, configuration: str, fold: int | str) -> tuple[Run, Any]:
        """Return a run and its resolved settings; refuse a folder that holds one of other settings.

        Where folds were trained when defaults were others, these go on to hold, so that all folds are alike.
        """
        begun = recorded_settings(planned.results(cls.__name__, configuration), cls.Config)
        config = cls.resolve_config(planned.plans, begun)
        return open_run(cls.__name__, planned, configuration, fold, config), config

    @classmethod
    def predictor(cls, config: Any) -> str:
        """Return the name of the network that is validated and predicts with the settings ``config``."""
        return cls.predictor_name

    @property
    def logged_keys(self) -> tuple[str, ...]:
        """Return the log keys this trainer adds to nnU-Net's."""
        return ()

    @classmethod
    def refuse_unsuitable(cls, configuration: dict[str, Any], config: Any) -> None:
        """Raise LimitedError if this trainer cannot train the plans' ``configuration`` with the settings ``config``."""
        reason = cls.unsuitable(configuration, config)
        if reason:
            raise LimitedError(f"{cls.__name__}: {reason}")

    @classmethod
    def check_start(cls, run: Run, config: Any, gpus: int, trains: bool) -> None:
        """Refuse what cannot be trained; nnU-Net's command and ours both ask here, before anything is written.

        A run that does not train (``trains``), but validates, needs no unlabelled cases.
        """
        check_networks(run.planned.plans, run.planned.folder / f"{run.planned.name}.json")
        planned = run.planned.configuration(run.configuration)
        cls.refuse_unsuitable({**planned, "batch_size": planned["batch_size"] // gpus}, config)
        if gpus > 1 and not cls.runs_on_several_gpus:
            raise LimitedError(f"{cls.__name__} trains on one GPU only; remove -num_gpus")
        ours = f"nnunet-limited plan {run.planned.dataset} --split {run.split.name} -c {run.configuration}"
        remedy = f"run '{ours if run.planned.is_bound else 'nnUNetv2_plan_and_preprocess'}'"
        run.planned.check_edited(run.configuration)
        require_preprocessed(run.labeled_folder, {*run.fold.train, *run.fold.val}, "labelled", remedy)
        record_inputs(run, cls.uses_unlabeled, remedy)
        for file in truth_files(run).values():
            if not file.is_file():
                raise LimitedError(f"{file} does not exist, on which the end of a training is validated; {remedy}")
        if trains:
            cls.check_unlabeled(run, config)
        check_same(run.results, run.begun, run.record)

    @classmethod
    def unsuitable(cls, configuration: dict[str, Any], config: Any) -> str | None:
        """Return why this trainer cannot train the plans' ``configuration`` and what to do instead; None if it can."""
        return None

    @classmethod
    def check_unlabeled(cls, run: Run, config: Any) -> None:
        """Raise LimitedError if what the trainer needs of the unlabelled cases of ``run`` is not there."""

    # ---- start -------------------------------------------------------------------------------------------------------

    def initialize(self) -> None:
        """Build the network as nnU-Net does, from the seed if there is one; check weights that it is to start from."""
        if file := given_weights():
            checkpoint.read(file, checkpoint.FOREIGN, mmap=True)
        if self.config.seed is not None:
            seed_everything(self.config.seed + self.local_rank)
        threads = os.environ.get("OMP_NUM_THREADS", "")
        if self.device.type == "cpu" and threads.isdigit():  # nnU-Net takes every core, those of other runs too
            torch.set_num_threads(max(1, int(threads)))
        super().initialize()
        self.prepare_for_cpu(self.network)

    def cpu_autocast(self, cache: bool = True) -> AbstractContextManager[Any]:
        """Return a context in which networks compute in bfloat16, if the settings ask for it and the CPU can.

        The outputs of networks are float32 (:meth:`prepare_for_cpu`), so that losses are as precise as without it.
        """
        if self.device.type == "cpu" and self.config.cpu_autocast and has_bfloat16():
            return autocast("cpu", torch.bfloat16, cache_enabled=cache)
        return nullcontext()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do nnU-Net's step."""
        with self.cpu_autocast():
            return super().train_step(batch)

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do nnU-Net's step."""
        with self.cpu_autocast():
            return super().validation_step(batch)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate as nnU-Net does, and record on which labels."""
        if self.local_rank == 0:
            self.holding.take(wait=True)
        truth = truth_of(self.run)
        with self.cpu_autocast():
            super().perform_actual_validation(save_probabilities)
        if self.local_rank == 0:
            self.run.check_predictions()
            if (self.run.results / FINAL).is_file():  # not with --disable_checkpointing
                self.run.record_validation(truth)
        self.holding.release()

    def prepare_for_cpu(self, network: nn.Module) -> nn.Module:
        """Return the network; on a CPU with channels last and outputs of float32 if the settings ask for it."""
        if self.device.type != "cpu":
            return network
        if self.config.channels_last:
            for parameter in network.parameters():
                if parameter.dim() in CHANNELS_LAST:
                    parameter.data = parameter.data.contiguous(memory_format=CHANNELS_LAST[parameter.dim()])
        if self.config.cpu_autocast:
            network.register_forward_hook(_to_float32)
        return network

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """Return nnU-Net's SGD, or AdamW with the same decay of the learning rate."""
        if self.config.optimizer == "sgd":
            return super().configure_optimizers()
        optimizer = torch.optim.AdamW(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return self.with_decay(optimizer, self.initial_lr)

    def with_decay(self, optimizer: torch.optim.Optimizer, rate: float) -> tuple[torch.optim.Optimizer, Any]:
        """Return an optimizer with nnU-Net's polynomial decay of its learning rate from ``rate`` on."""
        return optimizer, PolyLRScheduler(optimizer, rate, self.num_epochs)

    @property
    def sparse_ignore(self) -> int | None:
        """Return the value of the ignore label if labels are to be taken for sparse and there is one."""
        return self.labels.ignore if self.config.sparse_labels else None

    def _build_loss(self) -> Any:
        """Return nnU-Net's loss; for sparse labels, over the samples that have an annotated voxel."""
        loss: Any = super()._build_loss()
        if self.sparse_ignore is None or self.configuration_manager.batch_dice:  # which is not a mean over samples
            return loss
        if not self.enable_deep_supervision:
            return AnnotatedSamples(loss, self.labels)
        loss.loss = AnnotatedSamples(loss.loss, self.labels)
        return loss

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> Any:
        """Return nnU-Net's transforms; for sparse labels, with what lies beyond the borders of sparse cases ignored."""
        pipeline: Any = super().get_training_transforms(*args, **kwargs)
        if self.sparse_ignore is not None and kwargs.get("ignore_label") is not None:
            names = [type(transform).__name__ for transform in pipeline.transforms]
            pipeline.transforms.insert(names.index("RemoveLabelTransform"), IgnoreBeyondBorder(self.sparse_ignore))
        return pipeline

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """Return nnU-Net's datasets; for sparse labels, the training one marks its sparse cases."""
        train, val = super().get_tr_and_val_datasets()
        if self.sparse_ignore is not None:
            train = SparseDataset(train.source_folder, train.identifiers, self.sparse_ignore)
        return train, val

    def do_split(self) -> tuple[list[str], list[str]]:
        """Return labelled and validation cases of the fold."""
        return list(self.run.fold.train), list(self.run.fold.val)

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Return nnU-Net's loaders, repeatable if there is a seed."""
        train, val = super().get_dataloaders()
        if self.config.seed is not None:
            without_benchmark(getattr(train, loader_attribute(train)).transforms)
        return train, val

    def prepare_data(self) -> None:
        """Make the data that a training needs and planning has not made."""

    def on_train_start(self) -> None:
        """Start as nnU-Net does, and restore the random state of a resumed run last; hold the fold until the end."""
        if self.local_rank == 0:
            self.holding.take()
        self.check_start(self.run, self.config, self.gpus, trains=True)
        self.prepare_data()
        host_folder = self.preprocessed_dataset_folder_base
        if self.run.planned.is_bound:  # nnU-Net copies dataset_fingerprint.json from here; ours is that of the split
            fingerprint = fingerprint_folder(Path(host_folder), self.plans_manager.plans_name)
            if not (fingerprint / "dataset_fingerprint.json").is_file():
                raise LimitedError(f"{fingerprint} has no dataset_fingerprint.json; run 'nnunet-limited plan' again")
            self.preprocessed_dataset_folder_base = str(fingerprint)
        try:
            super().on_train_start()
        finally:
            self.preprocessed_dataset_folder_base = host_folder
        if self.resumed_state is not None:
            checkpoint.restore_random_state(self, self.resumed_state)
        if self.local_rank == 0:
            self.run.record["weights"] = self.starting_weights()
            self.run.write_record()
            for name in ("plans.json", "dataset.json"):  # which nnU-Net has just written
                to_disk(self.run.results.parent / name)
            digest_cache(self.run.planned.folder / DIGESTS).save()
        self._print_run()

    def on_train_end(self) -> None:
        """End as nnU-Net does, and let others work on the fold."""
        super().on_train_end()
        self.holding.release()

    def starting_weights(self) -> str | None:
        """Return the digest of the weights that the run started from, for its record; None for random ones."""
        if self.resumed_state is not None:
            return self.run.begun.get("weights")
        file = given_weights()
        if file is not None:
            check_leak(file, checkpoint.read(file, checkpoint.FOREIGN), self.run)
        return weights_digest(file)

    def _print_run(self) -> None:
        fold = self.run.fold
        settings = ", ".join(f"{key}={value}" for key, value in self.config.model_dump().items())
        self.print_to_log_file(
            f"{type(self).__name__}: split {self.run.split.name} ({self.run.split.hash}), {len(fold.train)} labelled, "
            f"{len(fold.unlabeled) if self.uses_unlabeled else 0} unlabelled, {len(fold.val)} validation cases; "
            f"{settings}"
        )
        mine, today = self.config.model_dump(), self.resolve_config(self.plans_manager.plans).model_dump()
        before = [f"{key}={value} (now {today[key]})" for key, value in mine.items() if value != today[key]]
        if before:
            self.print_to_log_file(
                f"Settings that this run began with, whose defaults have changed since: {', '.join(before)}; they hold "
                "for every fold in this results folder."
            )
        if self.changed_since_format_1 and first_format(self.run.results.parent) < 2:
            self.print_to_log_file(
                "warning: a run in this results folder began with an earlier version, which computed otherwise: "
                f"{self.changed_since_format_1}."
            )
        if set(fold.train) & set(fold.val):
            self.print_to_log_file(
                "Some validation cases are training cases too: the validation Dice is not informative for them."
            )
        if self.uses_unlabeled and self.label_manager.has_ignore_label and not self.config.sparse_labels:
            self.print_to_log_file("Ignored voxels are not used; --set sparse_labels=true treats them as unlabelled.")
        if not self.run.planned.is_bound:
            self.print_to_log_file("These plans are not bound to a split: they may have been made from hidden labels.")

    # ---- saving, resuming --------------------------------------------------------------------------------------------

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Return the student and its partners, unwrapped."""
        return {"student": unwrap(self.network), **{name: unwrap(net) for name, net in self.partners.items()}}

    @property
    def streams(self) -> dict[str, RandomStream]:
        """Return the random streams besides the global one; they are saved and resumed."""
        return {}

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """Return tensors besides those of networks that change in training; they are saved and resumed."""
        return {}

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Switch deep supervision of every network that has a decoder."""
        for network in self.networks.values():
            decoder: Any = getattr(network, "decoder", None)
            if hasattr(decoder, "deep_supervision"):
                decoder.deep_supervision = enabled

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's checkpoint at once, with ``network_weights`` to predict with and all else under our key."""
        if self.local_rank == 0 and not self.disable_checkpointing:
            checkpoint.save(self, Path(filename), super().save_checkpoint)

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        """Resume from a checkpoint of this trainer with these settings; anything else is refused."""
        if self.local_rank == 0:
            self.holding.take()  # or another process may write a newer one
        if not self.was_initialized:
            self.initialize()
        checkpoint.load(self, Path(filename_or_checkpoint), super().load_checkpoint)


def has_bfloat16() -> bool:
    """Return whether this CPU has instructions for bfloat16; without them it is slower than float32."""
    tests = (getattr(torch.cpu, name, bool) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(test() for test in tests)


def _to_float32(network: nn.Module, inputs: Any, output: Any) -> Any:
    return [head.float() for head in output] if isinstance(output, (list, tuple)) else output.float()


def trainer_classes() -> list[type[SplitTrainer]]:
    """Return every trainer there is, the base and the user's own subclasses too."""
    classes: list[type[SplitTrainer]] = list(SplitTrainer.__subclasses__())
    for cls in classes:
        classes.extend(cls.__subclasses__())  # the list grows while it is walked
    return classes


def known_settings() -> set[str]:
    """Return the settings that any trainer understands."""
    return {key for cls in trainer_classes() for key in cls.Config.model_fields}
