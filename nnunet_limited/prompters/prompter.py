"""Promptable models, which outline the object that a prompt points at: their protocol, and how they are found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from nnunet_limited.errors import LimitedError

if TYPE_CHECKING:
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
    """A kind of built-in prompters: module and function that load one, and the placeholder of its weights.

    The function is called with the weights and the device, and with the licence that the user has accepted if
    ``asks_licence``.
    """

    module: str
    function: str
    argument: str
    asks_licence: bool = False

    def load(self, weights: str, device: str, accept_licence: str | None) -> Any:
        """Return the prompter with its weights."""
        function = getattr(import_module(f"nnunet_limited.prompters.{self.module}"), self.function)
        return function(weights, device, accept_licence) if self.asks_licence else function(weights, device)


PROMPTERS = {
    "sam": PrompterKind("hf_sam", "load_sam", "FOLDER"),
    "tiny-vit": PrompterKind("tiny_vit", "load_tiny_vit", "FILE.pt"),
    "nninteractive": PrompterKind("nninteractive", "load_nninteractive", "FOLDER", asks_licence=True),
}


def find_prompter(spec: str, device: str = "cpu", accept_licence: str | None = None) -> Prompter:
    """Return the prompter that ``spec`` names: ``KIND:WEIGHTS`` or ``module:factory``.

    Kinds are those of :data:`PROMPTERS` and the entry points of the group ``nnunet_limited.prompters``, functions of
    the weights and the device; a factory has no arguments. ``accept_licence`` is a licence that the user has accepted.
    Raises LimitedError for what is no prompter.
    """
    kind, colon, weights = spec.partition(":")
    plugins = {entry.name: entry for entry in entry_points(group=GROUP)}
    if kind in plugins:
        made = plugins[kind].load()(weights, device)
    elif kind in PROMPTERS:
        if not weights:
            raise LimitedError(f"{spec!r} names no weights; write {kind}:{PROMPTERS[kind].argument}")
        made = PROMPTERS[kind].load(weights, device, accept_licence)
    elif colon and kind.replace(".", "").isidentifier() and weights.isidentifier():
        made = load_factory(kind, weights, spec)()
    else:
        names = ", ".join(f"{name}:…" for name in (*PROMPTERS, *plugins))
        raise LimitedError(f"{spec!r} is no prompter; give {names} or module:factory")
    check_attributes(made, repr(spec))
    return made


def load_factory(module: str, name: str, spec: str) -> Callable[..., Any]:
    """Return the function ``name`` of a ``module`` of the user; ``spec`` names both in errors."""
    try:
        factory: Callable[..., Any] = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise LimitedError(f"{spec!r} cannot be found ({error}); check its spelling and PYTHONPATH") from error
    return factory


def check_attributes(made: Any, name: str) -> None:
    """Raise LimitedError for what is no prompter; ``name`` names it in the error."""
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
    folder = Path(weights)
    for file in files:
        if not (folder / file).is_file():
            raise LimitedError(f"{folder / file} does not exist; {remedy}")
    return folder


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
    import pickle

    try:
        yield
    except pickle.UnpicklingError as error:
        raise LimitedError(
            f"{file} holds more than weights and could run any code, so it is not read; {remedy}"
        ) from error
    except Exception as error:  # libraries raise many kinds of errors for broken files
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
    """Return the number of objects; refuse prompts that do not fit each other or lie outside the image."""
    given = {"box": boxes, "point": points, "mask": mask_logits}
    import numpy as np  # here, because the help of commands does without

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
