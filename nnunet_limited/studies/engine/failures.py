"""Failed and missing runs: how a failure is recorded, and how it is reported."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

STATES = ("done", "failed", "started", "trained", "waiting")
LISTED = 10


class RunState(NamedTuple):
    """A run, its state (one of :data:`STATES`), and the log to look at, if there is one."""

    run: Any
    state: str
    log: Path | None


def failed_marker(log: Path) -> Path:
    """Return the file whose presence means that the step of a log failed."""
    return log.with_suffix(".failed")


def counted(found: Sequence[RunState]) -> str:
    """Return how many runs are in which state."""
    counts = Counter(one.state for one in found)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def missing(found: Sequence[RunState]) -> str:
    """Return which runs failed and how many are not done yet; empty if all are done."""
    failed = [one.run.identifier for one in found if one.state == "failed"]
    others = sum(one.state not in ("done", "failed") for one in found)
    more = f" and {len(failed) - LISTED} more" if len(failed) > LISTED else ""
    parts = [f"{len(failed)} run{'s' * (len(failed) > 1)} failed: {', '.join(failed[:LISTED])}{more}"] if failed else []
    return "; ".join(parts + ([f"not done yet: {others} of {len(found)} runs"] if others else []))


def log_ends(found: Sequence[RunState], lines: int = 15) -> dict[str, str]:
    """Return the last lines of the log of each failed run, by a title for a page."""
    return {
        f"End of the log of {run.identifier}, which failed": "\n".join(
            log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        )
        for run, state, log in found
        if state == "failed" and log is not None
    }
