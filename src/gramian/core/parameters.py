"""Recipe fields that know their range, and the one sentence said when a value is outside it."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any

from gramian.errors import ParameterError

__all__ = ["Range", "check_choice", "check_fields", "check_level", "check_number", "param"]


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


def param(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    optional: bool = False,
    word: str | None = None,
    table: bool = False,
    most: int = 1,
    option: str | None = None,
) -> Any:
    """A dataclass field with its help text and range, checked by :func:`check_fields`.

    Args:
        default: The value used when nothing is given.
        help: One line: what it is, when to change it.
        low: Smallest value allowed (inclusive), for numbers.
        high: Largest value allowed (inclusive), for numbers.
        choices: The words allowed, for text.
        optional: Whether ``None`` is allowed.
        word: A word allowed in place of a number, such as ``"estimate"``.
        table: Whether it is a table, which the recipe checks by itself.
        most: How many numbers it may have; several are a tuple, and a tuple of one is that number.
        option: Its name on the command line, where its own means something else.
    """
    about = {"help": help, "low": low, "high": high, "choices": choices, "optional": optional, "word": word}
    about |= {"table": table, "most": most, "option": option}
    return dataclasses.field(default=default, metadata=about)


def check_fields(recipe: Any) -> None:
    """Raise ParameterError for the first field of a recipe whose value is outside its range."""
    owner = type(recipe).__name__
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        about = field.metadata
        if (value is None and about["optional"]) or (isinstance(value, str) and value == about["word"]):
            continue
        if about["table"]:
            continue
        if about["choices"] is not None:
            check_choice(field.name, value, about["choices"], owner)
        elif field.type in ("bool", bool):
            if not isinstance(value, bool):
                raise ParameterError(_sentence(field.name, owner, "True or False", value))
        else:
            whole, several = str(field.type).startswith("int"), about["most"] > 1 and isinstance(value, tuple | list)
            if several and not 1 <= len(value) <= about["most"]:
                raise ParameterError(_sentence(field.name, owner, f"1 to {about['most']} numbers", value))
            checked = tuple(
                check_number(field.name, one, low=about["low"], high=about["high"], whole=whole, word=about["word"],
                             owner=owner)
                for one in (value if several else [value])
            )  # fmt: skip
            object.__setattr__(recipe, field.name, checked[0] if len(checked) == 1 else checked)


def check_number(
    name: str,
    value: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    whole: bool = False,
    word: str | None = None,
    owner: str,
) -> int | float:
    """Return ``value`` as a plain int or float, or raise ParameterError with its range (and the other word allowed)."""
    inside = (
        isinstance(value, numbers.Integral if whole else numbers.Real)
        and value is not True
        and value is not False
        and math.isfinite(value)
        and (low is None or float(value) >= low)
        and (high is None or float(value) <= high)
    )
    if not inside:
        left = "(-inf" if low is None else f"[{low:g}"
        right = "inf)" if high is None else f"{high:g}]"
        kind = "a whole number" if whole else "a number"
        other = "" if word is None else f" or {word!r}"
        raise ParameterError(_sentence(name, owner, f"{kind} in {left}, {right}{other}", value))
    return int(value) if whole else float(value)


def check_level(name: str, value: Any, owner: str) -> float:
    """Return ``value`` as a float if it lies inside (0, 1), else raise ParameterError."""
    if isinstance(value, numbers.Real) and 0 < float(value) < 1:  # which leaves out True and False
        return float(value)
    raise ParameterError(_sentence(name, owner, "a number in (0, 1)", value))


def check_choice(name: str, value: Any, choices: tuple[str, ...], owner: str) -> str:
    """Return ``value`` if it is one of the words allowed, else raise ParameterError."""
    if not isinstance(value, str) or value not in choices:
        words = ", ".join(repr(c) for c in choices)
        raise ParameterError(_sentence(name, owner, f"one of {words}", value))
    return value


def _sentence(name: str, owner: str, expected: str, value: Any) -> str:
    return f"The {name!r} parameter of {owner} must be {expected}; got {value!r}."
