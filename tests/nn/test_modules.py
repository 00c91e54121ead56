"""What all modules share: state, modes, gradients, errors that change nothing."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest

from bnbook import functional as F
from bnbook import nn, optim
from tests.references import LAYERS, assert_agrees, generator, torch

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")


def network(dtype=np.float64, seed=0):
    return nn.Sequential(
        {
            "conv": nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=1, rng=seed, dtype=dtype),
            "bn": nn.BatchNorm2d(3, dtype=dtype),
            "relu": nn.ReLU(),
            "norm": nn.GroupNorm(3, 3, dtype=dtype),
            "pool": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "head": nn.Sequential(
                nn.Linear(3 * 2 * 2, 5, rng=seed, dtype=dtype), nn.BatchNorm1d(5, dtype=dtype), nn.Tanh()
            ),
        }
    )


def torch_network(dtype=None):
    from collections import OrderedDict

    net = torch.nn.Sequential(
        OrderedDict(
            conv=torch.nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=1),
            bn=torch.nn.BatchNorm2d(3),
            relu=torch.nn.ReLU(),
            norm=torch.nn.GroupNorm(3, 3),
            pool=torch.nn.MaxPool2d(2),
            flatten=torch.nn.Flatten(),
            head=torch.nn.Sequential(torch.nn.Linear(3 * 2 * 2, 5), torch.nn.BatchNorm1d(5), torch.nn.Tanh()),
        )
    )
    return net.to(dtype or torch.float64)


def batch(n=6, dtype=np.float64):
    return generator("batch").normal(0.5, 1.5, (n, 2, 5, 7)).astype(dtype)


def randomize(module, name="random"):
    """Random values everywhere: the initial ones hide mistakes."""
    rng = generator(name)
    state = module.state_dict()
    for key, value in state.items():
        if value.dtype.kind == "f":
            state[key] = rng.uniform(0.5, 2, value.shape).astype(value.dtype)
        else:
            state[key] = np.asarray(7, value.dtype)
    module.load_state_dict(state)
    return module


def values(module):
    return {key: value.copy() for key, value in module.state_dict().items()}


def assert_same_state(module, before):
    after = module.state_dict()
    assert list(after) == list(before)
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value, err_msg=key)


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_of_parameters_buffers_and_modules():
    net = network()
    assert [name for name, _ in net.named_parameters()] == [
        *("conv.weight", "conv.bias", "bn.weight", "bn.bias", "norm.weight", "norm.bias"),
        *("head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias"),
    ]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert [name for name, _ in net.named_buffers()] == [f"{n}.{s}" for n in ("bn", "head.1") for s in statistics]
    assert [name for name, _ in net.named_children()] == ["conv", "bn", "relu", "norm", "pool", "flatten", "head"]
    assert "head.1" in dict(net.named_modules()) and dict(net.named_modules())[""] is net
    assert [id(p) for p in net.parameters()] == [id(p) for _, p in net.named_parameters()]
    assert [id(b) for b in net.buffers()] == [id(b) for _, b in net.named_buffers()]
    assert [name for name, _ in net.bn.named_buffers()] == list(statistics)  # a layer alone has no prefix
    assert [name for name, _ in net.bn.named_parameters()] == ["weight", "bias"]
    assert list(net.bn.state_dict()) == ["weight", "bias", *statistics]
    assert len(net) == 7 and net[1] is net.bn and next(type(m).__name__ for m in reversed(net)) == "Sequential"


@needs_torch
def test_the_state_dict_lists_the_keys_of_torch_in_its_order():
    ours, theirs = network().state_dict(), torch_network().state_dict()
    assert list(ours) == list(theirs)
    for key in ours:
        assert ours[key].shape == tuple(theirs[key].shape), key
        assert str(ours[key].dtype) == str(theirs[key].dtype).removeprefix("torch."), key


# --- state dicts -----------------------------------------------------------------------------------------------------


@needs_torch
def test_state_dicts_go_to_torch_and_back_unchanged():
    net, other = randomize(network()), torch_network()
    other.load_state_dict({key: torch.tensor(value) for key, value in net.state_dict().items()})
    assert_same_state(net, {key: value.numpy() for key, value in other.state_dict().items()})
    fresh = network(seed=1)
    fresh.load_state_dict(other.state_dict())  # tensors on the CPU are arrays
    assert_same_state(fresh, net.state_dict())
    x = batch()
    for mode in (False, True, False):
        ours, theirs = fresh.train(mode)(x), other.train(mode)(torch.tensor(x))
        assert_agrees(ours, theirs, 1e-12, f"y with training={mode}")
    for key, value in other.state_dict().items():
        assert_agrees(fresh.state_dict()[key], value, 1e-12, key)


def test_a_state_dict_is_a_copy():
    net = randomize(network())
    state = net.state_dict()
    before = copy.deepcopy(state)
    net(batch())
    for parameter in net.parameters():
        parameter.data += 1
    for key, value in before.items():
        np.testing.assert_array_equal(state[key], value, err_msg=f"{key} of the state dict follows the module")
    net.load_state_dict(state)
    for value in state.values():
        value[...] = 99
    assert_same_state(net, before)


def test_loading_writes_into_the_arrays_that_optimizers_hold():
    net = network()
    held = [(p, p.data) for p in net.parameters()] + [(None, b) for b in net.buffers()]
    randomize(net)
    for (parameter, array), current in zip(held, [*net.parameters(), *net.buffers()], strict=True):
        assert array is (current.data if parameter is not None else current)


def test_loading_keeps_the_dtype_of_the_module():
    net = network(np.float32)
    net.load_state_dict(randomize(network(np.float64)).state_dict())
    assert {str(p.data.dtype) for p in net.parameters()} == {"float32"}
    assert net.bn.num_batches_tracked.dtype == np.int64 and net.bn.num_batches_tracked == 7


def test_strict_loading_names_the_keys_and_changes_nothing():
    net = randomize(network())
    before = values(net)
    state = {key: value * 0 for key, value in before.items()}
    missing = {key: value for key, value in state.items() if key not in ("bn.weight", "head.0.bias")}
    with pytest.raises(KeyError, match=r"missing keys \['bn.weight', 'head.0.bias'\], unexpected keys \[\]"):
        net.load_state_dict(missing)
    with pytest.raises(KeyError, match=r"missing keys \[\], unexpected keys \['bn.gamma', 'x'\]"):
        net.load_state_dict(state | {"bn.gamma": np.ones(3), "x": np.ones(1)})
    with pytest.raises(ValueError, match=r"bn.bias: \(4,\), expected \(3,\); head.1.weight: \(\), expected \(5,\)"):
        net.load_state_dict(state | {"bn.bias": np.ones(4), "head.1.weight": np.ones(())})
    with pytest.raises(TypeError, match=r"bn.num_batches_tracked: float64"):
        net.load_state_dict(state | {"bn.num_batches_tracked": np.array(1.5)})
    with pytest.raises(TypeError, match=r"bn.weight: complex128"):
        net.load_state_dict(state | {"bn.weight": np.ones(3, complex)})
    assert_same_state(net, before)
    net.load_state_dict(missing | {"x": np.ones(1)}, strict=False)
    assert_same_state(net, state | {key: before[key] for key in ("bn.weight", "head.0.bias")})
    with pytest.raises(ValueError, match="expected"):  # a wrong shape is wrong without strict, too
        net.load_state_dict({"bn.bias": np.ones(4)}, strict=False)


@needs_torch
def test_loading_returns_what_did_not_fit_as_torch_does():
    """A state dict of a model that was wrapped has "module." in front of every key: nothing of it is loaded."""
    ours, theirs = network(), torch_network()
    wrapped = {f"module.{key}": value for key, value in ours.state_dict().items()}
    got = ours.load_state_dict(wrapped, strict=False)
    as_tensors = {key: torch.tensor(value) for key, value in wrapped.items()}
    expected = theirs.load_state_dict(as_tensors, strict=False)
    counts = ["bn.num_batches_tracked", "head.1.num_batches_tracked"]  # torch has them in mind as "may be missing"
    assert got.missing_keys == [key for key in ours.state_dict() if key not in counts] == expected.missing_keys
    assert got.unexpected_keys == list(wrapped) == expected.unexpected_keys
    assert ours.load_state_dict(ours.state_dict()) == ([], [])


@needs_torch
def test_old_state_dicts_have_no_count_of_batches():
    """As in torch, strict or not: the count stays what it is."""
    ours, theirs = randomize(network()), torch_network()
    theirs.bn.num_batches_tracked.fill_(7), theirs.head[1].num_batches_tracked.fill_(7)
    old = {key: value * 2 for key, value in ours.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert ours.load_state_dict(old) == ([], [])
    theirs.load_state_dict({key: torch.tensor(value) for key, value in old.items()})
    assert_same_state(ours, {key: value.numpy() for key, value in theirs.state_dict().items()})
    alone = nn.BatchNorm1d(3)
    alone.load_state_dict({key: value for key, value in alone.state_dict().items() if key != "num_batches_tracked"})
    with pytest.raises(KeyError, match=r"missing keys \['running_var'\]"):
        alone.load_state_dict({k: v for k, v in alone.state_dict().items() if k not in ("running_var", "x")})


@needs_torch
def test_tensors_of_every_kind_are_loaded_or_named():
    net, other = network(), torch_network()
    state = {key: torch.tensor(value) for key, value in randomize(network()).state_dict().items()}
    state["bn.weight"] = torch.nn.Parameter(state["bn.weight"])  # as `named_parameters` of torch gives it
    net.load_state_dict(state), other.load_state_dict(state)
    assert_same_state(net, {key: value.detach().numpy() for key, value in other.state_dict().items()})
    before = values(net)
    mask = np.ma.masked_array(np.zeros(3), [True, False, False])
    for wrong, words in (
        (state["bn.weight"].bfloat16(), "bn.weight cannot be turned into a NumPy array"),
        (torch.ones(3, device="meta"), "bn.weight cannot be turned into a NumPy array"),
        (torch.ones(3).to_sparse(), "bn.weight cannot be turned into a NumPy array"),
        ([[1.0], [1.0, 2.0]], "bn.weight cannot be turned into a NumPy array"),
        (mask, "bn.weight is a masked array"),
    ):
        for strict in (True, False):
            with pytest.raises(TypeError, match=words):
                net.load_state_dict({key: value * 0 for key, value in before.items()} | {"bn.weight": wrong}, strict)
    for wrong in ([], None, "model.npz", [("bn.weight", np.ones(3))]):
        with pytest.raises(TypeError, match="state_dict must map names to arrays, got"):
            net.load_state_dict(wrong)
    assert_same_state(net, before)


def test_loading_into_what_is_read_only_changes_nothing():
    net = randomize(network())
    before = values(net)
    net.head[0].bias.data.flags.writeable = net.head[1].running_var.flags.writeable = False
    with pytest.raises(ValueError, match=r"read-only: head\.0\.bias, head\.1\.running_var"):
        net.load_state_dict({key: value * 0 for key, value in before.items()})
    assert_same_state(net, before)


# --- what stands in two places ----------------------------------------------------------------------------------------


class Tied(nn.Module):
    """Two layers with one weight; a layer and a parameter with two names each."""

    def __init__(self):
        super().__init__()
        tie(self, nn, np.ones(3, np.float32))

    def forward(self, x):
        return self.b(self.a(x))

    def backward(self, grad_y):
        return self.a.backward(self.b.backward(grad_y))


def tie(model, library, scale):
    model.a, model.b = library.Linear(4, 4), library.Linear(4, 4)
    model.b.weight = model.a.weight
    model.norm = model.again = library.BatchNorm1d(4)
    model.scale = model.same = library.Parameter(scale)


@needs_torch
def test_what_is_tied_has_all_names_in_the_state_and_one_elsewhere():
    ours, theirs = Tied(), torch.nn.Module()
    tie(theirs, torch.nn, torch.ones(3))
    for list_of in ("named_parameters", "named_buffers", "named_children"):
        expected = [name for name, _ in getattr(theirs, list_of)()]
        got = [name for name, _ in getattr(ours, list_of)()]
        # torch lists its parameters before its children whatever stands first; the names are the same
        assert sorted(got) == sorted(expected), list_of
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in theirs.named_modules()]
    assert set(ours.state_dict()) == set(theirs.state_dict())
    assert "b.weight" in ours.state_dict() and "again.running_mean" in ours.state_dict()
    assert len(list(ours.parameters())) == len(list(theirs.parameters())) == 6
    assert len(list(ours.buffers())) == len(list(theirs.buffers())) == 3
    state = ours.state_dict()
    assert ours.load_state_dict({key: value + 1 for key, value in state.items()}) == ([], [])
    np.testing.assert_array_equal(ours.a.weight.data, state["a.weight"] + 1)
    assert copy.deepcopy(ours).b.weight is not ours.b.weight
    twin = copy.deepcopy(ours)
    assert twin.b.weight is twin.a.weight


@needs_torch
@pytest.mark.parametrize("all_names", [False, True], ids=["the model's parameters", "those of both layers"])
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_tied_weights_take_one_step(name, all_names):
    ours = Tied()
    a, b = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    b.weight = a.weight
    theirs = torch.nn.Sequential(a, b)
    with torch.no_grad():
        for layer, other in ((a, ours.a), (b, ours.b)):
            layer.weight.copy_(torch.tensor(other.weight.data)), layer.bias.copy_(torch.tensor(other.bias.data))
    x, g = generator("tied").normal(size=(2, 5, 4)).astype(np.float32)
    given = [*ours.a.parameters(), *ours.b.parameters()] if all_names else ours.parameters()
    optimizer, other = getattr(optim, name)(given, lr=0.1), getattr(torch.optim, name)(theirs.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad(), other.zero_grad()
        ours(x), ours.backward(g), theirs(torch.tensor(x)).backward(torch.tensor(g))
        assert_agrees(ours.a.weight.grad, a.weight.grad, 1e-5, "the gradients of both places together")
        optimizer.step(), other.step()
    assert_agrees(ours.a.weight.data, a.weight, 1e-5, "weight")
    assert_agrees(ours.b.bias.data, b.bias, 1e-5, "bias")


def test_a_buffer_that_is_named_again_is_one():
    bn = nn.BatchNorm1d(3)
    bn.register_buffer("running_mean", np.full(3, 2.0, np.float32))
    assert [name for name, _ in bn.named_buffers()].count("running_mean") == 1
    np.testing.assert_array_equal(bn.state_dict()["running_mean"], [2, 2, 2])


# --- modes -----------------------------------------------------------------------------------------------------------


def test_modes_reach_every_module():
    net = network()
    assert all(module.training for _, module in net.named_modules())
    assert net.eval() is net and not any(module.training for _, module in net.named_modules())
    assert net.train() is net and all(module.training for _, module in net.named_modules())
    assert net.train(0).training is False and net.train(1).training is True


def test_evaluation_changes_no_state_and_does_not_look_at_the_batch():
    net = randomize(network()).eval()
    before = values(net)
    x = batch()
    y = net(x)
    assert_same_state(net, before)
    np.testing.assert_allclose(net(x[:1]), y[:1], rtol=1e-12)
    assert_same_state(net, before)


def test_training_changes_the_running_statistics_alone():
    net = randomize(network())
    before = values(net)
    net(batch())
    changed = {key for key, value in net.state_dict().items() if not np.array_equal(value, before[key])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {f"{n}.{s}" for n in ("bn", "head.1") for s in statistics}


# --- gradients -------------------------------------------------------------------------------------------------------


def test_gradients_add_up_until_they_are_forgotten():
    net = randomize(network())
    x = batch()
    g = generator("g").normal(0.2, 1, net(x).shape)
    assert all(parameter.grad is None for parameter in net.parameters())
    net.backward(g)
    once = [parameter.grad.copy() for parameter in net.parameters()]
    held = [parameter.grad for parameter in net.parameters()]
    net(x)
    net.backward(g)
    for parameter, grad, old in zip(net.parameters(), once, held, strict=True):
        np.testing.assert_allclose(parameter.grad, 2 * grad, rtol=1e-12)
        np.testing.assert_array_equal(old, grad)  # an array that somebody kept is left alone
    net.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())


@needs_torch
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_gradients_of_a_network_agree_with_torch(training):
    net, other = randomize(network()).train(training), torch_network().train(training)
    other.load_state_dict({key: torch.tensor(value) for key, value in net.state_dict().items()})
    x = batch()
    t = torch.tensor(x, requires_grad=True)
    y, expected = net(x), other(t)
    g = generator("g").normal(0.2, 1, y.shape)
    grad_x = net.backward(g)
    expected.backward(torch.tensor(g))
    assert_agrees(y, expected, 1e-12, "y")
    assert_agrees(grad_x, t.grad, 1e-10, "grad_x")
    scale = max(float(p.grad.abs().max()) for p in other.parameters()) * 1e-3  # a bias before BN has gradient 0
    for (name, ours), theirs in zip(net.named_parameters(), other.parameters(), strict=True):
        assert_agrees(ours.grad, theirs.grad, 1e-10, name, scale)


ONE_OF_EACH = {
    "BatchNorm1d": lambda: (nn.BatchNorm1d(3), (4, 3)),
    "BatchNorm2d": lambda: (nn.BatchNorm2d(3), (4, 3, 2, 5)),
    "BatchNorm3d": lambda: (nn.BatchNorm3d(3), (4, 3, 2, 5, 1)),
    "InstanceNorm1d": lambda: (nn.InstanceNorm1d(3, affine=True, track_running_stats=True), (4, 3, 5)),
    "InstanceNorm2d": lambda: (nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (4, 3, 2, 5)),
    "LayerNorm": lambda: (nn.LayerNorm((3, 5)), (4, 3, 5)),
    "GroupNorm": lambda: (nn.GroupNorm(3, 6), (4, 6, 5)),
    "RMSNorm": lambda: (nn.RMSNorm(5), (4, 3, 5)),
    "Conv2d": lambda: (nn.Conv2d(3, 2, 2), (4, 3, 4, 5)),
    "Linear": lambda: (nn.Linear(5, 2), (4, 5)),
    "ReLU": lambda: (nn.ReLU(), (4, 3)),
    "Sigmoid": lambda: (nn.Sigmoid(), (4, 3)),
    "Tanh": lambda: (nn.Tanh(), (4, 3)),
    "MaxPool2d": lambda: (nn.MaxPool2d(2), (4, 3, 4, 5)),
    "Flatten": lambda: (nn.Flatten(), (4, 3, 4, 5)),
    "Sequential": lambda: (nn.Sequential(nn.Linear(5, 2), nn.BatchNorm1d(2)), (4, 5)),
}
each = pytest.mark.parametrize("name", ONE_OF_EACH)


def test_every_layer_is_in_the_list():
    layers = {name for name in nn.__all__ if name not in ("Module", "Parameter", "CrossEntropyLoss")}
    assert layers == set(ONE_OF_EACH)


@each
def test_backward_before_forward(name):
    layer, shape = ONE_OF_EACH[name]()
    with pytest.raises(RuntimeError, match=r"\.backward was called before forward"):
        layer.backward(np.ones(shape, np.float32))


@each
def test_an_error_changes_nothing(name):
    layer, shape = ONE_OF_EACH[name]()
    randomize(layer)
    before = values(layer)
    x = generator(name).normal(0.5, 1.5, shape).astype(np.float32)
    for wrong in (x.tolist(), None, x.astype(int), x.astype(complex), x[..., None, None, None, None]):
        if name == "Flatten" and isinstance(wrong, np.ndarray):
            continue  # it moves any values
        if (
            name in ("ReLU", "Sigmoid", "Tanh", "GroupNorm")
            and isinstance(wrong, np.ndarray)
            and wrong.dtype == np.float32
        ):
            continue  # of any number of axes
        with pytest.raises((ValueError, TypeError)) as raised:
            layer(wrong)
        assert "x" in str(raised.value)
    if "weight" in layer.state_dict():
        with pytest.raises(TypeError, match=r"weight must be float64 like x, got float32|running_mean must be float64"):
            layer(x.astype(np.float64))
    assert_same_state(layer, before)
    y = layer(x)
    after = values(layer)
    for wrong, error in ((np.ones((1, *y.shape), y.dtype), ValueError), (y[:1], ValueError), (y.tolist(), TypeError)):
        with pytest.raises(error, match="grad_y"):
            layer.backward(wrong)
    assert_same_state(layer, after)
    assert all(parameter.grad is None for parameter in layer.parameters())


@each
def test_an_empty_batch_passes(name):
    layer, shape = ONE_OF_EACH[name]()
    before = values(layer)
    y = layer(np.empty((0, *shape[1:]), np.float32))
    assert y.shape[0] == 0
    grad_x = layer.backward(np.empty_like(y))
    assert grad_x.shape == (0, *shape[1:]) and grad_x.dtype == np.float32
    for parameter in layer.parameters():
        np.testing.assert_array_equal(parameter.grad, np.zeros_like(parameter.data))
    assert_same_state(layer, before)


@each
def test_repr_names_the_layer(name):
    layer, _ = ONE_OF_EACH[name]()
    assert repr(layer).startswith(f"{name}(")


def test_parameters_of_the_layers_have_the_initial_values_of_torch():
    bn = nn.BatchNorm2d(3)
    for value, expected in ((bn.weight.data, 1), (bn.bias.data, 0), (bn.running_mean, 0), (bn.running_var, 1)):
        np.testing.assert_array_equal(value, np.full(3, expected, np.float32))
        assert value.dtype == np.float32
    assert bn.num_batches_tracked.shape == () and bn.num_batches_tracked.dtype == np.int64
    for layer, fan_in in ((nn.Linear(50, 40, rng=0), 50), (nn.Conv2d(5, 40, (2, 5), rng=0), 50)):
        for parameter in layer.parameters():
            bound = fan_in**-0.5
            assert np.abs(parameter.data).max() <= bound and np.abs(parameter.data).max() > 0.9 * bound
            assert abs(parameter.data.mean()) < 0.25 * bound and parameter.data.dtype == np.float32
    same = nn.Linear(5, 4, rng=1), nn.Linear(5, 4, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(same[0].weight.data, same[1].weight.data)
    assert nn.Linear(5, 4, bias=False).bias is None and nn.Conv2d(1, 1, 1, bias=False).bias is None


def test_a_base_module_does_nothing():
    module = nn.Module()
    for call in (module, module.forward, module.backward):
        with pytest.raises(NotImplementedError):
            call(np.ones(3))
    assert list(module.parameters()) == [] and module.state_dict() == {}
    assert repr(nn.Parameter(np.ones((2, 3), np.float32))) == "Parameter(shape=(2, 3), dtype=float32)"


def test_sequential_refuses_what_is_no_layer():
    with pytest.raises(TypeError, match="layer '1' must be a Module, got function"):
        nn.Sequential(nn.ReLU(), lambda x: x)
    with pytest.raises(TypeError, match="layer '0' must be a Module, got dict"):
        nn.Sequential({"a": nn.ReLU()}, nn.ReLU())
    for name in ("", "a.b", "forward", "training", "_cache"):
        with pytest.raises(ValueError, match="cannot name a layer"):
            nn.Sequential({name: nn.ReLU()})


def test_sequential_refuses_one_layer_in_two_places():
    """It would keep the cache of its last place alone, and its gradients would be wrong without a word."""
    relu = nn.ReLU()
    with pytest.raises(ValueError, match="layer '2' is used twice"):
        nn.Sequential(relu, nn.Tanh(), relu)
    with pytest.raises(ValueError, match=r"layer 'b\.0' is used twice"):
        nn.Sequential({"a": relu, "b": nn.Sequential(relu)})


@pytest.mark.parametrize("between", [lambda row: row, lambda row: nn.Sequential(row)], ids=["a row", "a row in a row"])
def test_a_layer_put_into_an_inner_row_later_is_not_run_twice(between):
    """The inner row cannot see that the layer stands beside it: the outer one refuses to run, and nothing has run."""
    inner, norm = nn.Sequential(nn.ReLU()), nn.BatchNorm1d(3)
    outer = nn.Sequential({"in": between(inner), "norm": norm})
    inner.extra = norm
    x = generator("x").normal(size=(5, 3)).astype(np.float32)
    with pytest.raises(ValueError, match="layer 'norm' is used twice, but a layer remembers one forward pass"):
        outer(x)
    assert norm.num_batches_tracked == 0 and norm._cache is None and inner[0]._cache is None
    inner.extra = nn.BatchNorm1d(3)
    outer(x)
    assert norm.num_batches_tracked == inner.extra.num_batches_tracked == 1


@needs_torch
def test_a_sequential_that_changes_is_that_of_torch():
    """A layer that is assigned runs: last, or in the place of the one that had its name."""

    def change(library, model):
        model.head = library.Linear(5, 2)
        model.act = library.Tanh()
        model.body.last = library.Sigmoid()
        del model.body.first
        return model

    def make(library, sequential):
        body = {"first": library.ReLU(), "fc": library.Linear(6, 5)}
        return sequential({"act": library.ReLU(), "body": sequential(body)})

    from collections import OrderedDict

    ours = change(nn, make(nn, nn.Sequential))
    theirs = change(torch.nn, make(torch.nn, lambda layers: torch.nn.Sequential(OrderedDict(layers))))
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in theirs.named_modules()]
    assert len(ours) == len(theirs) == 3 and ours[-1] is ours.head
    theirs.load_state_dict({key: torch.tensor(value) for key, value in ours.state_dict().items()})
    x = generator("x").normal(size=(7, 6)).astype(np.float32)
    t, g = torch.tensor(x, requires_grad=True), generator("g").normal(size=(7, 2)).astype(np.float32)
    y = theirs(t)
    y.backward(torch.tensor(g))
    assert_agrees(ours(x), y, 1e-5, "y")
    assert_agrees(ours.backward(g), t.grad, 1e-5, "the gradient")
    assert "(head): Linear" in repr(ours)


def test_what_is_assigned_to_a_sequential_is_checked():
    def make():
        return nn.Sequential({"relu": nn.ReLU(), "body": nn.Sequential(nn.Tanh(), nn.Sigmoid())})

    for change, error, words in (
        (lambda m: setattr(m, "again", m.relu), ValueError, "layer 'again' is used twice"),
        (lambda m: setattr(m, "again", nn.Sequential(m.body[1])), ValueError, r"layer 'again\.0' is used twice"),
        (lambda m: setattr(m, "forward", nn.ReLU()), ValueError, "'forward' cannot name a layer"),
        (lambda m: setattr(m, "relu", np.tanh), TypeError, "layer 'relu' must be a Module, got ufunc; `del` takes"),
    ):
        model = make()
        before = repr(model)
        with pytest.raises(error, match=words):
            change(model)
        assert repr(model) == before
    model = make()
    model.relu, model.body = nn.Sequential(model.relu), model.body  # a layer may move to where it was
    assert [type(layer) for layer in model] == [nn.Sequential, nn.Sequential]


@needs_torch
def test_slices_are_the_rows_of_torch():
    ours, theirs = network(), torch_network()
    for part in (slice(0, 2), slice(-3, None), slice(None, None, 2), slice(3, 3)):
        names = [name for name, _ in theirs[part].named_children()]
        assert [name for name, _ in ours[part].named_children()] == names
        assert all(a is getattr(ours, name) for a, name in zip(ours[part], names, strict=True))
    assert ours[-1] is ours.head and isinstance(ours[0:2], nn.Sequential)
    x = batch()
    np.testing.assert_array_equal(ours[2:](ours[:2](x)), ours(x))
    with pytest.raises(IndexError, match="index 7 is out of range: there are 7 layers"):
        ours[7]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_goes_its_own_way(duplicate):
    net = randomize(network())
    y, g = net(batch()), generator("g").normal(size=(6, 5))
    twin, before = duplicate(net), net.state_dict()
    np.testing.assert_allclose(twin.backward(g), net.backward(g), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(twin.eval()(batch()), copy.deepcopy(net).eval()(batch()), rtol=1e-10)
    twin.train()(batch() + 1)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert net.training and y.shape == (6, 5)


def test_backward_belongs_to_the_last_forward():
    """Also where the mode has changed in between: the gradient is that of the mode of the forward pass."""
    net, g = randomize(network()), generator("g").normal(size=(6, 5))
    net(batch())
    expected = net.backward(g)
    net(batch() * 2 + 1)
    net(batch())
    net.eval()
    np.testing.assert_array_equal(net.backward(g), expected)
    net(batch())
    assert not np.allclose(net.backward(g), expected)


@needs_torch
@pytest.mark.parametrize(
    "name", [name for name in nn.__all__ if name not in ("Module", "Parameter", "Sequential", "Flatten")]
)
def test_arguments_have_the_order_and_the_defaults_of_torch(name):
    theirs = inspect.signature(getattr(torch.nn, name)).parameters
    ours = {
        p.name: p.default
        for p in inspect.signature(getattr(nn, name)).parameters.values()
        if p.name not in ("dtype", "rng")  # dtype is keyword-only in both; torch's generator is global
    }
    assert list(ours) == [parameter for parameter in theirs if parameter in ours]
    assert ours == {parameter: theirs[parameter].default for parameter in ours}


@pytest.mark.parametrize("norm", LAYERS, ids=str)
def test_the_input_gradient_does_not_change_the_cache_of_a_layer(norm):
    """Two forward calls: backward belongs to the last one."""
    a = norm.arguments()
    _, layer = norm.forward(copy.deepcopy(a))
    first = norm.backward(a.grad_y, layer)[0].copy()
    layer(a.x * 3 + 1)
    layer(a.x)
    if norm.training:
        np.testing.assert_allclose(layer.backward(a.grad_y), first, rtol=1e-10, atol=1e-12)


def test_flatten_is_that_of_torch_for_any_memory():
    x = generator("x").normal(size=(4, 3, 2, 5))
    for view in (x, np.asfortranarray(x), np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0)):
        layer = nn.Flatten()
        y = layer(view)
        np.testing.assert_array_equal(y, x.reshape(4, -1))
        np.testing.assert_array_equal(layer.backward(y), x)
    table = generator("table").normal(size=(4, 5))
    np.testing.assert_array_equal(nn.Flatten()(table), table)
    batch_innermost = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 0, -1)), -1, 0)
    assert np.shares_memory(nn.Flatten()(batch_innermost), batch_innermost)
    for shape in ((4, 15), (30, 4), (4, 3, 2, 5), (5, 24)):
        layer = nn.Flatten()
        layer(x)
        with pytest.raises(ValueError, match=r"grad_y has shape .*, expected \(4, 30\)"):
            layer.backward(np.ones(shape))
    with pytest.raises(TypeError, match="grad_y must be float64 like the output, got float32"):
        layer.backward(np.ones((4, 30), np.float32))
    for wrong in (np.ones(3), [[1.0]], None):
        with pytest.raises((ValueError, TypeError), match="x must be"):
            nn.Flatten()(wrong)


def test_the_loss_layer():
    x, target = generator("x").normal(size=(5, 3)), np.array([0, 2, 1, 1, 0])
    for reduction in ("mean", "sum", "none"):
        layer = nn.CrossEntropyLoss(reduction=reduction)
        with pytest.raises(RuntimeError, match=r"CrossEntropyLoss\.backward was called before forward"):
            layer.backward()
        loss, cache = F.cross_entropy(x, target, reduction=reduction)
        np.testing.assert_array_equal(layer(x, target), loss)
        np.testing.assert_array_equal(layer.backward(), F.cross_entropy_backward(cache=cache))
        np.testing.assert_array_equal(layer.backward(0.5), F.cross_entropy_backward(0.5, cache=cache))
    with pytest.raises(ValueError, match='reduction must be "mean", "sum" or "none", got \'avg\''):
        nn.CrossEntropyLoss(reduction="avg")
