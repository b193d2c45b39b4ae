"""The pages of the reference are those that the package would write now."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "reference.py"


def test_the_reference_is_current() -> None:
    spec = importlib.util.spec_from_file_location("reference", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    for name, content in (("commands.md", reference.commands()), ("trainers.md", reference.trainers())):
        assert (reference.REFERENCE / name).read_text(encoding="utf-8") == content, "run python scripts/reference.py"
