"""Predictive distributions: mixtures over the draws of a posterior."""
