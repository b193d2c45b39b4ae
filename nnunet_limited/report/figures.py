"""Pictures of pages: their PNG, a caption, a text for those who do not see them, and colours of methods."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from matplotlib.figure import Figure

from nnunet_limited.report.overlays import COLOURS, save_png

DPI = 110
MARKERS = "osD^vP*X"


@dataclass(frozen=True)
class Picture:
    """A PNG file with its size in pixels, its caption and its alternative text."""

    png: bytes
    width: int
    height: int
    caption: str = ""
    text: str = ""

    @property
    def data(self) -> str:
        """Return the file in base64, to embed it in a page."""
        return base64.b64encode(self.png).decode()


def picture(figure: Figure, caption: str = "", text: str = "", dpi: int = DPI) -> Picture:
    """Draw a figure."""
    buffer = io.BytesIO()
    save_png(figure, buffer, dpi)
    width, height = (round(dpi * inches) for inches in figure.get_size_inches())
    return Picture(buffer.getvalue(), width, height, caption, text)


def styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the colour and the marker of each name, the same in every picture."""
    pairs = zip(names, cycle(COLOURS), cycle(MARKERS), strict=False)
    return {name: {"color": colour, "marker": marker} for name, colour, marker in pairs}
