"""Sessions of Spark: one that a user has, or one of our own; and what goes wrong before they stand, in a sentence."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeGuard

from gramian.errors import ParameterError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["executors", "is_spark_frame", "parallelism", "spark_session", "working_session"]

HERE = ("local", "local-cluster")
SETTINGS = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
}


def is_spark_frame(table: object) -> TypeGuard[DataFrame]:
    """Whether this is a DataFrame of Spark; nothing is imported to know."""
    return any(
        kind.__module__.startswith("pyspark.sql") and kind.__name__ == "DataFrame" for kind in type(table).__mro__
    )


def spark_session(master: str | None = None, **settings: str) -> SparkSession:
    """The session that is active, or a new one.

    Args:
        master: Where: ``local[2]``, ``local-cluster[2,1,1024]``, ``yarn``, ``spark://host:7077``, ``k8s://…``. Not
            given: as Spark is set up, else all cores of this machine.
        **settings: Further settings of Spark, with ``_`` for ``.`` in their names.

    Raises:
        ParameterError: PySpark or Java is missing, or the session cannot be made.
    """
    if find_spec("pyspark") is None:
        raise ParameterError("The engine 'spark' needs PySpark: pip install 'gramian[spark]'.")
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder: Any = SparkSession.builder
    if master is not None:
        builder = builder.master(master)
        if master.startswith(HERE):  # a host name that does not resolve must not keep one machine from working
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        if master.startswith("local-cluster["):
            settings.setdefault("spark_executor_memory", f"{master.rstrip(']').split(',')[-1].strip()}m")
    for name, value in {**SETTINGS, **{key.replace("_", "."): value for key, value in settings.items()}}.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except (PySparkException, RuntimeError) as error:
        why = "Java was not found or did not start" if "JAVA" in str(error).upper() else str(error).split("\n")[0]
        raise ParameterError(f"Spark did not start: {why}; install Java 17, or check the master.") from None


def working_session(spark: SparkSession, records: int = 1) -> SparkSession:
    """A session of the same application with settings of our own, so that the user's stay as they are.

    ``records`` go to a worker at a time: one, where each is a whole block.
    """
    own = spark.newSession()
    own.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(records))
    own.conf.set("spark.sql.files.openCostInBytes", "65536")
    own.conf.set("spark.sql.parquet.compression.codec", "lz4_raw")
    return own


def parallelism(spark: SparkSession) -> int:
    """How many tasks run at once."""
    return int(spark.sparkContext.defaultParallelism)


def executors(spark: SparkSession) -> int:
    """How many executors there are now; on one machine without any, the driver counts as one."""
    context: Any = spark.sparkContext
    return max(1, int(context._jsc.sc().getExecutorMemoryStatus().size()) - 1)
