"""Stop and go on as if never stopped: the host's checkpoint plus what it lacks."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nnunet_limited.data.random_state import get_random_state, set_random_state
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.files import replacing

if TYPE_CHECKING:
    from nnunet_limited.trainers.base import LimitedTrainer

KEY = "nnunet_limited"
FORMAT = 1


def save(trainer: LimitedTrainer, file: Path, host_save: Callable[[Any], None]) -> None:
    """Write the host's checkpoint with the predictor as ``network_weights`` and our state under one key.

    ``host_save`` is the host's ``save_checkpoint``; it writes the student into memory, so that whatever it stores, now
    or in a later version, is stored. The file appears whole or not at all.
    """
    buffer = io.BytesIO()
    host_save(buffer)
    buffer.seek(0)
    content = torch.load(buffer, map_location="cpu", weights_only=False)
    weights = {name: network.state_dict() for name, network in trainer.networks.items()}
    content["network_weights"] = weights.pop(trainer.predictor_name)
    loader = trainer.unlabeled_loader
    content[KEY] = {
        "format": FORMAT,
        "networks": weights,
        "iteration": trainer.iteration,
        "record": trainer.run.record,
        "random_state": get_random_state(cuda=trainer.device.type == "cuda"),
        "unlabeled_random_state": loader.stream.state if loader is not None else None,
    }
    with replacing(file) as temporary:
        torch.save(content, temporary)


def load(trainer: LimitedTrainer, file: Path, host_load: Callable[[str], None]) -> None:
    """Load what :func:`save` wrote; refuse files of other trainers, settings or splits, and broken ones."""
    try:
        content = torch.load(file, map_location=trainer.device, weights_only=False)
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, OSError, KeyError) as error:
        raise LimitedError(f"checkpoint {file} cannot be read; delete it and continue from an older one") from error
    name = type(trainer).__name__
    if not isinstance(content, dict) or content.get("trainer_name") != name:
        owner = content.get("trainer_name", "an unknown trainer") if isinstance(content, dict) else "an unknown program"
        raise LimitedError(f"checkpoint {file} is of {owner}, not of {name}; continue it with -tr {owner}")
    if content.get(KEY, {}).get("format") != FORMAT:
        raise LimitedError(
            f"checkpoint {file} was not written by this version of nnunet_limited; train anew without --c"
        )
    ours = content[KEY]
    for key, value in trainer.run.record.items():
        if ours["record"].get(key) != value:
            raise LimitedError(
                f"checkpoint {file} was trained with {key} {ours['record'].get(key)}, this run has {value}; restore "
                "the plans and the split it was trained with"
            )
    host_load(str(file))
    weights = {**ours["networks"], trainer.predictor_name: content["network_weights"]}
    for key, network in trainer.networks.items():
        network.load_state_dict(weights[key])
    trainer.iteration = ours["iteration"]
    # The host writes checkpoint_latest before it updates the best value of the same epoch.
    epochs = trainer.logger.get_value("ema_fg_dice", step=None)
    trainer._best_ema = max(epochs) if epochs else None
    trainer.resumed_state = {key: ours[key] for key in ("random_state", "unlabeled_random_state")}


def restore_random_state(trainer: LimitedTrainer, state: dict[str, Any]) -> None:
    """Restore the random state; called last at start because building the loaders draws batches."""
    set_random_state(state["random_state"])
    if trainer.unlabeled_loader is not None and state["unlabeled_random_state"] is not None:
        trainer.unlabeled_loader.stream.state = state["unlabeled_random_state"]
