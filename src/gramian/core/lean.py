"""What is computed of a thing when it is first asked for stays where it is: it does not travel with the thing."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

from gramian.core.plain import Plain

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Lean"]


class Lean:
    """A dataclass of which a pickle or a copy has the fields alone, and no cached property."""

    def __getstate__(self) -> Plain:
        fields = dataclasses.fields(cast("DataclassInstance", self))
        return {field.name: getattr(self, field.name) for field in fields}
