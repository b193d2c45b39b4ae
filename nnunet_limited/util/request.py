"""What a command or a study asks for, and the types of fields that the command line writes as text."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo
from typing_extensions import Self

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.files import utf8_text


class Request(BaseModel):
    """Keyword arguments, checked and frozen; the description of a field is the help text of its option."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True, coerce_numbers_to_str=True
    )

    def changed(self, **changes: Any) -> Self:
        """Return a request with other values, without the cached properties of this one."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**given, **changes})


def _option(info: ValidationInfo) -> str:
    return f"--{str(info.field_name).replace('_', '-')}"


def parse_voxels(text: str, option: str) -> tuple[int, ...]:
    """Return the numbers of a size such as ``8x64x64``."""
    parts = text.split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise LimitedError(f"{option} {text} is not of the form 8x64x64; give the number of voxels along each axis")
    return tuple(map(int, parts))


def _voxels(value: Any, info: ValidationInfo) -> Any:
    return parse_voxels(value, _option(info)) if isinstance(value, str) else value


def _cases(value: Any, info: ValidationInfo) -> Any:
    """Return the names in a file of case names, one per line; blank lines and lines that begin with # do not count."""
    if not isinstance(value, (str, Path)):
        return value
    option, file, remedy = _option(info), Path(value), "write one case name per line"
    if not file.is_file():
        raise LimitedError(f"{option} {file} does not exist; {remedy} into it")
    lines = [line.strip() for line in utf8_text(file, option).splitlines()]
    cases = tuple(line for line in lines if line and not line.startswith("#"))
    if not cases:
        raise LimitedError(f"{option} {file} names no case; {remedy}")
    return cases


Voxels = Annotated[tuple[int, ...], BeforeValidator(_voxels, json_schema_input_type=str)]
CaseList = Annotated[tuple[str, ...], BeforeValidator(_cases, json_schema_input_type=Path)]
