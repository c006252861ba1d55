"""A small convolutional network in JAX: batch normalization, one optimizer step, the score of a batch."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import Array, lax
from jax import numpy as jnp

MOMENTUM = 0.9  # of the running mean and variance, which stand for those of a batch when the network is used

SURROUNDINGS = 5  # pixels on each side


class Model(NamedTuple):
    weights: dict[str, Any]  # what the optimizer changes
    statistics: list[dict[str, Array]]  # running mean and variance of each block


def build(channels: list[int], classes: int, rng: np.random.Generator) -> Model:
    """Convolution blocks that halve the sides each, the mean over what is left, one linear layer."""

    def draw(*shape: int) -> Array:
        inputs = int(np.prod(shape[:-1]))
        return jnp.asarray(rng.normal(scale=(3 * inputs) ** -0.5, size=shape), jnp.float32)

    blocks = [
        {"kernel": draw(3, 3, before, after), "scale": jnp.ones(after), "shift": jnp.zeros(after)}
        for before, after in zip([3, *channels[:-1]], channels, strict=True)
    ]
    linear = {"kernel": draw(channels[-1], classes), "shift": jnp.zeros(classes)}
    statistics = [{"mean": jnp.zeros(count), "variance": jnp.ones(count)} for count in channels]
    return Model({"blocks": blocks, "linear": linear}, statistics)


def size(model: Model) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(model.weights))


def named_arrays(model: Model) -> dict[str, np.ndarray]:
    """Every array of the model by its path, for example `weights.blocks.0.kernel`."""
    paths, _ = jax.tree.flatten_with_path(model)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in paths}


def logits_of(model: Model, images: Array, *, is_training: bool) -> tuple[Array, list[dict[str, Array]]]:
    """Logits of the classes, and the statistics after this batch."""
    values, statistics = standardized(local_residual(images)), []
    for block, before in zip(model.weights["blocks"], model.statistics, strict=True):
        values = lax.conv_general_dilated(
            values, block["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        now = {"mean": values.mean((0, 1, 2)), "variance": values.var((0, 1, 2))} if is_training else before
        statistics.append(jax.tree.map(lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new, before, now))
        factor = block["scale"] * lax.rsqrt(now["variance"] + 1e-5)
        values = jax.nn.relu(values * factor + (block["shift"] - now["mean"] * factor))
        values = lax.reduce_window(values, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    linear = model.weights["linear"]
    return values.mean((1, 2)) @ linear["kernel"] + linear["shift"], statistics


def local_residual(images: Array) -> Array:
    """What is left of images without the mean of each pixel's surroundings.

    The grid of a display and its moiré lie in the finest detail; what the photograph shows mostly does not, and
    colors and brightness carry no information. Without them the model has less to learn by heart.
    """

    def neighbors(length: int) -> np.ndarray:
        return np.convolve(np.ones(length, np.float32), np.ones(SURROUNDINGS, np.float32), "same")

    count = np.outer(neighbors(images.shape[1]), neighbors(images.shape[2]))[:, :, None]  # fewer at the border
    window = (1, SURROUNDINGS, SURROUNDINGS, 1)
    return images - lax.reduce_window(images, 0.0, lax.add, window, (1, 1, 1, 1), "SAME") / count


def standardized(images: Array) -> Array:
    """Mean 0 and deviation 1 in each image and channel."""
    centered = images - images.mean((1, 2), keepdims=True)
    return centered * lax.rsqrt(jnp.square(centered).mean((1, 2), keepdims=True) + 1e-5)


@partial(jax.jit, static_argnames="optimizer")
def train_step(
    model: Model, optimizer: optax.GradientTransformation, progress: optax.OptState, images: Array, labels: Array
) -> tuple[Model, optax.OptState, Array, Array]:
    """The model and the optimizer after one step, with the mean loss and the logits of the batch before it."""

    def loss_of(weights: dict[str, Any]) -> tuple[Array, tuple[Array, list[dict[str, Array]]]]:
        logits, statistics = logits_of(model._replace(weights=weights), images, is_training=True)
        return mean_loss(logits, labels), (logits, statistics)

    (loss, (logits, statistics)), gradients = jax.value_and_grad(loss_of, has_aux=True)(model.weights)
    updates, progress = optimizer.update(gradients, progress, model.weights)
    return Model(optax.apply_updates(model.weights, updates), statistics), progress, loss, logits


@jax.jit
def score(model: Model, images: Array, labels: Array) -> tuple[Array, Array]:
    """Logits of the classes, and their mean loss."""
    logits, _ = logits_of(model, images, is_training=False)
    return logits, mean_loss(logits, labels)


def mean_loss(logits: Array, labels: Array) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
