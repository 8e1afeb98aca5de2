"""Readers, bundled and downloadable sets, synthetic truth, the data doctor."""
