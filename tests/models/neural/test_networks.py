"""Networks: predictions outside Keras equal Keras's own; the sparse autoencoder equals the dense one; bad input."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import gramian as gm
from gramian import registry
from gramian.models.neural import sparse
from gramian.models.neural.autorec import dense_batches, from_rows, masked_error, to_rows

PAIRS = [
    gm.NeuralMF(factors=3, epochs=2),
    gm.MLP(factors=3, hidden=(5, 4), batch_norm=True, activation="elu", epochs=2),
    gm.ResidualMF(factors=3, hidden=4, activation="tanh", epochs=2),
]


@pytest.mark.parametrize("recipe", PAIRS, ids=lambda recipe: recipe.name)
def test_predictions_outside_keras_are_those_of_the_network(recipe, ratings):
    model = recipe.fit(ratings)
    users, items = ratings.user_codes[:200], ratings.item_codes[:200]
    expected = model.network().predict([users[:, None], items[:, None]], verbose=0)[:, 0] + ratings.global_mean
    np.testing.assert_allclose(model.score_pairs(users, items), expected, atol=2e-6)


@pytest.mark.parametrize("recipe", PAIRS, ids=lambda recipe: recipe.name)
def test_the_gradient_of_a_new_row_is_the_slope_of_its_error(recipe, ratings):
    model = recipe.fit(ratings)
    items, target = model._item_table[:6], np.linspace(-1, 1, 6)
    row = model._user_table[2].copy()
    gradient = model._row_gradient(row, items, target)

    def error(row):
        return np.mean((model._outputs(np.broadcast_to(row, items.shape), items)[0] - target) ** 2)

    for k in range(len(row) - (not recipe.has_biases)):
        step = np.zeros_like(row)
        step[k] = 1e-6
        assert gradient[k] == pytest.approx((error(row + step) - error(row - step)) / 2e-6, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("side", ["user", "item"])
def test_the_sparse_path_has_the_loss_and_the_gradients_of_the_dense_network(ratings, layers, side):
    """Also for inputs with a dropout mask: a plain step of rate 1 moves each weight by its negative gradient."""
    import jax

    recipe = gm.AutoRec(hidden=(5, 4, 3)[:layers], side=side, path="sparse", dropout=0.0)
    rows = recipe.rows(ratings)
    width = ratings.n_items if side == "user" else ratings.n_users
    arrays = {name: array for name, array in recipe.start(ratings).items() if not name.startswith("state")}
    weights = from_rows(arrays, layers)
    noisy = sparse.dropped(rows.values, 0.4, 7, 1)
    assert 0.3 < np.mean(noisy == 0) < 0.5

    network = recipe.build(ratings.n_users, ratings.n_items)
    for variable in network.weights:
        variable.assign(weights[variable.path])
    everything = np.arange(rows.n_rows)
    x, _ = dense_batches(rows._replace(values=noisy), width, [everything])[0]
    _, y = dense_batches(rows, width, [everything])[0]

    def loss(values):
        made, _ = network.stateless_call(values, [], x)
        penalty = sum((v**2).sum() for v in values if v.ndim == 2)
        return masked_error(y, made), masked_error(y, made) + 0.01 * penalty

    values = [variable.value for variable in network.trainable_variables]
    gradients = jax.grad(lambda values: loss(values)[1])(values)
    expected = {v.path: np.asarray(g) for v, g in zip(network.trainable_variables, gradients, strict=True)}

    moved = {name: array.copy() for name, array in arrays.items()} | sparse.first_state(arrays, "momentum")
    steps = sparse.Steps(recipe.activation, layers, 0.01, "momentum", 1.0, 0.0, 2)
    shrink = np.full(width, 0.02, np.float32)
    total = sparse.step(rows, noisy, moved, steps, shrink)
    assert total / len(rows.values) == pytest.approx(float(loss(values)[0]), rel=1e-5)
    after = from_rows(moved, layers)
    for name, gradient in expected.items():
        np.testing.assert_allclose(weights[name] - after[name], gradient, atol=1e-5, err_msg=name)


def test_weights_go_to_rows_and_back(ratings):
    arrays = gm.AutoRec(hidden=(4, 3), path="sparse").start(ratings)
    again = to_rows(from_rows(arrays, 2))
    for name, array in again.items():
        np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.parametrize("side", ["user", "item"])
def test_autorec_hands_its_weights_to_keras(ratings, side):
    model = gm.AutoRec(hidden=4, side=side, epochs=2, path="sparse").fit(ratings)
    rows = model.recipe.rows(ratings)
    x, _ = dense_batches(rows, ratings.n_items if side == "user" else ratings.n_users, [np.arange(rows.n_rows)])[0]
    made = model.network().predict(x, verbose=0) + ratings.global_mean
    expected = made if side == "user" else made.T
    np.testing.assert_allclose(model.score_block(np.arange(ratings.n_users)), expected, atol=1e-5)


def test_a_user_without_ratings_gets_what_an_empty_row_gives(ratings):
    model = gm.AutoRec(hidden=4, side="user", epochs=2).fit(ratings)
    with pytest.warns(gm.UnknownIdWarning):
        stranger = model.recommend([1], n=5)
    assert model.recommend_for({}, n=5)["item"].to_list() == stranger["item"].to_list()


def test_folding_in_a_training_user_of_autorec_is_one_forward_pass(ratings):
    model = gm.AutoRec(hidden=4, side="user", epochs=2).fit(ratings)
    items, values = ratings.by_user.row(3)
    own = dict(zip(model.item_ids.take(items).to_list(), values.tolist(), strict=True))
    np.testing.assert_array_equal(model.fold_in(own), model._codes_table[3])


def test_a_rate_that_diverges_is_named(ratings):
    with pytest.raises(gm.DivergenceError, match=r"not finite: the learning rate 1 is too high"):
        gm.AutoRec(hidden=4, activation="identity", optimizer="momentum", learning_rate=1.0, momentum=0.99,
                   batch_size=2, epochs=1, regularization=1.0, path="sparse").fit(ratings)  # fmt: skip


def test_where_it_diverges_later_the_last_good_epoch_is_kept(ratings):
    recipe = gm.AutoRec(hidden=4, activation="identity", optimizer="momentum", learning_rate=0.2, momentum=0.99,
                        batch_size=8, epochs=40, decay=0.0, path="sparse")  # fmt: skip
    with pytest.warns(gm.TrainingWarning, match=r"its last full one\..* the learning rate 0\.2 is too high"):
        model = recipe.fit(ratings)
    assert 1 <= len(model.history) < 40
    assert all(np.isfinite(array).all() for array in model.arrays().values())
    assert np.isfinite(model.predict(ratings.users, ratings.items)).all()


def test_a_batch_larger_than_the_data_is_refused(ratings):
    with pytest.raises(gm.ParameterError, match=r"'batch_size' parameter of NeuralMF .* \[1, 833\], the number of rat"):
        gm.NeuralMF(batch_size=834).fit(ratings)
    with pytest.raises(gm.ParameterError, match=r"\[1, 40\], the number of items with ratings; got 41; give a smaller"):
        gm.AutoRec(batch_size=41).fit(ratings)


def test_hidden_layers_are_a_number_or_several():
    assert gm.MLP(hidden=[8]) == gm.MLP(hidden=(8,)) == gm.MLP(hidden=8)
    recipe = gm.MLP(hidden=(8, 4))
    assert gm.recipe_from_dict(recipe.to_dict()) == recipe
    with pytest.raises(gm.ParameterError, match="'hidden' parameter of AutoRec must be 1 to 3 numbers"):
        gm.AutoRec(hidden=(1, 2, 3, 4))
    with pytest.raises(gm.ParameterError, match=r"'hidden' parameter of MLP must be a whole number in \[1, 4096\]"):
        gm.MLP(hidden=(8, 0))


def test_the_branches_of_residual_mf_add_up(ratings):
    model = gm.ResidualMF(factors=3, hidden=4, epochs=1).fit(ratings)
    users, items = ratings.users[:20], ratings.items[:20]
    factors, layers = model.branches(users, items)
    assert layers.any()
    expected = model.predict(users, items, clip=False)
    np.testing.assert_allclose(factors + layers + model.global_mean, expected, rtol=1e-6)


def test_the_default_comparison_leaves_out_what_is_not_installed(monkeypatch):
    assert gm.NeuralMF() in registry.family()
    monkeypatch.setenv("KERAS_BACKEND", "a_backend_that_is_not_there")
    assert not [recipe.name for recipe in registry.family() if recipe.extra]
    assert gm.SGD() in registry.family()


def test_a_backend_that_keras_does_not_have_is_named(monkeypatch, ratings):
    monkeypatch.setenv("KERAS_BACKEND", "nonsense")
    with pytest.raises(gm.ParameterError, match="KERAS_BACKEND must be one of jax, tensorflow, torch; got 'nonsense'"):
        gm.NeuralMF().fit(ratings)


def test_a_backend_that_is_missing_is_said_in_one_sentence():
    code = (
        "import sys; sys.modules['keras'] = None\n"
        "import gramian as gm\n"
        "ratings = gm.load_dataset('movielens-small')\n"
        "try:\n    gm.NeuralMF().fit(ratings)\n"
        "except gm.ParameterError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert "is not installed; run: pip install 'gramian[deep]'" in done.stdout


def test_the_core_does_not_import_keras():
    code = "import sys, gramian as gm; gm.SGD, gm.NeuralMF(); assert not {'keras', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
