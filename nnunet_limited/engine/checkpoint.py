"""Resume a run as if it had never stopped: nnU-Net's checkpoint and the state that it lacks."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nnunet_limited.engine.inputs import check_same
from nnunet_limited.engine.run import ABOUT, OF_FOLD, Run, with_defaults
from nnunet_limited.engine.starting_weights import check_leak
from nnunet_limited.errors import LimitedError
from nnunet_limited.util.files import replacing
from nnunet_limited.util.random_state import get_random_state, set_random_state
from nnunet_limited.util.weights import UNREADABLE, read_weights

KEY = "nnunet_limited"
FORMAT = 1
STATE = ("random_state", "streams", "buffers")  # restored at the end of the start; earlier versions had no buffers
OLDER = "delete it and continue from an older one"
FOREIGN = "get weights from somebody you trust, as numbers and arrays only"


def save(trainer: Any, file: Path, host_save: Callable[[Any], None]) -> None:
    """Write nnU-Net's checkpoint with the predictor as ``network_weights`` and our state under one key.

    ``host_save`` is nnU-Net's ``save_checkpoint``; it writes the student into memory, so that whatever it stores, now
    or in a later version, is stored. The file appears whole or not at all.
    """
    buffer = io.BytesIO()
    host_save(buffer)
    buffer.seek(0)
    content = read_weights(buffer, "a trainer may store numbers, texts and arrays only", f"checkpoint of {file.parent}")
    weights = {name: network.state_dict() for name, network in trainer.networks.items()}
    content["network_weights"] = weights.pop(trainer.predictor_name)
    content[KEY] = {
        "format": FORMAT,
        "networks": weights,
        "optimizers": {name: pair[0].state_dict() for name, pair in trainer.partner_optimizers.items()},
        "iteration": trainer.iteration,
        "record": trainer.run.record,
        "random_state": get_random_state(cuda=trainer.device.type == "cuda"),
        "streams": {name: stream.state for name, stream in trainer.streams.items()},
        "buffers": {name: tensor.clone() for name, tensor in trainer.buffers.items()},
    }
    with replacing(file) as temporary:
        torch.save(content, temporary)


def check_weights(file: Path, trainer: Any, run: Run) -> None:
    """Refuse pretrained weights that know labels that the run must not know, or that do not fit.

    Whether they fit is judged by nnU-Net's own rule, on a network that is thrown away.
    """
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    check_leak(file, read(file, FOREIGN), run)
    planned = run.planned
    manager, chosen = planned.managers(run.configuration)
    network = trainer.build_network_architecture(
        manager,
        chosen,
        determine_num_input_channels(manager, chosen, planned.dataset_json),
        planned.label_manager.num_segmentation_heads,
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            load_pretrained_weights(network, str(file), verbose=False)
    except (*UNREADABLE, AssertionError, TypeError) as error:
        raise LimitedError(
            f"-pretrained_weights {file} does not fit the network of plans {planned.name} ({error!s:.150}); "
            "give a checkpoint of a network of this shape"
        ) from error


def check(file: Path, trainer: Any, record: dict[str, Any]) -> None:
    """Refuse, before anything is written, a checkpoint that :func:`load` would refuse; tensors are not read."""
    _read(file, trainer, record, mmap=True)


def read(file: Path, remedy: str = OLDER, **options: Any) -> Any:
    """Return the content of a checkpoint on the CPU; refuse one with code, which nnU-Net would run."""
    return read_weights(file, remedy, **options)


def record_of(file: Path) -> dict[str, Any]:
    """Return the record of the run that wrote a checkpoint; {} if it is none of ours."""
    content = read(file, mmap=True)
    found: dict[str, Any] = content.get(KEY, {}).get("record", {}) if isinstance(content, dict) else {}
    return found


def _read(file: Path, trainer: Any, record: dict[str, Any], **options: Any) -> dict[str, Any]:
    name = trainer.__name__
    content = read(file, **options)
    owner = content.get("trainer_name") if isinstance(content, dict) else None
    if owner is None:
        raise LimitedError(f"checkpoint {file} is not a checkpoint of nnU-Net but holds {content!r:.40}; delete it")
    if owner != name:
        raise LimitedError(f"checkpoint {file} is of {owner}, not of {name}; continue it with -tr {owner}")
    if content.get(KEY, {}).get("format") != FORMAT:
        raise LimitedError(
            f"checkpoint {file} was not written by this version of nnunet_limited; train again without --c"
        )
    before = with_defaults(content[KEY]["record"], trainer.Config)
    for key, value in record.items():
        if key not in (*ABOUT, *OF_FOLD) and before.get(key) != value:
            raise LimitedError(
                f"checkpoint {file} was trained with {key} {before.get(key)}, this run has {value}; restore the plans "
                "and the split it was trained with"
            )
    check_same(file.parent, before, record)
    return content


def load(trainer: Any, file: Path, host_load: Callable[[str], None]) -> None:
    """Load what :func:`save` wrote; refuse files of other trainers, settings or splits, and broken ones."""
    content = _read(file, type(trainer), trainer.run.record)
    ours = content[KEY]
    host_load(str(file))
    weights = {**ours["networks"], trainer.predictor_name: content["network_weights"]}
    for key, network in trainer.networks.items():
        network.load_state_dict(weights[key])
    for key, (optimizer, _) in trainer.partner_optimizers.items():
        optimizer.load_state_dict(ours["optimizers"][key])
    trainer.iteration = ours["iteration"]
    # nnU-Net writes checkpoint_latest before it updates the best value of the same epoch.
    epochs = trainer.logger.get_value("ema_fg_dice", step=None)
    trainer._best_ema = max(epochs) if epochs else None
    trainer.resumed_state = {"buffers": {}, **{key: ours[key] for key in STATE if key in ours}}


def restore_random_state(trainer: Any, state: dict[str, Any]) -> None:
    """Restore buffers and random state; called last at start because building the loaders draws batches.

    The random state is that of the first process: others keep their own, or all would draw the same data.
    """
    for name, tensor in state["buffers"].items():
        trainer.buffers[name].copy_(tensor)
    if trainer.local_rank:
        return
    set_random_state(state["random_state"])
    for name, stream in trainer.streams.items():
        stream.state = state["streams"][name]
