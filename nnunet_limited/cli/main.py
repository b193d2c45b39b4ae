"""The ``nnunet-limited`` command."""

import os
import sys
import warnings
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer

from nnunet_limited import __version__
from nnunet_limited.cli import annotate, compare, pseudo_labels, start, train, trainers
from nnunet_limited.cli.options import FLAG, PLUMBING, command
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.discovery import export_extension_folder, extension_folder
from nnunet_limited.util.files import FULL, unwritable
from nnunet_limited.util.names import printable
from nnunet_limited.util.parallel import default_processes
from nnunet_limited.util.processes import protect_children, use_utf8

# typer may carry its own copy of click; its base class of usage errors is reached through what typer exports.
USAGE_ERROR: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    help="Train nnU-Net v2 well when labels are scarce.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (start, train, trainers, annotate, pseudo_labels, compare):  # in the order of the help
    app.registered_commands += module.app.registered_commands
    app.registered_groups += module.app.registered_groups


@command(app, PLUMBING)
def path() -> None:
    """Print the folder to set as nnUNet_extTrainer if nnU-Net does not find the trainers by itself.

    Example:
    export nnUNet_extTrainer=$(nnunet-limited path)
    """
    print(extension_folder())


def _version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", metavar=FLAG, callback=_version, is_eager=True, help="Print the version and exit.")
]


@app.callback()
def _callback(version: VersionOption = False) -> None:
    pass


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit status 2."""
    use_utf8()
    protect_children()
    export_extension_folder()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve a small machine
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")  # of what nnU-Net imports
    try:
        os.environ.setdefault("nnUNet_def_n_proc", str(default_processes()))
        status = app(standalone_mode=False)
    except LimitedError as error:
        sys.exit(_report(str(error)))
    except USAGE_ERROR as error:
        message = _usage(error)
        sys.exit(_report(f"{message} (see {_command()} --help)") if message else 2)
    except OSError as error:
        if error.errno not in FULL:
            raise
        sys.exit(_report(str(unwritable(Path(error.filename or "a file"), error))))
    except (KeyboardInterrupt, typer.Abort) as error:
        if isinstance(error.__cause__, EOFError):  # which click takes for an interruption
            raise error.__cause__ from None
        again = "with --c " if _command().endswith(" train") else ""
        print(f"\n{_command()}: interrupted; run it again {again}to resume", file=sys.stderr)
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)


def _command() -> str:
    known = {command.name for command in app.registered_commands}
    groups = {group.name for group in app.registered_groups}
    words = [argument for argument in sys.argv[1:2] if argument in known | groups]
    words += [argument for argument in sys.argv[2:3] if words and words[0] in groups and not argument.startswith("-")]
    return " ".join(["nnunet-limited", *words])


def _usage(error: Any) -> str:
    """Return the message of a usage error with the wrong value, which some versions of click leave out."""
    message: str = error.format_message()
    options = getattr(getattr(error, "param", None), "opts", ())
    for argument, following in zip_longest(sys.argv[1:], sys.argv[2:], fillvalue=""):
        name, equals, value = argument.partition("=")
        given = value if equals else following
        if name in options and given and repr(given) not in message:
            return f"{message}, not {given!r}"
    return message


def _report(message: str) -> int:
    print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return 2
