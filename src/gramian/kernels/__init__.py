"""Free functions on contiguous arrays: no input or output, no objects. Numba is loaded by `sweep` alone."""
