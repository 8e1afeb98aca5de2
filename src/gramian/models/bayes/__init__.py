"""Bayesian matrix factorization: a sampler whose sweep is a loop over terms, and the posterior that it leaves."""
