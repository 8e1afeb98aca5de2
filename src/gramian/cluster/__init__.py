"""What a model does on Apache Spark: training with factors that stay in a folder, and inference for everyone."""

from gramian.cluster.inference import (
    evaluate,
    fold_in,
    open_spark_ratings,
    recommend_all,
    recommend_new,
    spark_ratings,
    spark_session,
)
from gramian.cluster.stored_model import StoredModel, open_stored_model
from gramian.cluster.stored_training import fit_stored

__all__ = [
    "StoredModel",
    "evaluate",
    "fit_stored",
    "fold_in",
    "open_spark_ratings",
    "open_stored_model",
    "recommend_all",
    "recommend_new",
    "spark_ratings",
    "spark_session",
]
