"""The engine of a cluster: blocks of rows are partitions of Apache Spark, whose workers run the same half-sweep."""
