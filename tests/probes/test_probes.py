"""The probes see what is there, next to a forward pass written out by hand, and leave no trace in the model."""

from __future__ import annotations

import copy
import random
import subprocess
import sys
from collections import OrderedDict
from contextlib import nullcontext

import matplotlib
import numpy as np
import pytest

from bnbook import data, nn, plotting, probes
from bnbook.models.numpy_cnn import cnn
from bnbook.probes.xray import XRAY_LIMITS
from tests.references import assert_agrees, generator, torch

matplotlib.use("agg")
needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")

N = 7
BRANCH = ("shared.branch.fc", "shared.branch.bn", "shared.branch.act", "shared")
LAYERS = [
    *("stem", "bn", "act", "drop", *BRANCH, *(f"{name}#2" for name in BRANCH)),
    *("body.inner.fc", "body.inner.tanh", "split[0]", "split[1]['half']", "out", ""),
]


def awkward():
    """A torch model with everything that makes recording hard, and random values everywhere."""

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            layers = OrderedDict(fc=torch.nn.Linear(5, 5), bn=torch.nn.BatchNorm1d(5), act=torch.nn.ReLU(inplace=True))
            self.branch = torch.nn.Sequential(layers)

        def forward(self, h):
            return h + self.branch(h)

    class Split(torch.nn.Module):
        def forward(self, h):
            return 2 * h, {"half": h / 2, "largest": h.argmax(1)}

    class Awkward(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.bn, self.act = torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.ReLU(inplace=True)
            self.drop = torch.nn.Dropout(0.5)
            self.shared = Block()  # called twice
            inner = torch.nn.Sequential(OrderedDict(fc=torch.nn.Linear(5, 5), tanh=torch.nn.Tanh()))
            self.body = torch.nn.Sequential(OrderedDict(inner=inner))
            self.split, self.out = Split(), torch.nn.Linear(5, 4)
            self.unreached = torch.nn.BatchNorm1d(5)
            self.scale = torch.ones(())  # a tensor that is neither parameter nor buffer
            self.hidden = [torch.ones((), requires_grad=True)]  # a parameter of which torch knows nothing
            self.last, self.calls, self.seen, self.fails = None, 0, {}, False

        def forward(self, x):
            self.calls, self.last = self.calls + 1, x
            self.seen[self.calls] = random.random() + np.random.rand()
            self.scale *= 2
            h = self.shared(self.shared(self.drop(self.act(self.bn(self.stem(x))))))
            if self.fails:
                raise ZeroDivisionError("in the middle of the forward pass")
            double, rest = self.split(self.body(h))
            y = self.out((double + rest["half"]) * self.hidden[0])
            y += x[:, :4]  # changes what `out` returned
            return y

    model = Awkward().double()
    rng = generator("awkward")
    with torch.no_grad():
        for value in [*model.parameters(), *model.buffers()]:
            if value.is_floating_point():
                value.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, value.shape) * rng.choice([-1, 1], value.shape)))
        for bn in (model.bn, model.shared.branch.bn, model.unreached):
            bn.running_var.abs_()
    for parameter in [*model.stem.parameters(), model.shared.branch.bn.weight]:
        parameter.requires_grad_(False)
    model.unreached.eval()
    model.out.weight.grad = torch.ones_like(model.out.weight)
    model.body.inner.fc.register_forward_hook(lambda *_: None)
    return model


def batch():
    rng = generator("batch")
    return torch.from_numpy(rng.normal(size=(N, 6))), torch.from_numpy(rng.integers(0, 4, N))


def by_hand(model, x, target, keep):
    """Layer → (output, gradient) of the awkward model in training mode: no modules, no hooks, nothing in place."""
    p = {name: value.detach().requires_grad_() for name, value in model.named_parameters()}
    seen = {}

    def see(name, value):
        seen[name] = value
        return value

    def linear(name, h):
        return h @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def batch_norm(name, h):
        centred = h - h.mean(0)
        return centred / (centred.square().mean(0) + 1e-5).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]

    h = see("bn", batch_norm("bn", see("stem", linear("stem", x))))
    h = see("drop", see("act", h.clamp(min=0)) * keep * 2)
    for call in ("", "#2"):
        branch = see(f"shared.branch.fc{call}", linear("shared.branch.fc", h))
        branch = see(f"shared.branch.bn{call}", batch_norm("shared.branch.bn", branch))
        h = see(f"shared{call}", h + see(f"shared.branch.act{call}", branch.clamp(min=0)))
    h = see("body.inner.tanh", see("body.inner.fc", linear("body.inner.fc", h)).tanh())
    h = see("split[0]", 2 * h) + see("split[1]['half']", h / 2)
    y = see("", see("out", linear("out", h)) + x[:, :4])
    loss = (y.logsumexp(1) - y[range(N), target]).mean()
    gradients = torch.autograd.grad(loss, list(seen.values()))
    return {name: (v.detach().numpy(), g.numpy()) for (name, v), g in zip(seen.items(), gradients, strict=True)}


def dropout_mask():
    """What the model's dropout keeps for the seed, read off dropout itself."""
    torch.manual_seed(3)
    return torch.nn.functional.dropout(torch.ones(N, 5, dtype=torch.float64), 0.5) / 2


def structure(model):
    """The attributes of all modules, and what is in those that are dictionaries: hooks, parameters, children."""
    return [
        (name, key, list(value) if isinstance(value, dict) else None)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
    ]


def trace(model):
    """All that must stay: tensors (which, their values, versions and gradients), attributes, hooks, random states."""
    from torch.optim import optimizer

    tables = [(name, vars(m)) for name, m in model.named_modules()]
    tables += [(f"{name}/{key}", v) for name, t in tables for key, v in t.items() if isinstance(v, dict)]
    tensors = {id(v): v for _, t in tables for v in t.values() if isinstance(v, torch.Tensor)}
    return {
        "attributes": [(name, [(key, id(value)) for key, value in table.items()]) for name, table in tables],
        "tensors": [(k, v._version, v.requires_grad, v.detach().numpy().tobytes()) for k, v in tensors.items()],
        "gradients": [
            None if p.grad is None else (id(p.grad), p.grad._version, p.grad.numpy().tobytes())
            for p in [*model.parameters(), *getattr(model, "hidden", [])]
        ],
        "optimizers": [len(optimizer._global_optimizer_pre_hooks), len(optimizer._global_optimizer_post_hooks)],
        "random": [torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state()), random.getstate()],
    }


def assert_no_trace(before, model):
    for kind, content in trace(model).items():
        assert content == before[kind], f"the {kind} of the model have changed"


# --- the X-ray of torch models ---------------------------------------------------------------------------------------


@needs_torch
def test_record_sees_what_a_forward_pass_by_hand_sees():
    model, (x, target) = awkward(), batch()
    expected = by_hand(model, x, target, dropout_mask())
    torch.manual_seed(3)
    recorded = probes.record(model, x, target)
    assert list(recorded) == LAYERS
    for name, (activation, gradient) in recorded.items():
        assert_agrees(activation, expected[name][0], 1e-12, f"output of {name!r}")
        assert_agrees(gradient, expected[name][1], 1e-12, f"gradient of {name!r}")
    assert (recorded["bn"][0] < 0).any(), "the in-place ReLU would not be noticed"


@needs_torch
@pytest.mark.parametrize("fails", ["", "forward", "loss", "targets"])
@pytest.mark.parametrize("training", [True, False, None])
def test_xray_leaves_no_trace(training, fails):
    model, (x, target) = awkward(), batch()
    model(x)  # so that there is something to lose: a graph, statistics, counters
    model.fails = fails == "forward"
    untouched, before = x.clone(), trace(model)
    if fails:
        loss = {"loss": lambda y, target: 1 / 0}.get(fails)
        target = target.float() if fails == "targets" else target
        with pytest.raises((ZeroDivisionError, TypeError)):
            probes.xray(model, (x, target), loss=loss, training=training)
    else:
        plotting.plt.close(probes.xray(model, (x, target), training=training).figure)
    assert_no_trace(before, model)
    assert torch.equal(x, untouched) and x.grad is None and not x.requires_grad


@needs_torch
@pytest.mark.parametrize("training", [True, False, None])
def test_the_mode_is_the_one_that_was_asked_for(training):
    model, (x, target) = awkward(), batch()
    model.bn.eval()
    stem, bn = (probes.record(model, x, target, training=training)[name][0] for name in ("stem", "bn"))
    weight, bias, running_mean, running_var = (
        t.detach().numpy() for t in (model.bn.weight, model.bn.bias, model.bn.running_mean, model.bn.running_var)
    )
    mean, var = (stem.mean(0), stem.var(0)) if training else (running_mean, running_var)
    assert_agrees(bn, (stem - mean) / np.sqrt(var + 1e-5) * weight + bias, 1e-12, "bn")


@needs_torch
def test_record_works_where_gradients_are_off():
    model, (x, target) = awkward(), batch()
    torch.manual_seed(3)
    expected = probes.record(model, x, target)
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            torch.manual_seed(3)
            recorded = probes.record(model, x.clone(), target.clone())
        for name in LAYERS:
            np.testing.assert_array_equal(recorded[name], expected[name])


def _language_model():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.lstm = torch.nn.Embedding(11, 6), torch.nn.LSTM(6, 6, batch_first=True)
            self.out = torch.nn.Linear(6, 11, bias=False)
            self.out.weight = self.embedding.weight  # tied

        def forward(self, tokens):
            return self.out(self.lstm(self.embedding(tokens))[0]).transpose(1, 2)

    tokens = torch.from_numpy(generator("tokens").integers(0, 11, (4, 9)))
    return Model(), tokens, tokens.roll(1, 1)


def _parametrized():
    normalize = torch.nn.utils.parametrizations
    layers = [normalize.spectral_norm(torch.nn.Linear(6, 5)), torch.nn.ReLU(inplace=True)]
    return torch.nn.Sequential(*layers, normalize.weight_norm(torch.nn.Linear(5, 4))).double(), *batch()


def _checkpointed():
    from torch.utils.checkpoint import checkpoint

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU())

        def forward(self, x):
            return 3 * checkpoint(self.body, x, use_reentrant=False)

    return Model().double(), *batch()


def _in_place():
    """The input is changed in place, and through a view the output of a layer."""
    first, second = torch.nn.ReLU(inplace=True), torch.nn.ReLU(inplace=True)
    layers = [first, torch.nn.Linear(6, 4), torch.nn.Unflatten(1, (2, 2)), second, torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Identity()).double(), *batch()


def _transformer():
    layer = torch.nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, dropout=0.3).double()
    return torch.nn.Sequential(layer, torch.nn.Flatten()), batch()[0][:, None], batch()[1]


@needs_torch
@pytest.mark.parametrize(
    "make, layers",
    [
        (_language_model, ["embedding", "lstm[0]", "lstm[1][0]", "lstm[1][1]", "out", ""]),
        (_parametrized, ["0", "1", "2"]),
        (_checkpointed, ["body.0", "body.1", "body.2", ""]),
        (_in_place, ["0", "1", "2", "3", "4", "5"]),
        (_transformer, None),
    ],
)
def test_other_models(make, layers):
    model, x, target = make()
    before, twin = trace(model), copy.deepcopy(model)
    recorded = probes.record(model, x, target)
    assert_no_trace(before, model)
    assert layers is None or list(recorded) == layers
    activation, gradient = list(recorded.values())[-1]
    output = twin(x.clone())  # the same random numbers again
    y = output.detach().requires_grad_()
    (expected,) = torch.autograd.grad(torch.nn.functional.cross_entropy(y, target), y)
    np.testing.assert_array_equal(activation, y.detach().numpy())
    np.testing.assert_array_equal(gradient, expected.numpy())
    first = next(iter(recorded.values()))[1]
    assert first is not None and first.any()


@needs_torch
def test_what_is_changed_through_a_view():
    (y, grad), _, (z, upstream) = list(probes.record(*_in_place()).values())[1:4]
    assert (y < 0).any() and (z >= 0).all()
    np.testing.assert_array_equal(grad, upstream.reshape(y.shape) * (y > 0))


@needs_torch
def test_inputs_targets_and_loss_of_every_kind():
    model, (x, target) = awkward().eval(), batch()
    options = {"training": None}
    expected = probes.record(model, x, target, **options)
    for inputs in (x.numpy(), x.numpy()[:, ::-1][:, ::-1], (x,), [x], {"x": x}):
        recorded = probes.record(model, inputs, target.to(torch.int32).numpy(), **options)
        np.testing.assert_array_equal(recorded[""], expected[""])
    alone = probes.record(model, x, **options)
    assert all(gradient is None for _, gradient in alone.values())
    np.testing.assert_array_equal(alone[""][0], expected[""][0])
    goal = generator("goal").normal(size=(N, 4))
    y, gradient = probes.record(model, x, goal, loss=torch.nn.functional.mse_loss, **options)[""]
    assert_agrees(gradient, 2 * (y - goal) / y.size, 1e-12, "gradient of the mean squared error")
    y, gradient = probes.record(model, x, loss=lambda y: y.pow(3).sum(), **options)[""]
    assert_agrees(gradient, 3 * y**2, 1e-12, "gradient of a loss of the output alone")


@needs_torch
def test_what_is_asked_for_is_there():
    model, (x, _) = awkward().eval(), batch()
    everything, names = probes.record(model, x, training=None), ["body", "body.inner", "body.inner.tanh"]
    chosen = probes.record(model, x, training=None, layers=names)
    assert sorted(chosen) == names and not {"body", "body.inner"} & set(everything)
    for name in names:
        np.testing.assert_array_equal(chosen[name][0], everything["body.inner.tanh"][0])


@needs_torch
def test_bfloat16():
    model, x = torch.nn.Sequential(torch.nn.Linear(6, 4)), batch()[0].float()
    recorded = probes.record(model.bfloat16(), x.bfloat16(), batch()[1])
    (activation, gradient), y = recorded["0"], model(x.bfloat16()).float().detach().numpy()
    assert activation.dtype == gradient.dtype == np.float32
    np.testing.assert_array_equal(activation, y)


@needs_torch
@pytest.mark.skipif(torch is None or not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_model_on_a_gpu():
    model, (x, target) = awkward().cuda(), batch()
    model.scale, model.hidden = model.scale.cuda(), [model.hidden[0].detach().cuda()]
    state = torch.cuda.get_rng_state()
    recorded = probes.record(model, x, target)
    assert list(recorded) == LAYERS and all(np.isfinite(v).all() for pair in recorded.values() for v in pair)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert {value.device.type for value in model.state_dict().values()} == {"cuda"}


# --- the figure, and the models in NumPy ------------------------------------------------------------------------------


def lines(figure):
    return [ax.lines[0].get_ydata() for ax in figure.axes]


@needs_torch
def test_the_xray_draws_standard_deviations_and_root_mean_squares():
    model, (x, target) = awkward(), batch()
    figure, recorded = result = probes.xray(model, (x, target), layers=(torch.nn.Linear, torch.nn.BatchNorm1d))
    assert list(recorded) == [name for name in LAYERS if name.partition("#")[0].endswith(("stem", "bn", "fc", "out"))]
    assert repr(result) == f"XRay of {len(recorded)} layers"
    sizes = [
        [np.sqrt(activation.var(axis=0).mean()) for activation, _ in recorded.values()],
        [np.sqrt(np.mean(gradient**2)) for _, gradient in recorded.values()],
    ]
    for ax, line, size in zip(figure.axes, lines(figure), sizes, strict=True):
        np.testing.assert_allclose(line, size, rtol=1e-12)
        assert ax.get_yscale() == "log" and ax.get_ylim() == XRAY_LIMITS
    assert [ax.get_ylabel() for ax in figure.axes] == ["standard deviation", "root mean square"]
    plotting.plt.close(figure)


def test_one_line_for_the_numpy_network():
    images, labels = (array[:32] for array in data.load("val"))
    model = cnn(rng=0)
    before = copy.deepcopy(model)
    figure, recorded = probes.xray(model, (images, labels))
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == list(recorded)
    size = [probes.spread(gradient, center=False)[0] for _, gradient in recorded.values()]
    np.testing.assert_allclose(lines(figure)[1], size)
    figure, alone = probes.xray(model, data.to_input(images), layers=nn.ReLU)
    assert list(alone) == ["relu1", "relu2"]
    np.testing.assert_array_equal(alone["relu2"][0], recorded["relu2"][0])
    assert [text.get_text() for text in figure.axes[1].texts] == ["nothing to draw"] and not figure.axes[0].texts
    assert all(np.array_equal(value, before.state_dict()[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and all(m.training for _, m in model.named_modules())
    plotting.plt.close("all")


@needs_torch
def test_the_numpy_network_and_the_torch_network_agree():
    from bnbook.models.torch_cnn import cnn as torch_cnn

    images, labels = (array[:24] for array in data.load("val"))
    ours, theirs = cnn(rng=0, dtype=np.float64), torch_cnn().double()
    theirs.load_state_dict({name: torch.tensor(value) for name, value in ours.state_dict().items()})
    x = data.to_input(images, np.float64)
    expected, recorded = probes.record(ours, x, labels), probes.record(theirs, x, labels)
    assert list(recorded) == list(expected)
    for name, (activation, gradient) in recorded.items():
        assert_agrees(activation, expected[name][0], 1e-11, f"output of {name!r}")
        assert_agrees(gradient, expected[name][1], 1e-10, f"gradient of {name!r}")


def test_rows_in_rows_of_numpy_layers():
    rng = generator("rows")
    layers = [nn.Linear(6, 5, rng=rng), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4, rng=rng)]
    nested = nn.Sequential({"body": nn.Sequential(nn.Sequential(*layers[:2]), layers[2]), "out": layers[3]})
    x, target = rng.normal(size=(N, 6)).astype(np.float32), rng.integers(0, 4, N)
    flat, recorded = probes.record(nn.Sequential(*layers), x, target), probes.record(nested, x, target)
    assert list(recorded) == ["body.0.0", "body.0.1", "body.1", "out"]
    for values, expected in zip(recorded.values(), flat.values(), strict=True):
        np.testing.assert_array_equal(values[0], expected[0])
        np.testing.assert_array_equal(values[1], expected[1])


class Twice(nn.Sequential):
    """A row that runs twice what its layers give."""

    def forward(self, x):
        return 2 * super().forward(x)

    def backward(self, grad_y):
        return super().backward(2 * grad_y)


def test_a_row_with_a_forward_of_its_own_is_one_layer():
    """What is recorded is what runs."""
    rng = generator("twice")
    layers = {"fc": nn.Linear(6, 5, rng=rng), "twice": Twice(nn.Tanh(), nn.Tanh()), "out": nn.Linear(5, 4, rng=rng)}
    model, x = nn.Sequential(layers), rng.normal(size=(N, 6)).astype(np.float32)
    target, loss = rng.integers(0, 4, N), nn.CrossEntropyLoss()
    recorded = probes.record(model, x, target)
    assert list(recorded) == ["fc", "twice", "out"]
    np.testing.assert_array_equal(recorded["out"][0], model(x))
    loss(model(x), target)
    grad = model.out.backward(loss.backward())
    np.testing.assert_array_equal(recorded["twice"][1], grad)
    np.testing.assert_array_equal(recorded["fc"][1], model.twice.backward(grad))
    patched = nn.Sequential(nn.Tanh())
    patched.forward = lambda x: 3 * x
    np.testing.assert_array_equal(probes.record(nn.Sequential(patched), x)["0"][0], 3 * x)


def test_which_numpy_models_are_recorded():
    x = np.ones((N, 6), np.float32)
    patched, shared = nn.Sequential(nn.Tanh()), nn.Tanh()
    patched.backward = lambda grad_y: grad_y
    twice = nn.Sequential(nn.Sequential(), shared)
    twice[0].again = shared
    for model, error, message in (
        (nn.Linear(6, 2), TypeError, r"whose layers are recorded, got Linear: put it into a Sequential"),
        (Twice(nn.Tanh()), TypeError, "got Twice, which has a forward or backward of its own: put it into"),
        (patched, TypeError, "got Sequential, which has a forward or backward of its own"),
        (nn.Sequential(), ValueError, "layers=None of this Sequential gave nothing to record: .* names or classes"),
        (twice, ValueError, "layer '1' is used twice"),
    ):
        with pytest.raises(error, match=message):
            probes.record(model, x)
    with pytest.raises(ValueError, match=r"layers=\[\] of this Sequential gave nothing to record"):
        probes.record(nn.Sequential(nn.Tanh()), x, layers=[])


@needs_torch
def test_what_returns_no_real_numbers_leaves_nothing_to_record():
    class Largest(torch.nn.Module):
        def forward(self, x):
            return x.argmax(1)

    x = torch.ones(N, 6)
    assert list(probes.record(torch.nn.Linear(6, 2), x)) == [""]
    with pytest.raises(ValueError, match=r"layers=None of this Largest gave nothing to record: .* real numbers"):
        probes.record(Largest(), x)


def test_what_has_exploded_or_vanished_leaves_the_axes():
    x = generator("exploded").normal(size=(9, 4))
    recorded = {"zero": (0 * x, x), "overflow": (1e200 * x, x), "infinite": (np.inf * x, x), "none": (x, None)}
    with np.errstate(all="raise"):
        figure = probes.draw_xray({"": recorded})
    (activations, gradients), (low, high) = lines(figure), XRAY_LIMITS
    assert 0 < activations[0] < low < activations[3] < high < activations[1] < np.inf and np.isnan(activations[2])
    assert list(np.isnan(gradients)) == [False, False, False, True]
    plotting.plt.close(figure)


def test_importing_probes_imports_neither_torch_nor_matplotlib():
    program = (
        "import sys, numpy as np, bnbook, bnbook.probes as p\n"
        "from bnbook import nn\n"
        "p.record(nn.Sequential(nn.Linear(3, 2)), np.ones((4, 3), np.float32), np.zeros(4, int))\n"
        "print({'torch', 'matplotlib', 'tensorflow'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    assert run.stdout.strip() == "set()"


# --- the recorder ----------------------------------------------------------------------------------------------------


def train(model, recorder=None, steps=3):
    """A few steps on Fashion-MNIST; what the parameters were before and after every step."""
    images, labels = data.load("train")
    x, y = torch.from_numpy(data.to_input(images[: 64 * steps])), torch.from_numpy(labels[: 64 * steps])
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    history = [{name: p.detach().clone() for name, p in model.named_parameters()}]
    for k in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[64 * k : 64 * k + 64]), y[64 * k : 64 * k + 64]).backward()
        optimizer.step()
        history.append({name: p.detach().clone() for name, p in model.named_parameters()})
    return history


def small_mlp():
    from bnbook.models.torch_mlp import mlp

    torch.manual_seed(0)
    model = mlp("batch", widths=(12, 9), init=0.02)
    with torch.no_grad():
        model.bn2.bias.copy_(torch.tensor([-9.0, -9.0, -9.0, 0, 0, 0, 0, 0, 0]))  # three units that never wake
    return model


@needs_torch
def test_the_recorder_changes_nothing_and_forgets_nothing():
    model, twin = small_mlp(), small_mlp()
    expected, before, optimizers = train(twin), structure(model), trace(model)["optimizers"]
    with probes.Recorder(model, probes.WHAT) as recorder:
        history = train(model)
    assert structure(model) == before and trace(model)["optimizers"] == optimizers
    for ours, theirs in zip(history, expected, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in model.state_dict().items())

    names = [name for name, _ in model.named_children()]
    assert list(recorder.activations) == list(recorder.gradients) == names
    assert all(len(entries) == 3 for entries in [*recorder.activations.values(), *recorder.gradients.values()])
    running = {name: (np.zeros(n), np.ones(n)) for name, n in (("bn1", 12), ("bn2", 9))}
    for step in range(3):
        for name, layer in (("bn1", "fc1"), ("bn2", "fc2")):
            x = recorder.activations[layer][step].astype(np.float64)
            mean, var = recorder.batch_statistics[name][step]
            assert_agrees(mean, x.mean(0), 1e-6, "batch mean")
            assert_agrees(var, x.var(0), 1e-6, "batch variance")
            running[name] = tuple(
                0.9 * old + 0.1 * new for old, new in zip(running[name], (x.mean(0), x.var(0, ddof=1)), strict=True)
            )
            assert_agrees(recorder.running_statistics[name][step].mean, running[name][0], 1e-6, "running mean")
            assert_agrees(recorder.running_statistics[name][step].var, running[name][1], 1e-6, "running variance")
        for name in ("act1", "act2"):
            dead = (recorder.activations[name][step] == 0).all(0).mean()
            assert recorder.dead_units[name][step] == pytest.approx(dead)
        for name, before in history[step].items():
            before, after = before.numpy().astype(np.float64), history[step + 1][name].numpy()
            with np.errstate(divide="ignore"):
                ratio = np.linalg.norm(after - before) / np.linalg.norm(before)
            assert recorder.update_ratios[name][step] == pytest.approx(ratio, rel=1e-4)
    assert recorder.dead_units["act2"][0] == pytest.approx(3 / 9)
    assert recorder.update_ratios["bn1.bias"][0] == np.inf  # it starts at zero


@needs_torch
def test_entries_line_up_with_the_passes():
    class Sometimes(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.always, self.odd = torch.nn.Linear(6, 4), torch.nn.Linear(6, 4)

        def forward(self, x, odd):
            return self.always(x) + (self.odd(x) if odd else 0)

    model, (x, _) = Sometimes().double(), batch()
    with probes.Recorder(model) as recorder:
        for odd in (False, True, False, True):
            model(x, odd).sum().backward()
        model(x, False)  # the list of what is not reached is complete while the block runs, too
        assert [len(recorder.activations[name]) for name in ("always", "odd", "")] == [5, 5, 5]
        with torch.no_grad():
            model(x, True)
        unfinished = model(x, False).sum()
    unfinished.backward()  # too late
    kinds = {
        name: "".join("-" if e is None else "x" for e in entries)
        for table in (recorder.activations, recorder.gradients)
        for name, entries in ((f"{'ag'[table is recorder.gradients]} {k}", v) for k, v in table.items())
    }
    assert kinds == {
        **{"a always": "xxxxxxx", "a odd": "-x-x-x-", "a ": "xxxxxxx"},
        **{"g always": "xxxx---", "g odd": "-x-x---", "g ": "xxxx---"},
    }


@needs_torch
def test_a_part_called_outside_of_a_pass_is_not_recorded():
    """Before, between and after passes, also after one that raised: every list has one entry per pass."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.bn, self.act = torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU()

        def forward(self, x, stop=False):
            h = self.fc(x)
            if stop:
                raise ZeroDivisionError
            return self.act(self.bn(h))

    model, (x, _) = Model().double(), batch()
    what = ("activations", "gradients", "batch_statistics", "running_statistics", "dead_units")
    with probes.Recorder(model, what) as recorder:
        for stop in (False, True, False):
            for _ in range(2):
                model.act(model.bn(model.fc(x))).sum().backward()
            with nullcontext() if not stop else pytest.raises(ZeroDivisionError):
                model(x, stop).sum().backward()
        model.fc(x)
        again = torch.utils.checkpoint.checkpoint(model, x.clone().requires_grad_(), use_reentrant=True)
        again.sum().backward()  # which runs the model again
    lists = {(name, layer): entries for name in what for layer, entries in getattr(recorder, name).items()}
    reached = {"fc": "xxxx", "bn": "x-xx", "act": "x-xx"}
    for (name, layer), entries in lists.items():
        if name != "gradients":
            assert "".join("-" if e is None else "x" for e in entries) == reached[layer], (name, layer)
        assert len(entries) == 4, (name, layer)
    assert {layer for _, layer in lists} == set(reached)


@needs_torch
def test_frozen_layers_have_no_gradient_in_training_and_one_in_the_xray():
    model, (x, target) = awkward(), batch()
    with probes.Recorder(model, "gradients", layers=["stem", "out"]) as recorder:
        torch.nn.functional.cross_entropy(model(x), target).backward()
    assert recorder.gradients["stem"] == [None] and recorder.gradients["out"][0].any()
    assert probes.record(model, x, target, layers="stem")["stem"][1].any()


@needs_torch
def test_reduce_keeps_less():
    model, (x, target) = awkward(), batch()
    torch.manual_seed(3)
    expected = probes.record(model, x, target)
    with probes.Recorder(model.requires_grad_(True), reduce=probes.spread) as recorder:
        torch.manual_seed(3)
        torch.nn.functional.cross_entropy(model(x), target).backward()
    for name, (activation, gradient) in expected.items():
        assert recorder.activations[name] == [probes.spread(activation)]
        assert recorder.gradients[name][0] == pytest.approx(probes.spread(gradient))


@needs_torch
def test_channels_of_images_are_units():
    images, _ = data.load("val")
    conv = torch.nn.Conv2d(1, 3, 3)
    model = torch.nn.Sequential(conv, torch.nn.BatchNorm2d(3), torch.nn.ReLU())
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([0.0, -50.0, 0.0]))
    with probes.Recorder(model, ("batch_statistics", "running_statistics", "dead_units")) as recorder:
        model.eval()(torch.from_numpy(data.to_input(images[:5])))
    x = conv(torch.from_numpy(data.to_input(images[:5]))).detach().numpy()
    assert recorder.dead_units == {"2": [pytest.approx(1 / 3)]}
    assert_agrees(recorder.batch_statistics["1"][0].mean, x.mean((0, 2, 3)), 1e-5, "mean")
    assert_agrees(recorder.batch_statistics["1"][0].var, x.var((0, 2, 3)), 1e-5, "variance")
    np.testing.assert_array_equal(recorder.running_statistics["1"][0].var, np.ones(3))  # evaluation updates nothing


@needs_torch
def test_the_recorder_goes_without_a_trace_when_the_block_raises():
    model, (x, _) = awkward(), batch()
    model.fails = True
    before, optimizers = structure(model), trace(model)["optimizers"]
    with pytest.raises(ZeroDivisionError), probes.Recorder(model, probes.WHAT) as recorder:
        model(x)
    model.seen.clear()
    assert structure(model) == before and trace(model)["optimizers"] == optimizers
    assert "shared#2" in recorder.activations and "out" not in recorder.activations  # what came before is kept


# --- what is refused -------------------------------------------------------------------------------------------------


@needs_torch
def test_what_cannot_be_recorded_is_refused():
    model, (x, target) = awkward(), batch()
    before = trace(model)

    def constant(y, target):
        return y.detach().sum()

    silent = torch.no_grad()(lambda y, t: y.sum())
    table = [
        (lambda: probes.xray(model, (x, target, x)), ValueError, r"batch must be \(inputs, targets\) .*, got 3 values"),
        (lambda: probes.xray("resnet", (x, target)), TypeError, "model must be a torch.nn.Module .*, got str"),
        (lambda: probes.record(model, x, target.double()), TypeError, "integer class labels, got torch.float64"),
        (lambda: probes.record(model.split, x, target), TypeError, "the model returns a tuple: give loss="),
        (lambda: probes.record(model, x, target, loss=lambda y, t: y), ValueError, r"one number, got shape \(7, 4\)"),
        (lambda: probes.record(model, x, target, loss=lambda y, t: 1.0), ValueError, "one number, got float"),
        (lambda: probes.record(model, x, target, loss=constant), ValueError, "the loss has no gradient"),
        (lambda: probes.record(model, x, target, loss=silent), ValueError, "the loss has no gradient"),
        (
            lambda: probes.record(model, x, layers="head"),
            ValueError,
            r"has no \['head'\]; it has \['', 'stem'",
        ),
        (
            lambda: probes.record(model, x, layers=torch.nn.Conv2d),
            ValueError,
            "none of .*Conv2d.*; it has Awkward,",
        ),
        (lambda: probes.record(torch.nn.LazyLinear(3), x), ValueError, "parameters without values, .* call it once"),
        (lambda: probes.Recorder(model, "activation"), ValueError, "what must be of activations, .* got 'activation'"),
        (lambda: probes.Recorder(cnn()), TypeError, "model must be a torch.nn.Module .*, got Sequential"),
        (lambda: probes.Recorder(model).dead_units, AttributeError, "'dead_units' was not asked for: name it in what="),
        (lambda: probes.Recorder(model).deaths, AttributeError, "'deaths' is no attribute of Recorder"),
        (lambda: probes.record(cnn(), x, loss=torch.nn.MSELoss()), TypeError, "x must be"),
    ]
    for call, error, message in table:
        with pytest.raises(error, match=message):
            call()
    with probes.Recorder(model) as recorder, pytest.raises(RuntimeError, match="recording already"):
        recorder.__enter__()
    assert_no_trace(before, model)


@needs_torch
def test_a_compiled_model_is_refused():
    compiled_in_place = awkward()
    compiled_in_place.compile(backend="eager")
    for compiled in (torch.compile(awkward(), backend="eager"), compiled_in_place):
        with pytest.raises(ValueError, match="give the model before"):
            probes.Recorder(compiled)


def test_numpy_models_refuse_other_losses():
    with pytest.raises(TypeError, match=r"loss must be a layer of bnbook\.nn like CrossEntropyLoss, got function"):
        probes.record(nn.Sequential(nn.Linear(3, 2)), np.ones((4, 3), np.float32), loss=lambda y: y.sum())
