"""The exceptions and warnings of Gramian.

Every message is one sentence in three parts: what was wrong; what was found; what to do.
"""


class GramianError(Exception):
    """The base of every error that Gramian raises on purpose."""


class DataError(GramianError, ValueError):
    """The ratings, ids or a file of them cannot be used as they are."""


class ParameterError(GramianError, ValueError):
    """An argument or a recipe's field is outside its range."""


class UnknownIdError(GramianError, KeyError):
    """A user or an item that the model has never seen, where that is not allowed."""

    def __str__(self) -> str:
        """Show the sentence itself; KeyError would show its repr."""
        return str(self.args[0]) if self.args else ""


class FormatError(GramianError, ValueError):
    """A model file that is damaged, newer than this library, or not ours."""


class DivergenceError(GramianError, ArithmeticError):
    """A training whose numbers are no longer finite; the last good state is kept where there is one."""


class GramianWarning(UserWarning):
    """The base of every warning that Gramian gives."""


class DataWarning(GramianWarning):
    """Something in the data was handled by a stated policy and the user should know."""


class UnknownIdWarning(GramianWarning):
    """Some ids were unknown and were predicted from what the biases know."""


class TrainingWarning(GramianWarning):
    """A training ended earlier than asked, or needed a numerical rescue."""
