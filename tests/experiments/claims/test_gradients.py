"""The experiment of chapter 13: what is called even, what is compared, and that looking changes nothing."""

import math

import pytest
import torch

from bnbook.experiments import protocol as T
from bnbook.experiments.claims import gradients as G
from bnbook.models.torch_mlp import mlp


def network(norm="batch", depth=4, **settings):
    torch.manual_seed(0)
    return mlp(norm, widths=(16,) * depth, **settings)


@pytest.fixture(scope="module")
def batch():
    x, y = T.split("train")
    return x[:32], y[:32]


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_decades_are_those_of_a_backward_pass_by_hand(norm, batch):
    model = network(norm, init="he")
    x, y = batch
    outputs, weights = [], []
    hand = network(norm, init="he").double()
    h = x.double()
    for name, layer in hand.named_children():
        h = layer(h)
        if name.startswith("act"):
            h.retain_grad()
            outputs.append(h)
        if name in ("fc2", "fc3", "fc4"):
            weights.append(layer.weight)
    torch.nn.functional.cross_entropy(h, y).backward()

    def ratio(values):
        return math.log10(values[0] / values[-1])

    rms = [h.grad.square().mean().sqrt().item() for h in outputs]
    deviation = [h.detach().var(0, unbiased=False).mean().sqrt().item() for h in outputs]
    turn = [(w.grad.norm() / w.norm()).item() for w in weights]
    expected = {"gradient": ratio(rms), "activation": ratio(deviation), "update": ratio(turn)}
    assert G.decades(model, x, y) == pytest.approx(expected, abs=1e-9)
    assert len({round(value, 3) for value in expected.values()}) == 3  # one is not taken for another


def test_looking_changes_nothing(batch):
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()
    state = torch.get_rng_state()
    G.decades(model, *batch)
    assert not model.training and torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype and torch.equal(value, before[name])


def test_a_dead_or_broken_network_has_no_finite_decades(batch):
    for value in (float("nan"), -1e3):  # -1000: every ReLU is shut
        model = network("none")
        with torch.no_grad():
            model.fc2.bias.fill_(value)
        assert not math.isfinite(G.decades(model, *batch)["gradient"])


def test_gradients_too_small_for_float32_are_measured(batch):
    model = network("none", depth=60, activation="sigmoid")
    assert -60 < G.decades(model, *batch)["gradient"] < -45


def test_the_grid_has_both_arms_of_every_start():
    grid = G.grid()
    for setting in grid:
        assert setting | {"norm": "none" if setting["norm"] == "batch" else "batch"} in grid
    found = {(setting["activation"], setting["init"]) for setting in grid}
    assert found == {(activation, init) for activation, inits in G.STARTS.items() for init in inits}
    assert all(setting in grid for setting in G.grid(quick=True))


def row(setting, seed, decades):
    return {
        "setting": setting,
        "seed": seed,
        "gradient_decades": decades,
        "evenness_in_decades": -abs(decades),
        "diverged": False,
    }


@pytest.fixture(scope="module")
def rows():
    """Without BN gradients vanish from the default start alone; with it they grow."""
    made = []
    for setting in G.grid():
        for seed in range(3):
            vanishes = setting["norm"] == "none" and setting["init"] == "default"
            size = -0.3 * setting["depth"] if vanishes else 0.08 * setting["depth"] * (setting["norm"] == "batch")
            made.append(row(setting, seed, size + 0.01 * seed))
    return made


def test_the_comparison_counts_both_ways(rows):
    found = {comparison.name: comparison for comparison in G.comparisons(rows)}
    assert set(found) == {
        f"{s}, {d} layers" for s in ("default weights", "He weights", "twice He's weights") for d in G.DEEP
    }
    assert found["default weights, 20 layers"].difference.mean == pytest.approx(6 - 1.6, abs=0.05)
    assert found["He weights, 20 layers"].difference.mean == pytest.approx(-1.6, abs=0.05)
    assert G.comparisons(rows, "tanh")[0].name == "tanh, default weights, 20 layers"


def test_growth_is_per_layer():
    made = row({"depth": 11}, 0, 10 * math.log10(1.2))
    assert G.growth(made) == pytest.approx(1.2)


def test_a_run_repeats_and_its_evenness_has_no_sign():
    setting = {"activation": "relu", "init": "he", "depth": 10, "norm": "batch"}
    one = G.run(setting, 0)
    assert one == G.run(setting, 0) != G.run(setting, 1)
    assert one["gradient_decades"] > 0.5 and one["evenness_in_decades"] == -one["gradient_decades"]
    vanishing = G.run(setting | {"norm": "none", "init": "default"}, 0)
    assert vanishing["gradient_decades"] < -2 and vanishing["evenness_in_decades"] == vanishing["gradient_decades"]


def test_the_figure_has_a_panel_for_each_activation(rows):
    figure = G.figure(rows)
    assert [ax.get_title() for ax in figure.axes] == list(G.STARTS)
    assert len(figure.legends[0].get_texts()) == 6
