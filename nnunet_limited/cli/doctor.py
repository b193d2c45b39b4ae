"""``nnunet-limited doctor``."""

from __future__ import annotations

import typer

from nnunet_limited.cli.options import START, JsonOption, add_command
from nnunet_limited.cli.output import console, show_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, doctor, panel=START)


def doctor(as_json: JsonOption = False) -> None:
    """Check nnU-Net, torch, folders and trainers, and print how to fix what is wrong.

    Example:
    nnunet-limited doctor
    """
    from nnunet_limited.host.doctor import examine

    findings = examine()
    healthy = all(finding.ok for finding in findings)
    if as_json:
        show_json({"ok": healthy, "findings": [finding._asdict() for finding in findings]})
    else:
        for finding in findings:
            mark = "[green]ok  [/green]" if finding.ok else "[red]FAIL[/red]"
            console.print(f"{mark} {finding.what}: {finding.found}", highlight=False)
            if not finding.ok:
                console.print(f"     {finding.remedy}", highlight=False)
    raise typer.Exit(0 if healthy else 1)
