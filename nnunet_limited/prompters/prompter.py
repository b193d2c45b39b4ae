"""Promptable models, which outline the object that a prompt points at: their protocol, and how they are found."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.modules import broken, load_entry, load_object

if TYPE_CHECKING:  # the help of commands does without numpy
    import numpy as np
GROUP = "nnunet_limited.prompters"
NOT_STATED = "not stated"


@dataclass(frozen=True)
class ModelCard:
    """The name of a model, the file or folder of its weights, its licences, and a hash of its weights."""

    name: str
    weights: str = ""
    code_licence: str = NOT_STATED
    weights_licence: str = NOT_STATED
    hash: str = ""

    def __str__(self) -> str:
        return f"{self.name}: licence of the code {self.code_licence}, of the weights {self.weights_licence}"


class Prompter(Protocol):
    """A promptable model; ``ndim`` is 2 for slices or 3 for volumes, ``prompts`` some of box, point and mask."""

    ndim: int
    prompts: frozenset[str]
    about: ModelCard

    def embed(self, image: np.ndarray) -> Any:
        """Return what :meth:`predict` needs of an ``image`` (*spatial) with values in [0, 1]; called once per image."""
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
        """Return the probabilities of n objects (n, *spatial) and the model's own scores (n,).

        Coordinates are voxel indices in the order of the image's axes: ``boxes`` (n, 2, ndim), first voxel and the one
        after the last; ``points`` (n, k, ndim) with ``labels`` (n, k), 1 inside the object and 0 outside;
        ``mask_logits`` (n, *spatial). At least one kind of prompt is given.
        """
        ...


class PrompterKind(NamedTuple):
    """A built-in kind: the module whose ``load(weights, device, accept_licence)`` returns one, and a placeholder."""

    module: str
    argument: str


PROMPTERS = {
    "sam": PrompterKind("hf_sam", "FOLDER"),
    "tiny-vit": PrompterKind("tiny_vit", "FILE.pt"),
    "nninteractive": PrompterKind("nninteractive", "FOLDER"),
}


def find_prompter(spec: str, device: str = "cpu", accept_licence: str | None = None) -> Prompter:
    """Return the prompter that ``spec`` names: ``KIND:WEIGHTS`` or ``module:factory``.

    Kinds are those of :data:`PROMPTERS` and the entry points of the group ``nnunet_limited.prompters``, functions of
    the weights and the device; a factory has no arguments. ``accept_licence`` is a licence that the user has accepted.
    Raises LimitedError for what is not a prompter.
    """
    kind, colon, weights = spec.partition(":")
    plugins = {entry.name: entry for entry in entry_points(group=GROUP)}
    if kind in plugins:
        made = load_entry(plugins[kind])(weights, device)
    elif kind in PROMPTERS:
        if not weights:
            raise LimitedError(f"{spec!r} names no weights; write {kind}:{PROMPTERS[kind].argument}")
        module = import_module(f"nnunet_limited.prompters.{PROMPTERS[kind].module}")
        made = module.load(weights, device, accept_licence)
    elif colon and kind.replace(".", "").isidentifier() and weights.isidentifier():
        factory = load_object(kind, weights, spec)
        try:
            made = factory()
        except LimitedError:
            raise
        except Exception as error:
            raise broken(spec, error) from error
    else:
        names = ", ".join(f"{name}:…" for name in (*PROMPTERS, *plugins))
        raise LimitedError(f"{spec!r} is not a prompter; give {names} or module:factory")
    check_attributes(made, repr(spec))
    return made


def check_attributes(made: Any, name: str) -> None:
    """Raise LimitedError for what is not a prompter; ``name`` names it in the error."""
    missing = [name for name in ("ndim", "prompts", "about", "embed", "predict") if not hasattr(made, name)]
    if missing:
        raise LimitedError(
            f"{name} gives a {type(made).__name__} without {missing[0]!r}; see docs/how-to/prompted-models.md"
        )
    odd = set(made.prompts) - {"box", "point", "mask"}
    if made.ndim not in (2, 3) or odd or not made.prompts:
        raise LimitedError(f"{name}: ndim is 2 or 3 and prompts some of box, point and mask, not {made.prompts}")


def read_folder(weights: str, files: tuple[str, ...], remedy: str) -> Path:
    """Return the folder ``weights`` with all ``files``; refuse one without."""
    for file in files:
        if not Path(weights, file).is_file():
            raise LimitedError(f"{Path(weights, file)} does not exist; {remedy}")
    return Path(weights)


def stated_licence(folder: Path) -> str:
    """Return the licence in the head of the model card in ``folder``."""
    card = folder / "README.md"
    for line in card.read_text(errors="replace", encoding="utf-8").splitlines()[:60] if card.is_file() else []:
        if line.startswith("license:"):
            return line.partition(":")[2].strip()
    return NOT_STATED


@contextmanager
def reading_weights(file: Path, remedy: str) -> Iterator[None]:
    """Raise LimitedError with one line that names the ``file`` for every error in the block, which reads weights."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise LimitedError(
            f"{file} holds more than weights: loading it could run any code, so it is not loaded; {remedy}"
        ) from error
    except Exception as error:  # libraries raise many kinds of errors for broken files
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LimitedError(f"{file} cannot be read as weights ({reason:.200}); {remedy}") from error


def check_prompts(
    shape: tuple[int, ...], allowed: frozenset[str], prompts: Mapping[str, np.ndarray | None], labels: np.ndarray | None
) -> int:
    """Return the number of objects; refuse prompts that do not fit each other or lie outside the image."""
    import numpy as np

    found = {kind: np.asarray(value) for kind, value in prompts.items() if value is not None}
    if not found:
        raise LimitedError("no prompt: give boxes, points or mask_logits")
    for kind in found:
        if kind not in allowed:
            raise LimitedError(f"this model takes no {kind} as prompt; give one of {', '.join(sorted(allowed))}")
    counts = {len(value) for value in found.values()}
    if len(counts) != 1:
        raise LimitedError(f"{sorted(counts)} boxes, points and masks; give one of each for every object")
    answers = () if labels is None else np.shape(labels)
    expected = {"box": (2, len(shape)), "mask": shape, "point": (*answers[1:2], len(shape))}
    for kind, value in found.items():
        fits = value.shape[1:] == expected[kind]
        if not fits or (kind == "point" and answers != value.shape[:2]):
            raise LimitedError(f"{kind} prompts of shape {value.shape} do not fit an image of shape {shape}")
        if not np.isfinite(value).all():
            raise LimitedError(f"{kind} prompts hold {value[~np.isfinite(value)].flat[0]}; give numbers")
    if "box" in found:
        start, stop = found["box"][:, 0], found["box"][:, 1]
        outside = ((start < 0) | (stop > shape) | (start >= stop)).any(1)
        if outside.any():
            odd = found["box"][outside][0].tolist()
            raise LimitedError(f"box {odd} is empty or outside of the image of shape {shape}; give indices inside")
    if "point" in found:
        outside = ((found["point"] < 0) | (found["point"] >= shape)).any(2)
        if outside.any():
            odd = found["point"][outside][0].tolist()
            raise LimitedError(f"point {odd} is outside of the image of shape {shape}; give indices inside")
    return counts.pop()
