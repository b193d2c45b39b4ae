"""What the pictures of a report have in common: a caption, a text for those who do not see them, colours, their PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from matplotlib.figure import Figure

from nnunet_limited.report.overlays import COLOURS

DPI = 110
MARKERS = "osD^vP*X"


@dataclass(frozen=True)
class Picture:
    """A figure with its caption and its alternative text."""

    figure: Figure
    caption: str
    text: str


def styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the colour and the marker of each name, the same in every picture."""
    pairs = zip(names, cycle(COLOURS), cycle(MARKERS), strict=False)
    return {name: {"color": colour, "marker": marker} for name, colour, marker in pairs}


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """Return a figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def inline(figure: Figure, content: bytes, dpi: int = DPI) -> dict[str, Any]:
    """Return what a page needs to embed a figure: its PNG in base64 (``data``), ``width`` and ``height`` in pixels."""
    width, height = (round(dpi * inches) for inches in figure.get_size_inches())
    return {"data": base64.b64encode(content).decode(), "width": width, "height": height}
