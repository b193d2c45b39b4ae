"""Write docs/reference/ from the package: every command with its options, every trainer with its settings.

python scripts/reference.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer.main

from nnunet_limited.cli.main import app
from nnunet_limited.trainers.catalogue import describe, trainer_names

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
NOTE = "<!-- Written by scripts/reference.py; do not edit. -->"
COSTS = "Costs were measured in 2D with `--size tiny` on one CPU core; memory is that of activations and gradients."


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Return the lines of a Markdown table."""
    cells = [columns, tuple("---" for _ in columns), *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in row) + " |" for row in cells]


def options(command: Any) -> list[tuple[str, ...]]:
    """Return a row for each argument and option of a command."""
    rows = []
    for parameter in sorted(command.params, key=lambda one: one.param_type_name != "argument"):
        names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
        if parameter.param_type_name == "argument":
            names = f"`{parameter.metavar or parameter.name.upper()}`"
        default = parameter.default if not callable(parameter.default) else None
        shown = (
            "" if default is None or default is False or default in ((), []) or parameter.required else f"`{default}`"
        )
        if parameter.required and parameter.param_type_name != "argument":
            shown = "required"
        kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)  # releases of typer differ
        values = (
            get_args(kind) if get_origin(kind) is Literal else getattr(getattr(parameter, "type", None), "choices", ())
        )
        choices = ", ".join(f"`{value}`" for value in values)
        if "help" not in parameter.name:
            text = getattr(parameter, "help", None) or ""
            rows.append((names, f"{text} ({choices})" if choices else text, shown))
    return rows


def commands() -> str:
    """Return the page of the commands."""
    lines = ["# Commands", "", NOTE, ""]

    def add(name: str, command: Any) -> None:
        for inner, further in getattr(command, "commands", {}).items():
            add(f"{name} {inner}", further)
        if getattr(command, "commands", None):
            return
        text, _, example = (command.help or "").partition("Example")
        example = "\n".join(
            line.strip() for line in example.lstrip("s:").replace("\b", "").splitlines() if line.strip()
        )
        lines.extend([f"## {name}", "", text.replace("\b", "").strip(), "", "```bash", example, "```", ""])
        lines.extend([*table(("argument or option", "meaning", "default"), options(command)), ""])

    add("nnunet-limited", typer.main.get_command(app))
    return "\n".join(lines).rstrip() + "\n"


def trainers() -> str:
    """Return the page of the trainers."""
    lines = ["# Trainers", "", NOTE, "", COSTS, ""]
    shared: dict[str, Any] = {}
    for name in trainer_names():
        card = describe(name)
        short = f" (`{card['short_name']}`)" if card["short_name"] else ""
        lines += [f"## `{name}`{short}", "", card["summary"], "", card["details"], ""]
        lines += [f"Source: {card['paper']}", ""] if card["paper"] else []
        cost = f"{card['relative_time']:g} × the time of a step, {card['relative_memory']:g} × the memory"
        lines += [f"Cost: {cost} of supervised training.", ""]
        if not shared:
            shared = describe("LimitedSupervisedTrainer")["settings"]
        own = {key: value for key, value in card["settings"].items() if shared.get(key) != value}
        if own:
            rows = [(f"`{key}`", value["description"] or "", f"`{value['default']}`") for key, value in own.items()]
            lines += [*table(("setting", "meaning", "default"), rows), ""]
    rows = [(f"`{key}`", value["description"] or "", f"`{value['default']}`") for key, value in shared.items()]
    lines += ["## Settings of every trainer", "", *table(("setting", "meaning", "default"), rows)]
    return "\n".join(line for n, line in enumerate(lines) if line or lines[n - 1 : n] != [""]).rstrip() + "\n"


def main() -> None:
    """Write both pages."""
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, content in (("commands.md", commands()), ("trainers.md", trainers())):
        (REFERENCE / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
