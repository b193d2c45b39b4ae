"""The kinds of studies: which one a folder holds, and its report."""

from pathlib import Path

from nnunet_limited.studies.active.folder import ActiveFolder
from nnunet_limited.studies.comparison.folder import ComparisonFolder
from nnunet_limited.studies.engine.folder import StudyFolder


def folder_at(path: Path) -> StudyFolder:
    """Return the study in a folder: a simulated loop of active learning, or else a comparison study."""
    active = ActiveFolder(path)
    return ComparisonFolder(path) if active.fresh else active


def make_report(folder: StudyFolder, out: Path | None = None) -> list[Path]:
    """Write the report of what is done so far into ``out`` (default: ``report/`` of the study); return its files."""
    from nnunet_limited.studies.active.report import make_active_report
    from nnunet_limited.studies.comparison.report import make_comparison_report

    out = out or folder.path / "report"
    if isinstance(folder, ActiveFolder):
        return make_active_report(folder, out)
    assert isinstance(folder, ComparisonFolder)
    return make_comparison_report(folder, out)
