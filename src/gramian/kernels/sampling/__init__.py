"""Random numbers by counters, and the distributions that a Gibbs sweep draws from."""
