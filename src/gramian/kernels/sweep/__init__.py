"""The half-sweep: the Gramians of rows, and their solutions, draws and approximations."""
