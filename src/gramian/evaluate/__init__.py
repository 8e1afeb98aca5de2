"""What is measured of models beyond the errors: how far their intervals can be trusted."""
