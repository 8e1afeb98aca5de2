"""One file per family of models, each beginning with its equations."""
