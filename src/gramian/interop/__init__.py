"""Bridges to other libraries: their formats, scikit-learn, MLflow."""
