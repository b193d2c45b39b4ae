"""Pages: sections, pictures and what is escaped."""

from __future__ import annotations

import base64
from pathlib import Path

from matplotlib.figure import Figure

from nnunet_limited.report.figures import picture
from nnunet_limited.report.page import Section, render, write_pictures


def test_a_page_holds_its_pictures_and_escapes_its_text(tmp_path: Path) -> None:
    made = picture(Figure(figsize=(2, 1)), "A caption.", 'A "text"', dpi=50)
    assert (made.width, made.height) == (100, 50)
    section = Section("All runs", ["a < b"], pictures={"one": made})
    page = render("study.html", title="<T>", summary="", missing="", sections=[section])
    assert f'src="data:image/png;base64,{made.data}" alt="A &#34;text&#34;" width="100" height="50"' in page
    assert base64.b64decode(made.data).startswith(b"\x89PNG")
    assert '<h2 id="all-runs">All runs</h2>' in page
    assert "&lt;T&gt;" in page
    assert "a &lt; b" in page
    assert [file.read_bytes() for file in write_pictures([section], tmp_path)] == [made.png]
