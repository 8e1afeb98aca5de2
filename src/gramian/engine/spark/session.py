"""Sessions of Spark: one that a user has, or one of our own; and what goes wrong before they stand, in a sentence."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from gramian.errors import ParameterError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = [
    "HadoopPath", "checkpoint_folder", "executors", "hadoop_path", "is_spark_frame", "parallelism", "spark_session",
    "working_session",
]  # fmt: skip

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
    return max(1, int(_java(spark).context.sc().getExecutorMemoryStatus().size()) - 1)


def checkpoint_folder(spark: SparkSession) -> str | None:
    """The folder for checkpoints of a Spark context, where one is set."""
    folder = _java(spark).context.sc().getCheckpointDir()
    return str(folder.get()) if folder.isDefined() else None


class HadoopPath(NamedTuple):
    """A path of any file system that Spark reaches, and the system; both are objects of Hadoop's."""

    system: Any
    path: Any

    def exists(self) -> bool:
        """Whether there is something."""
        return bool(self.system.exists(self.path))

    def write(self, content: bytes) -> None:
        """Write a file anew."""
        stream = self.system.create(self.path, True)
        stream.write(bytearray(content))
        stream.close()

    def rename_over(self, goal: HadoopPath) -> None:
        """Give a file another name; what had it is gone."""
        self.system.delete(goal.path, False)
        self.system.rename(self.path, goal.path)

    def remove(self) -> None:
        """Remove a file, or a folder with all that is in it, if it is there."""
        self.system.delete(self.path, True)


def hadoop_path(spark: SparkSession, address: str) -> HadoopPath:
    """A path of any file system that Spark reaches."""
    java = _java(spark)
    path = java.jvm.org.apache.hadoop.fs.Path(address)
    return HadoopPath(path.getFileSystem(java.context.hadoopConfiguration()), path)


class _Java(NamedTuple):
    """Spark's gateway to its virtual machine, and its context there."""

    jvm: Any
    context: Any


def _java(spark: SparkSession) -> _Java:
    context: Any = spark.sparkContext
    return _Java(context._jvm, context._jsc)  # noqa: SLF001 - PySpark has no other way to Hadoop's file systems
