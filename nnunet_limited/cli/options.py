"""Options of commands: made from the fields of requests, or declared here once for all commands that share them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from annotated_types import Ge, Le, Lt
from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic.fields import FieldInfo

from nnunet_limited.errors import LimitedError

START, TRAIN, ANNOTATE = "Start", "Train", "Annotate"
PSEUDO_LABELS, COMPARE, PLUMBING = "Pseudo-labels", "Compare", "Plumbing"
PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}

FLAG = " "  # in place of a metavar, or typer would write <bool> behind a flag
# The option of a field is named after it, unless it stands here: these are nnU-Net's own.
FLAGS = {
    **{"trainer": "-tr", "plans": "-p", "planner": "-pl", "configurations": "-c", "processes": "-np"},
    # Declared because click would read -num_gpus as -n -u -m … and find the -p in it.
    **{"device": "-device", "num_gpus": "-num_gpus", "pretrained_weights": "-pretrained_weights"},
    "assignments": "--set",
}
METAVARS: dict[Any, str] = {
    **{int: "N", float: "X", str: "NAME", Path: "PATH", bool: FLAG},
    **{"dataset": "DATASET", "configuration": "CONFIGURATION", "prompter": "MODEL", "device": "DEVICE"},
    **{
        "labeled": "N|N%",
        "group_by": "REGEX",
        "labeled_from": "REGEX",
        "sources": "SOURCE,…",
        "size": "ZxYxX",
        "patch": "ZxYxX",
    },
    **dict.fromkeys(("labeled_cases", "test_cases", "published", "boxes", "points", "features"), "FILE"),
    **dict.fromkeys(("oracle", "folder", "labels"), "FOLDER"),
    **dict.fromkeys(("ask", "assignments"), "KEY=VALUE"),
    "pretrained_weights": "FILE",
}

DEVICE = "Device: cuda, mps or cpu; default: the first of these that works."
SETTINGS = (
    "Setting of the trainer, e.g. consistency_weight=0.3; repeatable. Plans with settings get a name of their own."
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="Number or name of the dataset.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help=SETTINGS)]
DeviceOption = Annotated[str | None, typer.Option("-device", metavar="DEVICE", help=DEVICE)]


def command(
    app: typer.Typer,
    panel: str | None = None,
    *,
    arguments: Sequence[str] = ("dataset", "configuration"),
    flags: Mapping[str, str] | None = None,
    metavars: Mapping[str, str] | None = None,
    groups: Mapping[str, str] | None = None,
    skip: Sequence[str] = (),
    **settings: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that makes a function a command of ``app``, under the title ``panel`` of its help.

    Where the function's first parameter is a request, each field of it becomes an argument, if it is one of
    ``arguments``, or an option, of which ``flags`` and ``metavars`` may give the name and the placeholder of its value.
    ``groups`` maps titles of the help to the names of the fields or parameters under them, separated by blanks; fields
    in ``skip`` have no option.
    """
    titles = {each: title for title, names in (groups or {}).items() for each in names.split()}

    def option(key: str, field: FieldInfo) -> inspect.Parameter:
        flag = None if key in arguments else (flags or {}).get(key, FLAGS.get(key, f"--{key.replace('_', '-')}"))
        return _parameter(key, field, flag, (metavars or {}).get(key, METAVARS.get(key)), titles.get(key))

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())
        request = own.pop(0).annotation if own and hasattr(own[0].annotation, "model_fields") else None
        shown = request.model_fields.items() if request else ()
        fields = [option(key, field) for key, field in shown if key not in skip]
        own = [p if p.annotation is typer.Context else _titled(p, titles.get(p.name)) for p in own]

        def run(**values: Any) -> None:
            if request is None:
                return function(**values)
            mine = {p.name: values.pop(p.name) for p in fields}
            return function(build(request, mine, {p.name: p.default for p in fields}), **values)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*fields, *own)]
        parameters.sort(key=lambda p: p.default is not inspect.Parameter.empty)  # required ones first
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
        text = "\n\n".join(p if p.startswith("Example") else p.replace("\n", " ") for p in paragraphs)
        app.command(function.__name__.replace("_", "-"), help=text, rich_help_panel=panel, **settings)(run)
        return function

    return decorate


def build(request: type[BaseModel], values: dict[str, Any], defaults: dict[str, Any]) -> Any:
    """Return the request that the values of its options make; those that were not given keep the fields' defaults."""
    given = {key: value for key, value in values.items() if value is not None and value != defaults[key]}
    try:
        return request(**given)
    except ValidationError as error:
        first = error.errors()[0]
        original = first.get("ctx", {}).get("error")
        if isinstance(original, LimitedError):
            raise original from error
        option = f"--{str(first['loc'][0]).replace('_', '-')}"
        raise LimitedError(f"{option} {first['input']}: {first['msg'].lower()}; give another value") from error


def _parameter(name: str, field: FieldInfo, flag: str | None, metavar: str | None, title: str | None) -> Any:
    """Return the parameter of a command that the ``field`` of a request amounts to."""
    kind, optional = _written(field)
    required = field.is_required()
    default = inspect.Parameter.empty if required else None if optional else field.default
    limits = _limits(field) if kind in (int, float) else {}
    metavar = None if get_origin(kind) is Literal else metavar or METAVARS.get(next(iter(get_args(kind)), kind))
    shown: dict[str, Any] = {"help": field.description, "metavar": metavar, "rich_help_panel": title, **limits}
    option = typer.Argument(**shown) if flag is None else typer.Option(flag, **shown)
    annotation: Any = Annotated[kind | None if optional and not required else kind, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _titled(parameter: inspect.Parameter, title: str | None) -> inspect.Parameter:
    """Return the ``parameter`` of a function with a placeholder for its value, under a title of the help."""
    kind, option = parameter.annotation.__origin__, copy(parameter.annotation.__metadata__[0])
    option.rich_help_panel = title
    option.metavar = option.metavar or METAVARS.get(next(iter(get_args(kind)), kind))
    return parameter.replace(annotation=Annotated[kind, option])


def _written(field: FieldInfo) -> tuple[Any, bool]:
    """Return the type of a field as the command line reads it, and whether its option may be left out as None."""
    kind = field.annotation
    parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    single = next(part for part in parts if part is not NoneType)
    optional = len(parts) > 1 or field.default_factory is not None
    for one in (*field.metadata, *getattr(single, "__metadata__", ())):
        if isinstance(one, BeforeValidator):
            return one.json_schema_input_type, True
    if get_origin(single) is tuple:
        return list[get_args(single)[0]], True  # type: ignore[misc]
    return single, optional


def _limits(field: FieldInfo) -> dict[str, Any]:
    """Return the smallest and the largest value of a field's option."""
    found: dict[str, Any] = {}
    for one in field.metadata:
        if isinstance(one, Ge):
            found["min"] = one.ge
        elif isinstance(one, Le):
            found["max"] = one.le
        elif isinstance(one, Lt) and isinstance(one.lt, int):
            found["max"] = one.lt - 1
    return found
