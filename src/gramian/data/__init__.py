"""Ratings: tables of them, files and databases they come from, splits, known sets, synthetic truth, the data doctor."""
