from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from nnunet_limited.host import doctor


def test_the_supported_releases_are_those_that_the_package_requires() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    [required] = re.findall(r'"(nnunetv2[^"]*)"', text)
    assert Requirement(required).specifier == Requirement(f"nnunetv2{doctor.SUPPORTED}").specifier


@pytest.mark.parametrize(
    ("version", "ok"),
    [("2.8", True), ("2.8.1", True), ("2.8.2rc1", True), ("2.7.9", False), ("2.9", False), ("2.80.0", False)],
)
def test_doctor_reports_releases_of_nnunet_that_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, version: str, ok: bool
) -> None:
    installed = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: version if name == "nnunetv2" else installed(name))
    monkeypatch.setattr(doctor, "_runs", lambda what, *_: doctor.Finding(what, True, "works"))
    finding = doctor.examine()[0]
    assert (finding.what, finding.ok, finding.found) == ("nnunetv2", ok, version)
    assert finding.remedy == ("" if ok else "pip install 'nnunetv2>=2.8,<2.9'")
