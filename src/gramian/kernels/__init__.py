"""Free functions on contiguous arrays, most of them compiled by Numba, and their slow twins in NumPy."""
