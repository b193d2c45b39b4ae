"""A synthetic 3D dataset that looks like an abdominal MRI, for the demo and for tests.

Each case is an axial stack with a body outline in air, fat, a spine, and three labelled classes: a large
``organ``, an ``artery`` in front of the spine, and a ``lesion`` in the organ. Unlabelled look-alikes stand
next to them: a spleen with the organ's intensity, a vein beside the artery, cysts outside the organ with the
lesion's size and intensity. What distinguishes them (size, roundness, the side of the organ, being inside it)
survives mirroring, so that mirroring stays a valid augmentation.
"""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.files import replacing, write_json

Shape = tuple[int, int, int]  # (z, y, x)
LABELS: dict[str, int] = {"background": 0, "organ": 1, "artery": 2, "lesion": 3}
SPACING_XYZ: tuple[float, float, float] = (1.5, 1.5, 3.0)  # mm
_MIN_SHAPE = (12, 48, 48)
_FOLDERS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")


def _smooth_field(rng: np.random.Generator, shape: Shape, knots: int) -> np.ndarray:
    """A smooth random field of about unit variance: ``knots`` control values an axis, Gaussian basis."""
    field = rng.standard_normal((knots, knots, knots), dtype=np.float32)
    for size in shape:  # each pass consumes the first axis and appends its interpolated version
        offset = np.linspace(0, knots - 1, size)[:, None] - np.arange(knots)[None]
        basis = np.exp(-0.5 * (offset / 0.6) ** 2)
        basis /= np.sqrt((basis**2).sum(1, keepdims=True))
        field = np.tensordot(field, basis.astype(np.float32), axes=(0, 1))
    return field


def _rotation(rng: np.random.Generator, degrees: tuple[float, float, float]) -> np.ndarray:
    """A random rotation (z, y, x order) within plus or minus ``degrees`` about each axis."""
    result = np.eye(3, dtype=np.float32)
    for axis, limit in enumerate(degrees):
        angle = np.deg2rad(rng.uniform(-limit, limit))
        i, j = (k for k in range(3) if k != axis)
        turn = np.eye(3, dtype=np.float32)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


def _ellipsoid(points: np.ndarray, centre: np.ndarray, radii: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """About the signed distance to an ellipsoid (negative inside); ``points`` is (3, z, y, x)."""
    scaled = (turn / radii[:, None]).astype(np.float32)
    local = np.tensordot(scaled, points - centre.astype(np.float32)[:, None, None, None], axes=(1, 0))
    return (np.sqrt(np.einsum("izyx,izyx->zyx", local, local)) - 1) * float(radii.mean())


def _tube(rng: np.random.Generator, points: np.ndarray, y: float, x: float, radius: float, flat: float) -> np.ndarray:
    """About the signed distance to a winding tube along z, ``flat`` times wider in x than in y."""
    amplitude, phase = rng.uniform(0.0, 0.07, 2).tolist(), rng.uniform(0, 2 * np.pi, 3).tolist()
    z = points[0]
    dy = points[1] - y - amplitude[0] * np.sin(2.2 * z + phase[0])
    dx = (points[2] - x - amplitude[1] * np.sin(3.0 * z + phase[1])) / flat
    return np.sqrt(dy**2 + dx**2) - radius * (1 + 0.12 * np.sin(3.5 * z + phase[2]))


def phantom_case(seed: int, shape: Shape = (24, 64, 64)) -> tuple[np.ndarray, np.ndarray]:
    """One case: an image (float32, whole numbers in the int16 range) and its uint8 label, both (z, y, x)."""
    if any(size < smallest for size, smallest in zip(shape, _MIN_SHAPE, strict=True)):
        raise LimitedError(f"phantom shape {shape} is too small; use at least {_MIN_SHAPE} (z, y, x)")
    rng = np.random.default_rng(seed)
    anatomy = _anatomy(rng, shape)
    image = _acquired(rng, *_contrast(rng, anatomy, shape))
    label = np.zeros(shape, np.uint8)
    label[(anatomy["organ"] < 0) & (anatomy["vein"] >= 0)] = LABELS["organ"]
    label[anatomy["lesion"] < 0] = LABELS["lesion"]
    label[anatomy["artery"] < 0] = LABELS["artery"]
    return np.clip(np.rint(image), 0, 32767).astype(np.float32), label


def _anatomy(rng: np.random.Generator, shape: Shape) -> dict[str, np.ndarray]:
    """The signed distance (z, y, x) to each structure, negative inside.

    In-plane coordinates run from -1 to 1, +y is posterior, and the whole space is warped.
    """
    uniform = rng.uniform
    ends = (0.75, 1.0, 1.0)
    axes = [np.linspace(-end, end, n, dtype=np.float32) for end, n in zip(ends, shape, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    turn, centre = _rotation(rng, (14, 6, 6)), uniform(-0.06, 0.06, 3).astype(np.float32)
    points = np.tensordot(turn, grid - centre[:, None, None, None], axes=(1, 0)) / uniform(0.88, 1.06)
    points = points + 0.05 * np.stack([_smooth_field(rng, shape, 4) for _ in range(3)])
    relief = [0.035 * _smooth_field(rng, shape, 6) for _ in range(2)]
    half_y, half_x = uniform(0.68, 0.8), uniform(0.82, 0.92)
    body = np.abs(points[1] / half_y) ** 2.4 + np.abs(points[2] / half_x) ** 2.4
    body = 0.8 * (body ** (1 / 2.4) - 1)
    cavity = body + uniform(0.05, 0.13)  # what the fat under the skin leaves
    spine_yx = np.array([uniform(0.36, 0.44), uniform(-0.04, 0.04)])
    spine = np.hypot(points[1] - spine_yx[0], (points[2] - spine_yx[1]) / 1.15) - uniform(0.13, 0.17)
    organ_centre = np.array([uniform(-0.2, 0.2), uniform(-0.2, 0.0), uniform(-0.42, -0.28)])
    organ_radii = np.array([uniform(0.42, 0.68), uniform(0.3, 0.46), uniform(0.34, 0.52)])
    organ = _ellipsoid(points, organ_centre, organ_radii, _rotation(rng, (40, 20, 20))) + relief[0] * 1.3
    organ = np.maximum(organ, cavity + 0.02)
    spleen_centre = np.array([uniform(-0.35, 0.35), uniform(-0.1, 0.2), uniform(0.45, 0.56)])
    spleen_radii = np.array([uniform(0.3, 0.42), uniform(0.18, 0.28), uniform(0.13, 0.2)])
    spleen = _ellipsoid(points, spleen_centre, spleen_radii, _rotation(rng, (30, 15, 15))) + relief[1]
    spleen = np.maximum(spleen, cavity + 0.03)
    calibre, front = uniform(0.085, 0.125), spine_yx[0] - uniform(0.26, 0.31)
    artery = _tube(rng, points, front, spine_yx[1] + uniform(0.02, 0.1), calibre, 1.0)
    vein_x = spine_yx[1] - uniform(0.22, 0.3)
    vein = _tube(rng, points, front + uniform(0, 0.1), vein_x, calibre * uniform(0.8, 1.0), uniform(1.1, 1.6))
    tubes = np.minimum(np.minimum(artery, vein), spine)

    def bodies(where: np.ndarray, count: int) -> np.ndarray:
        """``count`` lesion-like bodies whose centres are drawn from the voxels ``where``."""
        spots = np.flatnonzero(where & (np.abs(grid[0]) < 0.6))
        spots = spots if spots.size else np.array([int(np.argmin(organ))])
        centres = points.reshape(3, -1)[:, rng.choice(spots, count)].T
        found = [_ellipsoid(points, c, uniform(0.14, 0.23, 3), _rotation(rng, (90, 90, 90))) for c in centres]
        return np.min(found, axis=0) + relief[1] * 0.6

    lesion = np.maximum(bodies((organ < -0.07) & (tubes > 0.15), 1), np.maximum(cavity, 0.03 - tubes))
    lesion = np.maximum(lesion, organ - 0.05)  # it may bulge out of the organ a little
    cysts = bodies((organ > 0.12) & (cavity < -0.12) & (tubes > 0.12), int(rng.integers(2, 5)))
    cysts = np.maximum(cysts, np.maximum(cavity, 0.04 - organ))
    structures = {"body": body, "cavity": cavity, "spine": spine, "spleen": spleen, "organ": organ}
    return {**structures, "cysts": cysts, "lesion": lesion, "vein": vein, "artery": artery}


def _contrast(rng: np.random.Generator, anatomy: dict[str, np.ndarray], shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """The ideal image (z, y, x) of the structures, and white noise (2, z, y, x) for its acquisition.

    Every case has its own contrast; look-alikes share the intensity of what they resemble.
    """
    uniform = rng.uniform

    def soft(distance: np.ndarray) -> np.ndarray:
        """The fraction of each voxel that the structure fills."""
        return np.clip(0.5 - distance * shape[2] / 2, 0, 1)

    fat, muscle, tissue = uniform(0.65, 0.95), uniform(0.22, 0.35), uniform(0.25, 0.45)
    organ_value = tissue + uniform(0.15, 0.3)
    lesion_value, blood = organ_value + uniform(0.26, 0.4), uniform(0.75, 1.05)
    white = rng.standard_normal((4, *shape), dtype=np.float32)
    fine, coarse = (ndimage.gaussian_filter(white[i], (s / 2, s, s)) for i, s in ((0, 0.8), (1, 1.8)))
    fine, coarse = fine / fine.std(), coarse / coarse.std()
    image = fat * soft(anatomy["body"])
    mesentery = np.where(coarse > uniform(0.8, 1.6), 0.6 * fat + 0.4 * tissue, tissue)
    wall = np.where(anatomy["cavity"] > -uniform(0.04, 0.09), muscle, mesentery)  # muscle lines the cavity
    for distance, value in (
        (anatomy["cavity"], wall + 0.05 * coarse),
        (anatomy["spine"] - 0.03, muscle * 0.6),
        (anatomy["spine"], uniform(0.45, 0.65) + 0.04 * fine),
        (anatomy["spleen"], organ_value + uniform(-0.06, 0.06) + 0.03 * fine),
        (anatomy["organ"], organ_value + uniform(0.02, 0.05) * fine),
        (anatomy["cysts"], lesion_value + uniform(-0.06, 0.06) + 0.03 * fine),
        (anatomy["lesion"], lesion_value + uniform(0.02, 0.06) * coarse),
        (anatomy["vein"], blood + uniform(-0.08, 0.08)),
        (anatomy["artery"], blood),
    ):
        fraction = soft(distance)
        image = image * (1 - fraction) + value * fraction
    return image, white[2:]


def _acquired(rng: np.random.Generator, image: np.ndarray, white: np.ndarray) -> np.ndarray:
    """The image after blur, bias of the receive coil, and Rician noise made of ``white`` noise, in arbitrary units."""
    uniform = rng.uniform
    image = ndimage.gaussian_filter(image, (uniform(0.2, 0.5), *[uniform(0.5, 0.9)] * 2))
    bias = np.exp(uniform(0.05, 0.2) * _smooth_field(rng, image.shape, 3))
    noise = uniform(0.025, 0.055)
    image = np.clip(image, 0, None) ** uniform(0.85, 1.2) * bias + noise * white[0]
    return np.sqrt(image**2 + (noise * white[1]) ** 2) * uniform(400, 1200)


def _write(array: np.ndarray, path: Path) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING_XYZ)
    with replacing(path, ".nii.gz") as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)


def write_phantom_dataset(
    raw: Path,
    dataset: str = "Dataset990_Phantom",
    training: int = 24,
    test: int = 8,
    seed: int = 0,
    shape: Shape = (24, 64, 64),
) -> Path:
    """Write a raw nnU-Net dataset under ``raw`` and return its folder.

    The truth of the held-out cases goes to ``labelsTs``. ``dataset.json`` comes last: a folder without it was
    interrupted. A case depends only on ``seed`` and its place in its part: asking for more keeps the others.
    """
    if training < 1 or test < 0:
        raise LimitedError(f"a phantom has training >= 1 and test >= 0 cases, not {training} and {test}; correct them")
    folder = Path(raw) / dataset
    parts = {"Tr": range(training), "Ts": range(training, training + test)}
    wanted = {f"images{p}/case_{i:03d}_0000.nii.gz" for p, cases in parts.items() for i in cases}
    wanted |= {f"labels{p}/case_{i:03d}.nii.gz" for p, cases in parts.items() for i in cases}
    present = {f"{sub}/{file.name}" for sub in _FOLDERS for file in (folder / sub).glob("*")}
    if present - wanted:
        extra = folder / min(present - wanted)
        raise LimitedError(f"{extra} does not belong to this phantom dataset; delete {folder} or use another name")
    description = folder / "dataset.json"
    description.unlink(missing_ok=True)
    for sub in _FOLDERS:
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for number, (part, cases) in enumerate(parts.items()):
        for place, case in enumerate(cases):
            case_seed = int(np.random.SeedSequence([seed, number, place]).generate_state(1)[0])
            image, label = phantom_case(case_seed, shape)
            _write(image.astype(np.int16), folder / f"images{part}" / f"case_{case:03d}_0000.nii.gz")
            _write(label, folder / f"labels{part}" / f"case_{case:03d}.nii.gz")
    content = dict(channel_names={"0": "MRI"}, labels=LABELS, numTraining=training, file_ending=".nii.gz")
    write_json(description, content)
    return folder
