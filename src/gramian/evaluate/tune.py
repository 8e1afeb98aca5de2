"""With which settings? A search over a recipe's declared space, on validation ratings cut from the training ratings.

The first trial is the default recipe, so the best is never worse on the validation ratings. Trials that fall behind
the median of the others at the same epoch are stopped. The number of epochs is not searched: every trial's validation
curve says where it was best. Optuna (the extra ``tune``) proposes the points: TPE, Bergstra et al. 2011.
"""

from __future__ import annotations

import dataclasses
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from gramian.core.parameters import Range, check_number
from gramian.core.plain import Plain
from gramian.data.ratings import Ratings
from gramian.errors import DataError, GramianError, ParameterError
from gramian.evaluate.log import append_record, check_log, versions
from gramian.evaluate.protocols import cut_off
from gramian.models import training
from gramian.models.model import check_ratings_given
from gramian.models.recipe import AnyRecipe
from gramian.registry import make_recipe

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

__all__ = ["Tuned", "tune"]

FOLDS = 3  # what one random part favours is partly luck
Parts = tuple[tuple[Ratings, Ratings], ...]  # training and validation ratings


@dataclass(frozen=True, eq=False)
class Tuned:
    """What :func:`tune` found.

    Attributes:
        recipe: The best recipe, with the number of epochs that was best for it: fit it on all training ratings.
        rmse: Its validation error. It was chosen for being small, so test ratings will show a larger one.
        default_rmse: That of the recipe begun with.
        trials: A table: ``trial``, ``state``, ``rmse``, ``epoch``, and the settings.
        curve: The validation RMSE of the best trial after each epoch.
        importances: The share of each setting in how the errors differ (PED-ANOVA); empty after few trials.
        interrupted: Whether an interrupt ended the search.
    """

    recipe: AnyRecipe
    rmse: float
    default_rmse: float | None
    trials: pl.DataFrame
    curve: list[float]
    importances: dict[str, float]
    interrupted: bool = False

    @property
    def python(self) -> str:
        """The best recipe as Python."""
        fields = ", ".join(f"{name}={value!r}" for name, value in self._changed().items())
        return f"gm.{type(self.recipe).__name__}({fields})"

    @property
    def command(self) -> str:
        """The best recipe as a command line."""
        words = [f"gramian fit RATINGS --model {self.recipe.name}"]
        for name, value in self._changed().items():
            option = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
            else:
                words.append(f"--{option} {value}")
        return " ".join(words)

    def _changed(self) -> Plain:
        fields = [(field.name, field.default) for field in dataclasses.fields(self.recipe)]
        return {name: getattr(self.recipe, name) for name, usual in fields if getattr(self.recipe, name) != usual}

    def to_dict(self) -> Plain:
        """Everything as plain data."""
        made = {"recipe": self.recipe.to_dict(), "python": self.python, "command": self.command}
        made |= {name: getattr(self, name) for name in ("rmse", "default_rmse", "curve", "importances", "interrupted")}
        return {**made, "trials": self.trials.to_dicts()}

    def __str__(self) -> str:
        before = "" if self.default_rmse is None else f", {self.default_rmse:.4f} before"
        lines = [f"validation RMSE {self.rmse:.4f}{before}, {self.trials.height} trials", self.python, self.command]
        if self.importances:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in self.importances.items())
            lines.append(f"what mattered: {shares}")
        return "\n".join(lines)


def tune(  # noqa: PLR0913 - its options are the user's
    recipe: AnyRecipe | str,
    ratings: Ratings,
    *,
    trials: int = 50,
    seconds: float | None = None,
    validation: float | Ratings = 0.1,
    protocol: str = "random",
    folds: int | None = None,
    seed: int = 0,
    storage: str | os.PathLike[str] | None = None,
    resume: bool = False,
    jobs: int = 1,
    log: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Tuned:
    """Search for the settings with the least validation RMSE.

    Args:
        recipe: Where to begin, or its name. Settings outside its ``search_space`` stay as they are.
        ratings: The training ratings; never the test.
        trials: How many settings are tried, those of an earlier, resumed search included.
        seconds: Begin no trial after so long.
        validation: The share to cut off, or validation ratings.
        protocol: How a share is cut: ``"random"``, ``"time"`` or ``"last"``.
        folds: How many validation parts are cut, each with training ratings of its own; the error is the mean over
            them. More cost as many fits per trial, and leave less to luck. 3 if not given; 1 by ``"time"``, where
            each part lies before the last, and ``"last"``.
        seed: Of the split and the search.
        storage: An SQLite file to keep every trial in.
        resume: Go on with the search that the storage has.
        jobs: Trials at a time; they share the cores. With more than one the search depends on their timing.
        log: A file to append a JSON line to after each trial, as :func:`gramian.compare` does after each model.
        progress: Show a bar on stderr.

    Raises:
        ParameterError: An argument is outside its range, or the recipe has nothing to tune.
        DataError: The storage has a search already and ``resume`` was not said, or no trial came to an end.
        GramianError: Optuna is not installed.
    """
    start = make_recipe(recipe) if isinstance(recipe, str) else recipe
    cut = ValidationCut(validation, protocol, folds, seed)
    _check(start, ratings, trials, seconds, jobs, cut)
    parts = cut.parts(ratings)
    check_log(log)
    optuna = _optuna()
    with _quiet(optuna):
        study = _study(optuna, start, parts, seed, storage, resume)
        _close_lost(optuna, study)
        finished = [t for t in study.trials if t.state.is_finished() and t.state.name != "FAIL"]
        if not any(_is_default(t) and t.state.name != "FAIL" for t in study.trials):
            study.enqueue_trial({}, user_attrs={"fields": {}})  # the recipe as it is
        interrupted = False
        try:
            study.optimize(
                _Objective(start, parts, jobs),
                n_trials=max(0, trials - len(finished)),
                timeout=seconds,
                n_jobs=jobs,
                catch=(GramianError,),
                show_progress_bar=progress,
                callbacks=[] if log is None else [_logged(log, start, parts)],
            )
        except KeyboardInterrupt:
            interrupted = True
            _close_lost(optuna, study)
        return _outcome(optuna, study, start, interrupted)


def _is_default(trial: FrozenTrial) -> bool:
    return trial.user_attrs.get("fields") == {} and not trial.params


def _check(
    start: AnyRecipe, ratings: Ratings, trials: int, seconds: float | None, jobs: int, cut: ValidationCut
) -> None:
    """Raise for the first argument that is outside its range."""
    check_ratings_given(ratings, "tune")
    for name, value in (("trials", trials), ("jobs", jobs), ("folds", 1 if cut.folds is None else cut.folds)):
        check_number(name, value, low=1, whole=True, owner="tune")
    check_number("seed", cut.seed, low=0, whole=True, owner="tune")
    if seconds is not None:
        check_number("seconds", seconds, low=0, owner="tune")
    if not start.search_space:
        raise ParameterError(f"The recipe {type(start).__name__} has nothing to tune: it declares no search space.")


@dataclass(frozen=True)
class ValidationCut:
    """How validation ratings are cut from the training ratings."""

    validation: float | Ratings
    protocol: str
    folds: int | None
    seed: int

    def parts(self, ratings: Ratings) -> Parts:
        """The training and the validation ratings of each part; ParameterError where they cannot be cut so."""
        if self.protocol not in ("random", "time", "last"):
            raise ParameterError(
                f"The 'protocol' parameter of tune must be 'random', 'time' or 'last'; got {self.protocol!r}."
            )
        if isinstance(self.validation, Ratings):
            if self.folds is not None and self.folds != 1:
                raise ParameterError("The 'folds' parameter of tune cuts parts; leave it out where ratings are given.")
            return ((ratings, self.validation),)
        share, folds = self.validation, self.folds or (FOLDS if self.protocol == "random" else 1)
        if self.protocol == "random":
            return tuple(cut_off(ratings, self.protocol, share, self.seed + fold) for fold in range(folds))
        parts = [cut_off(ratings, self.protocol, share, self.seed)]
        while len(parts) < folds:
            parts.append(cut_off(parts[-1][0], self.protocol, share, self.seed))
        return tuple(parts)


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError:
        raise GramianError("Tuning needs Optuna, which is not installed: pip install 'gramian[tune]'.") from None
    return optuna


@contextmanager
def _quiet(optuna: ModuleType) -> Iterator[None]:
    """Optuna says every trial and every experimental class; we say the outcome."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _study(
    optuna: ModuleType,
    start: AnyRecipe,
    parts: Parts,
    seed: int,
    storage: str | os.PathLike[str] | None,
    resume: bool,
) -> Study:
    """A new study, or the stored one of the same recipe and data."""
    if resume and storage is None:
        raise ParameterError("The 'resume' parameter of tune needs the storage of the search; give storage='file'.")
    if storage is not None and not Path(storage).resolve().parent.is_dir():
        raise DataError(f"The storage {str(storage)!r} cannot be written: there is no such folder; make it first.")
    fixed = {name: value for name, value in start.to_dict().items() if name != "n_jobs"}
    prints = " ".join(table.fingerprint()[:12] for part in parts for table in part)
    name = f"{start.name} {prints} {sorted(fixed.items())}"
    url = None if storage is None else f"sqlite:///{Path(storage).resolve()}"
    try:
        made: Study = optuna.create_study(study_name=name, storage=url, load_if_exists=resume)
    except optuna.exceptions.DuplicatedStudyError:
        raise DataError(
            f"The storage {str(storage)!r} has this search already; go on with resume=True (--resume), or name another."
        ) from None
    except Exception as error:  # SQLAlchemy's: not a database, or one of another version
        if url is None:
            raise
        raise DataError(
            f"The storage {str(storage)!r} cannot be used: {str(error).splitlines()[0]}; name another file."
        ) from error
    # one seed for every number of trials done: a resumed search must not propose the same points again
    made.sampler = optuna.samplers.TPESampler(seed=seed + len(made.trials), n_startup_trials=8)
    made.pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=4)
    return made


def _close_lost(optuna: ModuleType, study: Study) -> None:
    """Close the trials that were running when the process ended."""
    for trial in study.trials:
        if trial.state.name == "RUNNING":
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)


@dataclass(frozen=True)
class _Objective:
    """One trial: fit until the end or the pruner's word; the validation curve is kept with the trial."""

    start: AnyRecipe
    parts: Parts
    jobs: int

    def __call__(self, trial: Trial) -> float:
        if "fields" not in trial.user_attrs:
            trial.set_user_attr("fields", _proposed(trial, self.start, self.parts[0][0]))
        fields = dict(trial.user_attrs["fields"])
        if self.jobs > 1 and hasattr(self.start, "n_jobs"):
            fields["n_jobs"] = max(1, (os.cpu_count() or 1) // self.jobs)
        recipe: AnyRecipe = dataclasses.replace(self.start, **fields)
        curve: list[float] = []
        for error in _validation_errors(recipe, self.parts):
            curve.append(error)
            trial.report(curve[-1], len(curve))
            if trial.should_prune():
                from optuna import TrialPruned

                raise TrialPruned
        trial.set_user_attr("curve", curve)
        trial.set_user_attr("epoch", _best_epoch(recipe, curve))
        return curve[_best_epoch(recipe, curve) - 1]


def _validation_errors(recipe: AnyRecipe, parts: Parts) -> Iterator[float]:
    """The mean error over the parts after each epoch, all parts in step; one that ends early keeps its last."""
    runs = [training.iterate(recipe, train, held) for train, held in parts]
    last = [math.nan] * len(runs)
    while True:
        states = [next(run, None) for run in runs]
        if all(state is None for state in states):
            return
        last = [e if s is None else float(s.history[-1]["validation_rmse"]) for e, s in zip(last, states, strict=True)]
        yield float(np.mean(last))


def _logged(log: str | os.PathLike[str], start: AnyRecipe, parts: Parts) -> Callable[[Study, FrozenTrial], None]:
    """What writes a line about a trial when it has ended."""
    one_at_a_time = threading.Lock()
    about = {
        "parts": [{"train": train.fingerprint(), "validation": held.fingerprint()} for train, held in parts],
        "versions": versions(),
    }

    def write(study: Study, trial: FrozenTrial) -> None:
        fields = trial.user_attrs.get("fields", {})
        record = {"tuned": start.name, "trial": trial.number, "state": trial.state.name.lower()}
        record |= {"recipe": dataclasses.replace(start, **fields).to_dict(), "validation_rmse": trial.value}
        record |= {name: trial.user_attrs.get(name) for name in ("epoch", "curve")}
        record |= {"seconds": trial.duration.total_seconds() if trial.duration else None, **about}
        with one_at_a_time:
            append_record(log, record)

    return write


def _best_epoch(recipe: AnyRecipe, curve: list[float]) -> int:
    """Where the error was least; of a sampler the end, since more draws are never worse but for chance."""
    return len(curve) if recipe.length_field == "draws" else int(np.argmin(curve)) + 1


def _proposed(trial: Trial, start: AnyRecipe, train: Ratings) -> Plain:
    made: Plain = {}
    for name, where in start.search_space.items():
        if not isinstance(where, Range):
            made[name] = trial.suggest_categorical(name, list(where))
        elif where.whole:
            made[name] = trial.suggest_int(name, int(where.low), int(where.high), log=where.log)
        else:
            low, high = where.ends(train.variance**0.5)
            made[name] = float(f"{trial.suggest_float(name, low, high, log=where.log):.3g}")
    return made


def _outcome(optuna: ModuleType, study: Study, start: AnyRecipe, interrupted: bool) -> Tuned:
    ended = [(t.value, t) for t in study.trials if t.state.name == "COMPLETE" and t.value is not None]
    if not ended:
        raise DataError("No trial came to an end: give more time, or see why a single fit fails.")
    least, best = min(ended, key=lambda one: one[0])
    fields = dict(best.user_attrs["fields"])
    if start.length_field != "draws" and hasattr(start, start.length_field):
        fields[start.length_field] = best.user_attrs["epoch"]
    rows = [
        {
            "trial": t.number,
            "state": t.state.name.lower(),
            "rmse": t.value,
            "epoch": t.user_attrs.get("epoch"),
            **t.params,
        }
        for t in study.trials
    ]
    return Tuned(
        dataclasses.replace(start, **fields),
        float(least),
        next((float(error) for error, trial in ended if _is_default(trial)), None),
        pl.DataFrame(rows, infer_schema_length=None),
        best.user_attrs["curve"],
        _importances(optuna, study, start, len(ended)),
        interrupted,
    )


def _importances(optuna: ModuleType, study: Study, start: AnyRecipe, ended: int) -> dict[str, float]:
    if ended < 10:  # too few to tell
        return {}
    try:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(start.search_space))
    except (RuntimeError, ValueError):
        return {}
    return {name: float(share) for name, share in found.items()}
