"""SAM and related models of the transformers library (Kirillov et al., ICCV 2023, arXiv 2304.02643).

Only the image encoder and the decoder of the library are called. Images and prompts are resized here, so that slices of
any size are treated alike with every version of the library.
"""

import contextlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from nnunet_limited.errors import LimitedError
from nnunet_limited.prompters.prompter import ModelCard, check_prompts, read_folder, reading_weights, stated_licence
from nnunet_limited.util.extras import require_extra, require_transformers
from nnunet_limited.util.files import file_hash

WEIGHTS = "model.safetensors"
KINDS = {"sam": "SamModel", "sam_hq": "SamHQModel", "sam2": "Sam2Model", "sam2_video": "Sam2Model"}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Embedded(NamedTuple):
    """The encoder's features of an image of ``shape``; ``scale`` is the size of its voxels in those of the encoder."""

    features: dict[str, Any]
    shape: tuple[int, int]
    scale: tuple[float, float]


class HFSam:
    """A promptable model of transformers, for slices: boxes, points and masks as prompts.

    An image is resized until its longer side fits the encoder, and padded below and to the right; with ``stretch``, as
    for SAM 2 (Ravi et al., 2024, arXiv 2408.00714), it fills the whole square.
    """

    ndim = 2
    prompts: frozenset[str] = frozenset({"box", "point", "mask"})
    stretch = False

    def __init__(
        self, model: Any, size: int, mask_size: int, norm: tuple[Any, Any], device: str, about: ModelCard
    ) -> None:
        """Take a model in float32; ``size`` and ``mask_size`` are the sides of its square images and mask prompts.

        ``norm`` are the mean and the standard deviation that images in [0, 1] are normalised with.
        """
        self.model, self.device, self.about = model.eval().to(device), torch.device(device), about
        self.size, self.mask_size = size, mask_size
        self.mean, self.std = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in norm)

    @torch.inference_mode()
    def embed(self, image: np.ndarray) -> Embedded:
        """Return the features of a slice (rows, columns) with values in [0, 1]."""
        if image.ndim != 2:
            raise LimitedError(f"an image of shape {image.shape} is not a slice; {self.about.name} takes 2D images")
        grey = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None]
        within = self._within(image.shape, self.size)
        colour = (self._resize(grey, within)[0].expand(3, -1, -1) - self.mean) / self.std
        features = self._encode(self._pad(colour[None], self.size).to(self.device))
        rows, columns = image.shape
        return Embedded(features, (rows, columns), (within[0] / rows, within[1] / columns))

    @torch.inference_mode()
    def predict(
        self,
        embedding: Embedded,
        *,
        boxes: np.ndarray | None = None,
        points: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        mask_logits: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities (n, rows, columns) and scores (n,); see :class:`Prompter`."""
        shape = embedding.shape
        count = check_prompts(shape, self.prompts, {"box": boxes, "point": points, "mask": mask_logits}, labels)
        scale, asked = np.array(embedding.scale), {}
        if boxes is not None:  # the model takes columns first, and the last voxel is inside
            corners = np.asarray(boxes, np.float32) * scale - np.array([[0.0], [1.0]])
            asked["input_boxes"] = self._tensor(corners[..., ::-1].reshape(count, 1, 4))
        if points is not None:
            middles = (np.asarray(points, np.float32) + 0.5) * scale - 0.5
            asked["input_points"] = self._tensor(middles[:, None, :, ::-1])
            asked["input_labels"] = self._tensor(np.asarray(labels)[:, None]).long()
        if mask_logits is not None:
            logits = torch.from_numpy(np.asarray(mask_logits, np.float32))[:, None]
            small = self._resize(logits, self._within(shape, self.mask_size))
            asked["input_masks"] = self._pad(small, self.mask_size).to(self.device)
        made = self.model(**self._repeat(embedding.features, count), **asked, multimask_output=False)
        within = self._within(shape, self.size)
        large = functional.interpolate(made.pred_masks[:, 0].float(), (self.size,) * 2, mode="bilinear")
        logits = functional.interpolate(large[..., : within[0], : within[1]], shape, mode="bilinear")
        return torch.sigmoid(logits)[:, 0].cpu().numpy(), made.iou_scores.reshape(count).float().cpu().numpy()

    def _encode(self, pixels: torch.Tensor) -> dict[str, Any]:
        """Return the decoder's inputs for an image (1, 3, size, size)."""
        made = self.model.get_image_embeddings(pixels)
        if isinstance(made, tuple):  # of SAM-HQ
            return {"image_embeddings": made[0], "intermediate_embeddings": list(made[1])}
        return {"image_embeddings": made}

    @staticmethod
    def _repeat(features: dict[str, Any], count: int) -> dict[str, Any]:
        """Return the features for ``count`` prompts, each of which is decoded separately."""

        def repeat(one: Any) -> Any:
            return [repeat(each) for each in one] if isinstance(one, list) else one.expand(count, *one.shape[1:])

        return {key: repeat(value) for key, value in features.items()}

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).float().to(self.device)

    def _within(self, shape: tuple[int, ...], size: int) -> tuple[int, ...]:
        """Return the shape of an image on a square of side ``size``."""
        return (size, size) if self.stretch else tuple(max(1, round(side * size / max(shape))) for side in shape)

    @staticmethod
    def _resize(image: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        return functional.interpolate(image, shape, mode="bilinear", antialias=shape[0] < image.shape[-2])

    @staticmethod
    def _pad(image: torch.Tensor, size: int) -> torch.Tensor:
        return functional.pad(image, (0, size - image.shape[-1], 0, size - image.shape[-2]))


def load(weights: str, device: str, accept_licence: str | None = None) -> HFSam:
    """Return the model in a folder of transformers, or of a hub id in the local cache; no licence is asked for."""
    require_transformers(f"sam:{weights}")
    require_extra("sam", f"sam:{weights}", "safetensors")
    get = "give a folder that 'hf download ID --local-dir FOLDER' has made, with config.json and model.safetensors"
    folder = read_folder(str(_cached(weights, get)), ("config.json", WEIGHTS), get)
    with reading_weights(folder / "config.json", get):
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind not in KINDS:
        raise LimitedError(f"{folder / 'config.json'} is of a model {kind!r}; use one of {', '.join(KINDS)}")
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    with reading_weights(folder / WEIGHTS, get), contextlib.redirect_stderr(io.StringIO()):
        made_by = getattr(transformers, KINDS[kind])
        # What config.json names may be a kernel that transformers would download and run.
        attention = "sdpa" if made_by._supports_sdpa else "eager"
        model, loading = made_by.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation=attention,
            dtype=torch.float32,
            output_loading_info=True,
        )
    for what in ("missing_keys", "mismatched_keys"):
        if loading[what]:
            raise LimitedError(f"{folder / WEIGHTS}: {what.replace('_', ' ')} {sorted(loading[what])[:1]}; {get}")
    name, hashed = f"{KINDS[kind]} of {folder.name}", file_hash(folder / WEIGHTS)
    about = ModelCard(name, str(weights), "Apache-2.0", stated_licence(folder), hashed)
    prompts = model.config.prompt_encoder_config
    size = int(getattr(model.config.vision_config, "image_size", None) or prompts.image_size)
    mask_size = 4 * (int(prompts.image_size) // int(prompts.patch_size))
    made = HFSam(model, size, mask_size, _normalisation(folder), device, about)
    made.stretch = KINDS[kind] == "Sam2Model"
    if "medsam" in folder.name.lower() + str(weights).rpartition("/")[2].lower():  # trained with boxes only
        made.prompts = frozenset({"box"})
    return made


def _cached(weights: str, remedy: str) -> Path:
    """Return the folder itself, or that of the model in the hub's cache; nothing is downloaded."""
    if Path(weights).exists() or weights.count("/") != 1 or weights.startswith((".", "/")):
        return Path(weights)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(weights, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError) as error:
        raise LimitedError(
            f"{weights} is neither a folder nor in the cache of the hub, and nothing is downloaded here; {remedy}"
        ) from error


def _normalisation(folder: Path) -> tuple[Any, Any]:
    """Return mean and standard deviation of the images that a model was trained on."""
    for file in (folder / "preprocessor_config.json", folder / "processor_config.json"):
        if file.is_file():
            with reading_weights(file, "download the folder again"):
                content = json.loads(file.read_text(encoding="utf-8"))
            content = content.get("image_processor", content)
            if content.get("do_normalize") is False:
                return (0.0,) * 3, (1.0,) * 3
            if "image_mean" in content and "image_std" in content:
                return tuple(content["image_mean"]), tuple(content["image_std"])
    return IMAGENET
