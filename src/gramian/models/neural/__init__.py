"""Networks in Keras; their trained models predict without it."""
