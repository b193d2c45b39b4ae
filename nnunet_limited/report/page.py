"""What pages of results are made of: sections with notes, sortable tables and pictures, all in one file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from nnunet_limited.report.figures import Picture, inline, png
from nnunet_limited.util.files import replacing


@dataclass
class Section:
    """A part of the page."""

    title: str
    notes: list[str] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)
    blocks: list[dict[str, str]] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """Return its name in addresses."""
        return self.title.lower().replace(" ", "-")


def embed(picture: Picture, out: Path, name: str, written: list[Path]) -> dict[str, Any]:
    """Write a picture beside the page and return it for the page."""
    content = png(picture.figure)
    file = out / "pictures" / f"{name}.png"
    with replacing(file) as temporary:
        temporary.write_bytes(content)
    written.append(file)
    return {**inline(picture.figure, content), "caption": picture.caption, "text": picture.text}


def render(template: str, **content: Any) -> str:
    """Return the page that a file of ``templates/`` makes of its ``content``; values are escaped."""
    environment = Environment(loader=PackageLoader("nnunet_limited.report"), autoescape=True)
    return environment.get_template(template).render(content)
