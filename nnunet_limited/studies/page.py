"""What pages of results are made of: sections with notes, sortable tables and pictures, all in one file."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader

from nnunet_limited.studies.figures import Picture
from nnunet_limited.studies.formats import Format
from nnunet_limited.util.files import replacing

DPI = 110


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


def table_of(caption: str, table: pd.DataFrame, formats: Sequence[Format]) -> dict[str, Any]:
    """Return a table for the page; cells sort by what they were made from."""
    rows: list[dict[str, Any]] = []
    for _, row in table.iterrows():
        cells = []
        for _, key, show in formats:
            value = row[key]
            number = isinstance(value, (int, float, np.number))
            known = number and not math.isnan(value)
            cells.append({"shown": show(row), "key": (value if known else "") if number else None, "text": not number})
        rows.append({"cells": cells, "best": bool(row.get("best", False))})
    columns = [
        {"name": name, "text": bool(rows) and rows[0]["cells"][n]["text"]} for n, (name, *_) in enumerate(formats)
    ]
    return {"caption": caption, "columns": columns, "rows": rows}


def embed(picture: Picture, out: Path, name: str, written: list[Path]) -> dict[str, Any]:
    """Write a picture beside the page and return it for the page."""
    buffer = io.BytesIO()
    picture.figure.savefig(buffer, format="png", dpi=DPI)
    file = out / "pictures" / f"{name}.png"
    with replacing(file) as temporary:
        temporary.write_bytes(buffer.getvalue())
    written.append(file)
    width, height = (round(DPI * inches) for inches in picture.figure.get_size_inches())
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"data": data, "caption": picture.caption, "text": picture.text, "width": width, "height": height}


def render(title: str, summary: str, missing: str, sections: Sequence[Section]) -> str:
    """Return the page."""
    environment = Environment(loader=PackageLoader("nnunet_limited.studies", ""), autoescape=True)
    template = environment.get_template("report.html")
    return template.render(title=title, summary=summary, missing=missing, sections=sections)
