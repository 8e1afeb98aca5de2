"""MLflow: what a training tells a tracking server. Needs the extra ``mlflow``."""

from __future__ import annotations

from collections.abc import Callable

from gramian.errors import GramianError
from gramian.models.model import Model

__all__ = ["mlflow_callback"]


def mlflow_callback() -> Callable[[Model], None]:
    """A ``callback`` for :meth:`Recipe.fit` that tells the active MLflow run the recipe, and each epoch's figures.

    Raises:
        GramianError: MLflow is not installed.
    """
    try:
        import mlflow
    except ImportError:
        raise GramianError("This needs MLflow, which is not installed: pip install 'gramian[mlflow]'.") from None

    def tell(model: Model) -> None:
        last = dict(model.history[-1])
        epoch = int(last.pop("epoch"))
        if epoch == 1:
            mlflow.log_params(model.recipe.to_dict())
        mlflow.log_metrics({name: float(value) for name, value in last.items() if value is not None}, step=epoch)

    return tell
