"""``nnunet-limited path``."""

from __future__ import annotations

import typer

from nnunet_limited.cli.options import PLUMBING, add_command


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, path, panel=PLUMBING)


def path() -> None:
    """Print the folder to add to nnUNet_extTrainer where Python does not read .pth files.

    Example:
    export nnUNet_extTrainer=$(nnunet-limited path)
    """
    from nnunet_limited.host.discovery import extension_folder

    print(extension_folder())
