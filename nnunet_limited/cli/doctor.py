"""``nnunet-limited doctor`` and ``nnunet-limited path``."""

from __future__ import annotations

import typer

from nnunet_limited.cli.output import JsonOption, console, show_json


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("doctor")(doctor)
    app.command("path")(path)


def path() -> None:
    """Print the folder to put into nnUNet_extTrainer where Python's .pth files are not read.

    Example: export nnUNet_extTrainer=$(nnunet-limited path)
    """
    from nnunet_limited.host.discovery import extension_folder

    print(extension_folder())


def doctor(as_json: JsonOption = False) -> None:
    """Check that nnU-Net, torch, the folders and the trainers are in order, and say how to mend what is not.

    Example: nnunet-limited doctor
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
