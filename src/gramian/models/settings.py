"""Settings of a model as plain data: what a recipe is before it trains, and what a model remembers of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gramian.core.parameters import Range, check_fields
from gramian.core.plain import Plain

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A frozen dataclass: comparable, printable, and JSON-able; its fields are checked when it is made."""

    name: ClassVar[str]
    # The field that says how long a training is; a checkpoint may be resumed with another value of it.
    length_field: ClassVar[str] = "epochs"
    # The extra that has to be installed for it to be trained.
    extra: ClassVar[str] = ""
    # Whether a training goes over the ratings by half-sweeps and sums alone, so that they can be on a cluster.
    distributed: ClassVar[bool] = False
    # Where tuning looks: a range or a tuple of choices for each field worth it.
    search_space: ClassVar[Mapping[str, Range | tuple[Any, ...]]] = {}

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def n_epochs(self) -> int:
        """How many epochs a full training has."""
        return int(getattr(self, self.length_field, 1))

    @property
    def waits(self) -> int | None:
        """How many epochs without a better validation error end a training; None where none do."""
        patience: int | None = getattr(self, "patience", None)
        return patience

    def to_dict(self) -> Plain:
        """The recipe's name and fields as plain data; :func:`gramian.recipe_from_dict` reads it back."""
        fields = dataclasses.asdict(self)
        return {"name": self.name} | {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}

    def to_json(self) -> str:
        """The same as JSON text."""
        return json.dumps(self.to_dict())

    def to_resume(self) -> Plain:
        """What a checkpoint and the training that goes on from it must share; it may be longer, and elsewhere."""
        free = (self.length_field, "n_jobs")
        return {name: value for name, value in self.to_dict().items() if name not in free}
