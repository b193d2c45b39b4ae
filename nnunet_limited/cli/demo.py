"""``nnunet-limited crossval``."""

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
