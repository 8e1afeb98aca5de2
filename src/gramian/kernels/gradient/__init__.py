"""Steps of gradient descent: on pairs of rows, and on the observed cells of an autoencoder."""
