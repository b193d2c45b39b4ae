"""What a command or a study asks for."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from typing_extensions import Self


class Request(BaseModel):
    """Keyword arguments, checked and frozen; the description of a field is the help text of its option."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True)

    def changed(self, **changes: Any) -> Self:
        """Return a request with other values, without the cached properties of this one."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**given, **changes})
