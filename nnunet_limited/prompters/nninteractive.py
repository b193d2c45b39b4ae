"""nnInteractive, which outlines in 3D (Isensee et al., 2025, arXiv 2503.08373)."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_limited.errors import LimitedError
from nnunet_limited.prompters.prompter import ModelCard, check_prompts, read_folder, reading_weights
from nnunet_limited.util.extras import require_extra
from nnunet_limited.util.files import file_hash, read_object
from nnunet_limited.util.plans import check_networks
from nnunet_limited.util.weights import read_weights

ASSUMED = "CC BY-NC-SA 4.0"  # licence of the official weights, for a folder without a licence file
CHECKPOINT = "fold_0/checkpoint_final.pth"


class NNInteractive:
    """A session of nnInteractive; a 3D box becomes a 2D box through its middle across each axis."""

    ndim = 3
    prompts = frozenset({"box", "point", "mask"})

    def __init__(self, session: Any, about: ModelCard) -> None:
        """Take a session with its weights loaded."""
        self.session, self.about = session, about
        self.shown: np.ndarray | None = None

    def embed(self, image: np.ndarray) -> np.ndarray:
        """Return the volume itself, which the session needs for every prompt."""
        if image.ndim != 3:
            raise LimitedError(f"an image of shape {image.shape} is not a volume; {self.about.name} takes three axes")
        return np.ascontiguousarray(image, np.float32)

    def predict(
        self,
        embedding: np.ndarray,
        *,
        boxes: np.ndarray | None = None,
        points: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        mask_logits: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return masks as probabilities 0 and 1 (n, *spatial) and ones (n,); see :class:`Prompter`."""
        count = check_prompts(
            embedding.shape, self.prompts, {"box": boxes, "point": points, "mask": mask_logits}, labels
        )
        made = []
        with contextlib.redirect_stdout(sys.stderr):  # nnInteractive prints durations
            if self.shown is not embedding:
                self.session.set_image(embedding[None])
                self.shown = embedding
            for number in range(count):
                self.session.set_target_buffer(torch.zeros(embedding.shape, dtype=torch.uint8))
                self.session.reset_interactions()
                if mask_logits is not None:
                    self.session.add_initial_seg_interaction((mask_logits[number] > 0).astype(np.uint8))
                for box in middle_boxes(boxes[number]) if boxes is not None else ():
                    self.session.add_bbox_interaction(box, include_interaction=True)
                if points is not None and labels is not None:
                    for point, inside in zip(points[number], labels[number], strict=True):
                        place = tuple(int(index) for index in point)
                        self.session.add_point_interaction(place, include_interaction=bool(inside))
                made.append(np.asarray(self.session.target_buffer, np.float32))
        return np.stack(made), np.ones(count, np.float32)


def middle_boxes(box: np.ndarray) -> list[list[list[int]]]:
    """Return a 3D box (2, 3) as the 2D boxes through its middle, one across each axis: [start, stop] of every axis."""
    start, stop = box.astype(int)
    middle = (start + stop - 1) // 2
    flat = np.stack([middle, middle + 1], 1)
    return [np.where(np.arange(3)[:, None] == axis, flat, box.astype(int).T).tolist() for axis in range(3)]


def load(weights: str, device: str, accept_licence: str | None = None) -> NNInteractive:
    """Return nnInteractive with the model in a folder; refuse unless its licence is ``accept_licence``."""
    get = "give the folder of a model of nnInteractive, with plans.json and fold_0/checkpoint_final.pth"
    folder = read_folder(weights, ("plans.json", "dataset.json", CHECKPOINT), get)
    licence = _licence(folder)
    if accept_licence != licence:
        raise LimitedError(
            f"the weights in {folder} are under {licence}, which does not allow every use; if it allows yours, add "
            f"--accept-licence {licence!r}"
        )
    check_networks(read_object(folder / "plans.json", "plans", get), folder / "plans.json")
    read_weights(folder / CHECKPOINT, get, mmap=True)  # nnInteractive would run the code in it
    require_extra("nninteractive", f"nninteractive:{weights}", "nnInteractive")
    from nnInteractive.inference.inference_session import nnInteractiveInferenceSession

    with reading_weights(folder / CHECKPOINT, get), contextlib.redirect_stdout(sys.stderr):
        session = nnInteractiveInferenceSession(device=torch.device(device), torch_n_threads=torch.get_num_threads())
        session.initialize_from_trained_model_folder(str(folder), 0, Path(CHECKPOINT).name)
    about = ModelCard("nnInteractive", str(folder), "Apache-2.0", licence, file_hash(folder / CHECKPOINT))
    return NNInteractive(session, about)


def _licence(folder: Path) -> str:
    file = folder / "LICENSE"
    lines = file.read_text(errors="replace", encoding="utf-8").splitlines() if file.is_file() else []
    return next((line.strip() for line in lines if line.strip()), ASSUMED)
