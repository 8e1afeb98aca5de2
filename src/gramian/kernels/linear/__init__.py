"""Linear algebra on tall matrices: products with features, Lanczos, small dense systems."""
