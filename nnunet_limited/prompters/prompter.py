"""Models that outline what a prompt points at: what is asked of one, and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nnunet_limited.errors import LimitedError

GROUP = "nnunet_limited.prompters"
NOT_STATED = "not stated"


@dataclass(frozen=True)
class ModelCard:
    """Whose model it is: its name, its file or folder, what it may be used for, and a hash of its weights."""

    name: str
    weights: str = ""
    code_licence: str = NOT_STATED
    weights_licence: str = NOT_STATED
    hash: str = ""

    def record(self) -> dict[str, str]:
        """Return it as JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.name}: licence of the code {self.code_licence}, of the weights {self.weights_licence}"


class Prompter(Protocol):
    """A promptable model; ``ndim`` is 2 for slices or 3 for volumes, ``prompts`` some of box, point and mask."""

    ndim: int
    prompts: frozenset[str]
    about: ModelCard

    def embed(self, image: np.ndarray) -> Any:
        """Return what :meth:`predict` wants of an ``image`` (*spatial) with values in [0, 1]; done once per image."""
        ...

    def predict(
        self,
        embedding: Any,
        *,
        boxes: np.ndarray | None = None,
        points: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        mask_logits: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the probability of n objects (n, *spatial) and the model's own scores (n,).

        Coordinates are indices of voxels in the order of the image's axes: ``boxes`` (n, 2, ndim), first voxel and the
        one after the last; ``points`` (n, k, ndim) with ``labels`` (n, k), 1 inside the object and 0 outside;
        ``mask_logits`` (n, *spatial). At least one of them is given.
        """
        ...


def find_prompter(spec: str, device: str = "cpu", accepted: str | None = None) -> Prompter:
    """Return the prompter that ``spec`` names: ``KIND:WEIGHTS`` or ``module:factory``.

    Kinds are ``sam`` (a folder of transformers), ``tiny-vit`` (a checkpoint of MobileSAM or LiteMedSAM),
    ``nninteractive`` (a folder) and the entry points of the group ``nnunet_limited.prompters``. A kind and a factory
    are functions of the weights and the device, or of nothing for ``module:factory``. ``accepted`` is the licence that
    the user has accepted.
    """
    kind, colon, weights = spec.partition(":")
    kinds = {**{name: _built_in(name) for name in BUILT_IN}, **{e.name: e.load for e in entry_points(group=GROUP)}}
    if kind in kinds:
        if not weights and kind in BUILT_IN:
            raise LimitedError(f"{spec!r} names no weights; write {kind}:{BUILT_IN[kind][2]}")
        made = kinds[kind]()(weights, device) if kind != "nninteractive" else kinds[kind]()(weights, device, accepted)
    elif colon and kind.replace(".", "").isidentifier() and weights.isidentifier():
        made = load_factory(kind, weights, spec)()
    else:
        raise LimitedError(f"{spec!r} is no prompter; give {', '.join(f'{k}:…' for k in kinds)} or module:factory")
    _check(made, spec)
    return made


BUILT_IN = {
    "sam": ("hf_sam", "load_sam", "FOLDER"),
    "tiny-vit": ("tiny_vit", "load_tiny_vit", "FILE.pt"),
    "nninteractive": ("nninteractive", "load_nninteractive", "FOLDER"),
}


def _built_in(kind: str) -> Callable[[], Any]:
    module, function, _ = BUILT_IN[kind]
    return lambda: getattr(import_module(f"nnunet_limited.prompters.{module}"), function)


def load_factory(module: str, name: str, spec: str) -> Callable[..., Any]:
    """Return the function ``name`` of a ``module`` of the user's."""
    try:
        factory: Callable[..., Any] = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise LimitedError(f"{spec!r} cannot be found ({error}); check its spelling and PYTHONPATH") from error
    return factory


def _check(made: Any, spec: str) -> None:
    missing = [name for name in ("ndim", "prompts", "about", "embed", "predict") if not hasattr(made, name)]
    if missing:
        raise LimitedError(
            f"{spec!r} gives a {type(made).__name__} without {missing[0]!r}; see docs/how-to/prompted-models.md"
        )
    odd = set(made.prompts) - {"box", "point", "mask"}
    if made.ndim not in (2, 3) or odd or not made.prompts:
        raise LimitedError(f"{spec!r}: ndim is 2 or 3 and prompts some of box, point and mask, not {made.prompts}")


def read_folder(weights: str, files: tuple[str, ...], remedy: str) -> Path:
    """Return the folder ``weights`` with all ``files``; refuse one without."""
    folder = Path(weights)
    for file in files:
        if not (folder / file).is_file():
            raise LimitedError(f"{folder / file} does not exist; {remedy}")
    return folder


def stated_licence(folder: Path) -> str:
    """Return the licence that the head of a model card in ``folder`` states."""
    card = folder / "README.md"
    for line in card.read_text(errors="replace", encoding="utf-8").splitlines()[:60] if card.is_file() else []:
        if line.startswith("license:"):
            return line.partition(":")[2].strip()
    return NOT_STATED


@contextmanager
def reading_weights(file: Path, remedy: str) -> Iterator[None]:
    """Turn whatever goes wrong while weights are read into one line that names the ``file``."""
    import pickle

    try:
        yield
    except pickle.UnpicklingError as error:
        raise LimitedError(
            f"{file} holds more than weights and could run any code, so it is not read; {remedy}"
        ) from error
    except Exception as error:  # what libraries raise of a broken file is as manifold as they are
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LimitedError(f"{file} cannot be read as weights ({reason:.200}); {remedy}") from error


def check_prompts(
    shape: tuple[int, ...],
    allowed: frozenset[str],
    boxes: np.ndarray | None,
    points: np.ndarray | None,
    labels: np.ndarray | None,
    mask_logits: np.ndarray | None,
) -> int:
    """Return how many objects are asked for; refuse prompts that do not fit each other or lie outside the image."""
    given = {"box": boxes, "point": points, "mask": mask_logits}
    found = {kind: np.asarray(value) for kind, value in given.items() if value is not None}
    if not found:
        raise LimitedError("no prompt: give boxes, points or mask_logits")
    for kind in found:
        if kind not in allowed:
            raise LimitedError(f"this model takes no {kind} as prompt; give one of {', '.join(sorted(allowed))}")
    counts = {len(value) for value in found.values()}
    if len(counts) != 1:
        raise LimitedError(f"{sorted(counts)} boxes, points and masks; give one of each for every object")
    expected = {"box": (2, len(shape)), "mask": shape}
    for kind, value in found.items():
        if kind == "point":
            fits = value.ndim == 3 and value.shape[2] == len(shape)
            fits = fits and labels is not None and np.shape(labels) == value.shape[:2]
        else:
            fits = value.shape[1:] == expected[kind]
        if not fits:
            raise LimitedError(f"{kind} prompts of shape {value.shape} do not fit an image of shape {shape}")
        if not np.isfinite(value).all():
            raise LimitedError(f"{kind} prompts hold {value[~np.isfinite(value)].flat[0]}; give numbers")
    size = np.asarray(shape)
    if "box" in found:
        start, stop = found["box"][:, 0], found["box"][:, 1]
        if (start < 0).any() or (stop > size).any() or (start >= stop).any():
            odd = found["box"][((start < 0) | (stop > size) | (start >= stop)).any(1)][0].tolist()
            raise LimitedError(f"box {odd} is empty or outside of the image of shape {shape}; give indices inside")
    if "point" in found and ((found["point"] < 0) | (found["point"] >= size)).any():
        odd = found["point"][((found["point"] < 0) | (found["point"] >= size)).any(2)][0].tolist()
        raise LimitedError(f"point {odd} is outside of the image of shape {shape}; give indices inside")
    return counts.pop()
