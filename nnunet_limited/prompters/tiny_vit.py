"""SAM with a TinyViT for an encoder: MobileSAM (Zhang et al., 2023, arXiv 2306.14289) and LiteMedSAM.

Their checkpoints name the weights of the decoder differently from transformers, and those of the encoder differently
from timm. The last stage of the encoder does not halve the grid.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnunet_limited.errors import LimitedError
from nnunet_limited.prompters.hf_sam import IMAGENET, HFSam
from nnunet_limited.prompters.prompter import NOT_STATED, ModelCard, reading_weights
from nnunet_limited.util.extras import require_extra, require_transformers
from nnunet_limited.util.files import file_hash
from nnunet_limited.util.weights import read_weights

# Name and licence of checkpoints by the start of their SHA-256.
KNOWN = {"6dbb90523a35330f": ("MobileSAM", "Apache-2.0"), "79d8c9dca6db4d69": ("LiteMedSAM", "Apache-2.0")}
CHANNELS, GRID = 256, 64
DECODER = (
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix", "shared_image_embedding.positional_embedding"),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.0\.", r"\1.proj_in."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.1\.", r"\1.layers.0."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.2\.", r"\1.proj_out."),
    (r"\.norm(\d|_final_attn)\.", r".layer_norm\1."),
)
ENCODER = (
    (r"^patch_embed\.seq\.0\.", "patch_embed.conv1."),
    (r"^patch_embed\.seq\.2\.", "patch_embed.conv2."),
    (r"^layers\.(\d)\.downsample\.", lambda found: f"stages.{int(found[1]) + 1}.downsample."),
    (r"^layers\.", "stages."),
    (r"\.c\.weight$", ".conv.weight"),
)


class TinyViTEncoder(nn.Module):
    """The encoder: features (1, 256, 64, 64) of an image with sides of 1024 voxels, or of 256 if it is not halved."""

    def __init__(self, halves: bool) -> None:
        """Build it with random weights; without ``halves`` its first convolutions have a kernel of 1."""
        super().__init__()
        from timm.layers import LayerNorm2d
        from timm.models.tiny_vit import TinyVit

        body: Any = TinyVit(
            num_classes=0, embed_dims=(64, 128, 160, 320), depths=(2, 2, 6, 2), num_heads=(2, 4, 5, 10),
            window_sizes=(7, 7, 14, 7), drop_path_rate=0.0,
        )  # fmt: skip
        body.head = nn.Identity()
        body.stages[3].downsample.conv2.conv.stride = (1, 1)
        if not halves:
            first, second = body.patch_embed.conv1, body.patch_embed.conv2
            first.conv, second.conv = nn.Conv2d(3, 32, 1, bias=False), nn.Conv2d(32, 64, 1, bias=False)
        self.body = body
        self.neck = nn.Sequential(
            nn.Conv2d(320, CHANNELS, 1, bias=False),
            LayerNorm2d(CHANNELS),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False),
            LayerNorm2d(CHANNELS),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the features of ``pixels`` (b, 3, size, size)."""
        features: torch.Tensor = self.neck(self.body.stages(self.body.patch_embed(pixels)))
        return features


class TinyViTSam(HFSam):
    """The decoder of SAM behind a TinyViT."""

    def __init__(self, encoder: nn.Module, *arguments: Any) -> None:
        """Take the encoder and what the parent takes."""
        super().__init__(*arguments)
        self.encoder = encoder.eval().to(self.device).to(memory_format=torch.channels_last)  # faster on a CPU

    def _encode(self, pixels: torch.Tensor) -> dict[str, Any]:
        return {"image_embeddings": self.encoder(pixels)}


def load(weights: str, device: str, accept_licence: str | None = None) -> TinyViTSam:
    """Return the model of a checkpoint of MobileSAM or LiteMedSAM; no licence is asked for."""
    require_transformers(f"tiny-vit:{weights}")
    require_extra("sam", f"tiny-vit:{weights}", "timm")
    from transformers import SamConfig, SamModel, SamPromptEncoderConfig

    file, get = Path(weights), "get mobile_sam.pt or lite_medsam.pth with scripts/fetch_sam_weights.py"
    if not file.is_file():
        raise LimitedError(f"{file} does not exist; {get}")
    content = read_weights(file, get, "weights")
    with reading_weights(file, get):
        stored = {key: value for key, value in content.get("model", content).items() if isinstance(value, torch.Tensor)}
        halves = stored["image_encoder.patch_embed.seq.0.c.weight"].shape[-1] == 3
        size = 1024 if halves else 256
        prompts = SamPromptEncoderConfig(image_size=size, patch_size=size // GRID)
        encoder = TinyViTEncoder(halves)
        decoder: Any = SamModel(SamConfig(prompt_encoder_config=prompts))
        decoder.vision_encoder = nn.Identity()  # that of SAM, which is not used
        encoder.load_state_dict(_encoder_weights(stored))
        rest = {_renamed(k, DECODER): v for k, v in stored.items() if not k.startswith("image_encoder.")}
        shared = rest["shared_image_embedding.positional_embedding"]
        decoder.load_state_dict({**rest, "prompt_encoder.shared_embedding.positional_embedding": shared})
    hashed = file_hash(file)
    name, licence = KNOWN.get(hashed, (file.name, NOT_STATED))
    about = ModelCard(name, str(file), "Apache-2.0", licence, hashed)
    norm = IMAGENET if halves else ((0.0,) * 3, (1.0,) * 3)
    made = TinyViTSam(encoder, decoder, size, 4 * GRID, norm, device, about)
    if not halves:  # LiteMedSAM was trained with boxes only
        made.prompts = frozenset({"box"})
    return made


def _encoder_weights(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    made, prefix = {}, "image_encoder."
    for name, value in ((key.removeprefix(prefix), value) for key, value in stored.items() if key.startswith(prefix)):
        if not name.startswith(("head.", "norm_head.")) and not name.endswith("attention_bias_idxs"):
            made[name if name.startswith("neck.") else f"body.{_renamed(name, ENCODER)}"] = value
    return made


def _renamed(key: str, rules: Any) -> str:
    for pattern, new in rules:
        key = re.sub(pattern, new, key)
    return key
