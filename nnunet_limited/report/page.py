"""HTML pages that need no other file: templates filled with sections of notes, sortable tables, pictures and text."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from nnunet_limited.report.figures import Picture
from nnunet_limited.util.files import replacing


@dataclass
class Section:
    """A section of a page; ``pictures`` are by the names of their files, ``blocks`` of text by their titles."""

    title: str
    notes: list[str] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[str, Picture] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)


def write_pictures(sections: Iterable[Section], folder: Path) -> list[Path]:
    """Write the pictures of all sections as PNG files; return the files."""
    files = {folder / f"{name}.png": one for section in sections for name, one in section.pictures.items()}
    for file, picture in files.items():
        with replacing(file) as temporary:
            temporary.write_bytes(picture.png)
    return list(files)


def render(template: str, **content: Any) -> str:
    """Return the page that a file of ``templates/`` makes of its ``content``; values are escaped."""
    environment = Environment(loader=PackageLoader("nnunet_limited.report"), autoescape=True)
    return environment.get_template(template).render(content)
