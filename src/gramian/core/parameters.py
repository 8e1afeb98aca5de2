"""Recipe fields that know their range, and the one sentence said when a value is outside it."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

from gramian.errors import ParameterError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["FieldSpec", "Range", "check_choice", "check_fields", "check_level", "check_number", "param"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Range:
    """Where to look for a good value of a field.

    Attributes:
        low: The smallest value.
        high: The largest.
        log: Whether equal ratios are as likely as equal steps are otherwise.
        whole: Whether only whole numbers count.
        power: The ends are for ratings of standard deviation 1 and grow with this power of it: 1 for a penalty of
            factors, whose product is a rating.
    """

    low: float
    high: float
    log: bool = True
    whole: bool = False
    power: int = 0

    def ends(self, spread: float) -> tuple[float, float]:
        """The smallest and the largest value, for ratings of this standard deviation."""
        return self.low * spread**self.power, self.high * spread**self.power


class About(TypedDict, total=False):
    """What a field of a recipe may have beside its default and its help.

    Attributes:
        low: Smallest value allowed (inclusive), for numbers.
        high: Largest value allowed (inclusive), for numbers.
        choices: The words allowed, for text.
        optional: Whether ``None`` is allowed.
        word: A word allowed in place of a number, such as ``"estimate"``.
        table: Whether it is a table, which the recipe checks by itself.
        most: How many numbers it may have; several are a tuple, and a tuple of one is that number.
        option: Its name on the command line, where its own means something else.
    """

    low: float | None
    high: float | None
    choices: tuple[str, ...] | None
    optional: bool
    word: str | None
    table: bool
    most: int
    option: str | None


@dataclasses.dataclass(frozen=True)
class FieldSpec:
    """What :func:`param` says of a field; see :class:`About`."""

    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    optional: bool = False
    word: str | None = None
    table: bool = False
    most: int = 1
    option: str | None = None

    @staticmethod
    def kind(field: dataclasses.Field[Any]) -> str:
        """The first word of a field's type, ``"int"`` of ``int | None``, whether it is kept as text or as a type."""
        written = field.type.__name__ if isinstance(field.type, type) else str(field.type)
        return written.split(" ")[0]

    @classmethod
    def of(cls, field: dataclasses.Field[Any]) -> FieldSpec:
        """That of a field which :func:`param` made."""
        return cls(**field.metadata)


def param(default: T, help: str, **about: Unpack[About]) -> T:
    """A dataclass field with its help text and range, checked by :func:`check_fields`.

    Args:
        default: The value used when nothing is given.
        help: One line: what it is, when to change it.
        **about: What it may be; see :class:`About`.
    """
    return dataclasses.field(default=default, metadata=vars(FieldSpec(help, **about)))


def check_fields(recipe: DataclassInstance) -> None:
    """Raise ParameterError for the first field of a recipe whose value is outside its range."""
    for field in dataclasses.fields(recipe):
        spec, value = FieldSpec.of(field), getattr(recipe, field.name)
        if spec.table or (value is None and spec.optional) or (isinstance(value, str) and value == spec.word):
            continue
        if spec.choices is not None:
            check_choice(field.name, value, spec.choices, type(recipe).__name__)
        elif FieldSpec.kind(field) == "bool":
            if not isinstance(value, bool):
                raise ParameterError(_sentence(field.name, type(recipe).__name__, "True or False", value))
        else:
            object.__setattr__(recipe, field.name, _numbers(field, value, type(recipe).__name__))


def _numbers(field: dataclasses.Field[Any], value: object, owner: str) -> float | tuple[float, ...]:
    """The number or, where a field may have several, the numbers of a value, checked."""
    spec = FieldSpec.of(field)
    each = value if spec.most > 1 and isinstance(value, tuple | list) else (value,)
    if not 1 <= len(each) <= spec.most:
        raise ParameterError(_sentence(field.name, owner, f"1 to {spec.most} numbers", value))
    whole = FieldSpec.kind(field) == "int"
    limits = {"low": spec.low, "high": spec.high}
    checked = tuple(check_number(field.name, one, **limits, whole=whole, word=spec.word, owner=owner) for one in each)
    return checked[0] if len(checked) == 1 else checked


def check_number(
    name: str,
    value: object,
    *,
    low: float | None = None,
    high: float | None = None,
    whole: bool = False,
    word: str | None = None,
    owner: str,
) -> int | float:
    """Return ``value`` as a plain int or float, or raise ParameterError with its range (and the other word allowed)."""
    if (
        not isinstance(value, bool)
        and isinstance(value, numbers.Integral if whole else numbers.Real)
        and math.isfinite(value)
        and (low is None or float(value) >= low)
        and (high is None or float(value) <= high)
    ):
        return int(value) if whole and isinstance(value, numbers.Integral) else float(value)
    left = "(-inf" if low is None else f"[{low:g}"
    right = "inf)" if high is None else f"{high:g}]"
    kind = "a whole number" if whole else "a number"
    other = "" if word is None else f" or {word!r}"
    raise ParameterError(_sentence(name, owner, f"{kind} in {left}, {right}{other}", value))


def check_level(name: str, value: object, owner: str) -> float:
    """Return ``value`` as a float if it lies inside (0, 1), else raise ParameterError."""
    if isinstance(value, numbers.Real) and 0 < float(value) < 1:  # which leaves out True and False
        return float(value)
    raise ParameterError(_sentence(name, owner, "a number in (0, 1)", value))


def check_choice(name: str, value: object, choices: tuple[str, ...], owner: str) -> str:
    """Return ``value`` if it is one of the words allowed, else raise ParameterError."""
    if not isinstance(value, str) or value not in choices:
        words = ", ".join(repr(c) for c in choices)
        raise ParameterError(_sentence(name, owner, f"one of {words}", value))
    return value


def _sentence(name: str, owner: str, expected: str, value: object) -> str:
    return f"The {name!r} parameter of {owner} must be {expected}; got {value!r}."
