r"""Fully connected layers outside Keras: what trained networks compute, and their gradient for an input row.

A layer is :math:`h = \phi(s \odot (xA + a - m) + t)`, where batch normalization at its running mean m and variance v
has :math:`s = \gamma/\sqrt{v + \epsilon}`; without it s = 1 and m = t = 0. So at prediction a layer is
:math:`\phi(xA' + a')` with :math:`A' = A\,\mathrm{diag}(s)` and :math:`a' = s(a - m) + t`. Dropout is for training
alone. The last layer has no :math:`\phi`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gramian.core.file_format import Arrays
from gramian.kernels.arrays import Array

__all__ = ["ACTIVATIONS", "Layer", "forward", "input_gradient", "layers_of"]

NORM_EPSILON = 1e-3  # Keras's own
ACTIVATIONS = ("relu", "elu", "tanh", "sigmoid", "identity")


class Layer(NamedTuple):
    """A′ and a′, float64."""

    kernel: Array
    bias: Array


def layers_of(weights: Arrays, count: int) -> list[Layer]:
    """The hidden layers and the output layer of a network."""
    made = []
    for name, norm in [*((f"hidden{n}", f"norm{n}") for n in range(count)), ("output", "none")]:
        kernel, bias = (weights[f"{name}/{part}"].astype(np.float64) for part in ("kernel", "bias"))
        if f"{norm}/gamma" in weights:
            gamma, beta, mean, variance = (
                weights[f"{norm}/{part}"].astype(np.float64)
                for part in ("gamma", "beta", "moving_mean", "moving_variance")
            )
            scale = gamma / np.sqrt(variance + NORM_EPSILON)
            kernel, bias = kernel * scale, (bias - mean) * scale + beta
        made.append(Layer(kernel, bias))
    return made


def activate(name: str, x: Array) -> Array:
    """φ."""
    if name == "relu":
        return np.maximum(x, 0)
    if name == "elu":
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    if name == "tanh":
        return np.tanh(x)
    return 0.5 + 0.5 * np.tanh(x / 2) if name == "sigmoid" else x


def slope(name: str, h: Array) -> Array:
    """φ′ as a function of h = φ(x)."""
    if name == "relu":
        return (h > 0).astype(h.dtype)
    if name == "elu":
        return np.where(h > 0, 1.0, h + 1)
    if name == "tanh":
        return 1 - h * h
    return h * (1 - h) if name == "sigmoid" else np.ones_like(h)


def forward(x: Array, layers: list[Layer], activation: str) -> list[Array]:
    """The output of every layer for the rows of ``x``, the last one's at the end."""
    outputs = []
    for layer in layers[:-1]:
        x = activate(activation, x @ layer.kernel + layer.bias)
        outputs.append(x)
    return [*outputs, x @ layers[-1].kernel + layers[-1].bias]


def input_gradient(outputs: list[Array], layers: list[Layer], activation: str) -> Array:
    """The gradient of each row's single output for that row of the input."""
    back = np.broadcast_to(layers[-1].kernel[:, 0], (len(outputs[-1]), len(layers[-1].kernel)))
    for h, layer in zip(outputs[-2::-1], layers[-2::-1], strict=True):
        back = (back * slope(activation, h)) @ layer.kernel.T
    return back
