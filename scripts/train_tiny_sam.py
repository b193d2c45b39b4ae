"""Train a SAM small enough for tests on synthetic shapes: python scripts/train_tiny_sam.py [FOLDER]

Minutes on one CPU core, about 0.3 MB. It outlines bright or dark ellipses of which it is shown a box, points or a rough
mask, and nothing else; tests that swap axes or shift prompts fail on it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

SIZE, PATCH, STEPS, BATCH = 64, 8, 10_000, 8
KINDS = ["box", "points", "mask", "box and mask", "points and mask"]
MEAN, STD = [0.5] * 3, [0.25] * 3


def build() -> SamModel:
    """Return the model with random weights."""
    vision = SamVisionConfig(
        hidden_size=32, output_channels=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIZE,
        patch_size=PATCH, mlp_dim=64, window_size=4, global_attn_indexes=[1], num_pos_feats=16,
    )  # fmt: skip
    prompt = SamPromptEncoderConfig(hidden_size=32, image_size=SIZE, patch_size=PATCH, mask_input_channels=4)
    decoder = SamMaskDecoderConfig(
        hidden_size=32, mlp_dim=64, num_hidden_layers=2, num_attention_heads=2, iou_head_hidden_dim=32, iou_head_depth=2
    )
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))
    # transformers draws these frequencies far too high for so small a network, which then does not see its prompts.
    torch.nn.init.normal_(model.shared_image_embedding.positional_embedding, std=1.0)
    model.prompt_encoder.shared_embedding.positional_embedding = model.shared_image_embedding.positional_embedding
    return model


def ellipse(rng: np.random.Generator) -> np.ndarray:
    """Return a mask (size, size) of an ellipse at a random place."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    radius, angle = rng.uniform(4, 20, 2), rng.uniform(0, np.pi)
    row, column = rng.uniform(10, SIZE - 10, 2)
    along = (rows - row) * np.cos(angle) + (columns - column) * np.sin(angle)
    across = (columns - column) * np.cos(angle) - (rows - row) * np.sin(angle)
    return (along / radius[0]) ** 2 + (across / radius[1]) ** 2 <= 1


def example(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return an image with values in [0, 1], the mask of one of its ellipses, and prompts for it."""
    image = np.full((SIZE, SIZE), rng.uniform(0.3, 0.7))
    mask = ellipse(rng)
    for _ in range(rng.integers(0, 3)):
        other = ellipse(rng) & ~mask
        image[other] += rng.choice([-1, 1]) * rng.uniform(0.1, 0.4)
    image[mask] = image[~mask].mean() + rng.choice([-1, 1]) * rng.uniform(0.15, 0.4)
    image = np.clip(image + rng.normal(0, rng.uniform(0, 0.08), image.shape), 0, 1)
    places = np.argwhere(mask)
    low, high = places.min(0), places.max(0)
    box = np.clip(np.stack([low, high]) + rng.integers(-4, 5, (2, 2)), 0, SIZE - 1)
    rough = np.roll(mask, rng.integers(-3, 4, 2), (0, 1))
    small = rough[:: SIZE // 32, :: SIZE // 32]
    inside, beside = places[rng.integers(len(places))], np.argwhere(~mask)
    outside = beside[rng.integers(len(beside))]
    prompts = {
        "box": box[:, ::-1].reshape(4).astype(np.float32),
        "points": np.stack([inside, outside])[:, ::-1].astype(np.float32),
        "mask": np.where(small, 6.9, -6.9).astype(np.float32) * rng.uniform(0.3, 1),
    }
    return image, mask, prompts


def main(folder: Path) -> None:
    """Train and save."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    model = build().train()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, STEPS)
    for step in range(STEPS):
        images, masks, prompts = zip(*(example(rng) for _ in range(BATCH)), strict=True)
        pixels = torch.from_numpy(np.stack(images)).float()[:, None].expand(-1, 3, -1, -1)
        target = torch.from_numpy(np.stack(masks)).float()
        kind = rng.choice(KINDS, p=[0.35, 0.15, 0.1, 0.2, 0.2])
        asked = {}
        if "box" in kind:
            asked["input_boxes"] = torch.from_numpy(np.stack([p["box"] for p in prompts]))[:, None]
        if "points" in kind:
            count = rng.integers(1, 3)  # one inside, and then one outside
            asked["input_points"] = torch.from_numpy(np.stack([p["points"][:count] for p in prompts]))[:, None]
            asked["input_labels"] = torch.tensor([1, 0])[:count].expand(BATCH, 1, -1)
        if "mask" in kind:
            asked["input_masks"] = torch.from_numpy(np.stack([p["mask"] for p in prompts]).astype(np.float32))[:, None]
        features = model.vision_encoder((pixels - MEAN[0]) / STD[0])[0]
        made = model(image_embeddings=features, **asked, multimask_output=False)
        logits = functional.interpolate(made.pred_masks[:, 0], (SIZE, SIZE), mode="bilinear")[:, 0]
        probability = torch.sigmoid(logits)
        dice = (2 * (probability * target).sum((1, 2)) + 1) / (probability.sum((1, 2)) + target.sum((1, 2)) + 1)
        with torch.no_grad():
            hard = logits > 0
            both = (hard & target.bool()).sum((1, 2)) / (hard | target.bool()).sum((1, 2)).clamp(min=1)
        score = functional.mse_loss(made.iou_scores.reshape(BATCH), both)
        loss = functional.binary_cross_entropy_with_logits(logits, target) + 1 - dice.mean() + 0.1 * score
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 500 == 499:
            print(f"step {step + 1} of {STEPS}, {kind}: Dice {dice.mean():.3f}", flush=True)
    model.eval().save_pretrained(folder)
    content = {"do_normalize": True, "image_mean": MEAN, "image_std": STD, "size": {"longest_edge": SIZE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(
        "---\nlicense: Apache-2.0\n---\n"
        "A SAM for tests, made by `scripts/train_tiny_sam.py`; it knows ellipses only.\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "tests" / "tiny_sam")
