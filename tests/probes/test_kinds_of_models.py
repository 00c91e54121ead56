"""Models of every kind: outputs without a gradient, what is held elsewhere, and what no hook can see."""

from __future__ import annotations

import copy
import dataclasses
import random
import types
import warnings
from collections import Counter, OrderedDict, deque, namedtuple
from functools import partial

import numpy as np
import pytest

from bnbook import nn, probes
from tests.references import assert_agrees, generator, torch

pytest.importorskip("torch")

T, N = torch.nn, 6


def batch(features: int = 4, classes: int = 3):
    rng = generator("batch")
    x = torch.from_numpy(rng.normal(size=(N, features)).astype(np.float32))
    return x, torch.from_numpy(rng.integers(0, classes, N))


def model_of(forward, **modules):
    class Model(T.Module):
        def __init__(self):
            super().__init__()
            for name, module in modules.items():
                setattr(self, name, module)

        def forward(self, *args, **kwargs):
            return forward(self, *args, **kwargs)

    return Model()


# --- outputs that get no gradient -------------------------------------------------------------------------------------


def split(how):
    """An encoder that hands out two halves, of which the loss uses the first."""
    encoder = model_of(lambda self, x: how(self.fc(x)), fc=T.Linear(4, 6))
    return model_of(lambda self, x: self.encoder(x)[0], encoder=encoder)


SPLITS = {
    "chunk": lambda h: h.chunk(2, 1),
    "split": lambda h: h.split([3, 3], 1),
    "unbind": lambda h: h.reshape(N, 3, 2).unbind(2),
    "topk": lambda h: h.topk(3, 1),
    "tensor_split": lambda h: h.tensor_split(2, 1),
}


@pytest.mark.parametrize("how", SPLITS)
def test_a_part_that_the_loss_does_not_use_has_no_gradient(how):
    model, (x, target) = split(SPLITS[how]), batch()
    recorded = probes.record(model, x, target)
    assert recorded["encoder[0]"][1].any()
    if "encoder[1]" in recorded:  # the places that topk returns are no real numbers
        assert recorded["encoder[1]"][1] is None
    twin = copy.deepcopy(model)
    with probes.Recorder(model) as recorder:  # the user's own backward goes through
        for _ in range(2):
            torch.nn.functional.cross_entropy(model(x), target).backward()
    for _ in range(2):
        torch.nn.functional.cross_entropy(twin(x), target).backward()
    assert torch.equal(model.encoder.fc.weight.grad, twin.encoder.fc.weight.grad)
    assert recorder.gradients["encoder[0]"][1].any() and len(recorder.gradients["encoder[0]"]) == 2
    assert recorder.gradients.get("encoder[1]", [None, None]) == [None, None]


def test_a_gradient_that_came_is_kept_when_later_none_comes():
    encoder = model_of(lambda self, x: self.fc(x).chunk(2, 1), fc=T.Linear(4, 6))
    model, (x, _) = model_of(lambda self, x: self.encoder(x), encoder=encoder), batch()
    with probes.Recorder(model, "gradients") as recorder:
        first, second = model(x)
        second.sum().backward(retain_graph=True)
        first.sum().backward()
    np.testing.assert_array_equal(recorder.gradients["encoder[1]"][0], np.ones((N, 3)))


def test_a_quantized_model_has_gradients_behind_its_last_linear_layer():
    layers = [T.Linear(4, 5), T.BatchNorm1d(5), T.ReLU(), T.Linear(5, 3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(T.Sequential(*layers), {T.Linear})
        x, target = batch()
        recorded = probes.record(model, x, target)
        assert [gradient is None for _, gradient in recorded.values()] == [True, True, True, False]
        with probes.Recorder(model) as recorder:
            torch.nn.functional.cross_entropy(model(x), target).backward()
    assert recorder.gradients["2"] == [None] and len(recorder.activations["0"]) == 1


# --- children of which the truth is not to be asked -------------------------------------------------------------------


def test_children_are_not_asked_for_their_truth():
    class Untrue(T.Linear):
        def __len__(self):
            raise TypeError("this one has no length")

    class Empty(T.Linear):
        def __len__(self):
            return 0

    x, target = batch()
    for kind in (Untrue, Empty):
        row = T.Sequential(OrderedDict(inner=kind(4, 3)))
        assert list(probes.record(row, x, target)) == ["inner"]  # the row only hands on what its layer returned
        with probes.Recorder(row) as recorder:
            row(x)
        assert list(recorder.activations) == ["inner"]


# --- what a model holds without being asked ---------------------------------------------------------------------------


@dataclasses.dataclass
class Memory:
    bank: torch.Tensor
    steps: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Slots:
    bank: torch.Tensor


Pair = namedtuple("Pair", "bank other")


def teacher():
    torch.manual_seed(1)
    return T.Sequential(T.Linear(4, 4), T.BatchNorm1d(4), T.Dropout(0.5))


def in_a_closure(module):
    calls = 0

    def run(x):
        nonlocal calls
        calls += 1
        return module(x), calls

    return run


TEACHERS = {  # how a model may hold a module that is not registered, and how it is found again
    "a list": (lambda t: [t], lambda held: held[0]),
    "a tuple": (lambda t: (t,), lambda held: held[0]),
    "a dictionary in a list": (lambda t: [{"t": t}], lambda held: held[0]["t"]),
    "a dictionary in a dictionary": (lambda t: {"a": {"b": t}}, lambda held: held["a"]["b"]),
    "a dataclass": (lambda t: Memory(t), lambda held: held.bank),
    "a dataclass with slots": (lambda t: Slots(t), lambda held: held.bank),
    "a namespace": (lambda t: types.SimpleNamespace(t=t), lambda held: held.t),
    "a closure": (in_a_closure, lambda held: lambda x: held(x)[0]),
    "a lambda": (lambda t: lambda x: t(x), lambda held: held),
    "a default": (lambda t: lambda x, t=t: t(x), lambda held: held),
    "a bound method": (lambda t: t.forward, lambda held: held),
    "a partial": (lambda t: partial(t.forward), lambda held: held),
    "a module in it": (lambda t: [model_of(lambda s, x: s.held[0](x), held=[t])], lambda held: held[0]),
}


def state_of(module):
    tensors = {**module.state_dict(), **{f"{k}.grad": p.grad for k, p in module.named_parameters()}}
    values = {k: None if v is None else v.numpy().tobytes() for k, v in tensors.items()}
    return values, [m.training for m in module.modules()], [p.requires_grad for p in module.parameters()]


@pytest.mark.parametrize("fails", [False, True], ids=["", "fails"])
@pytest.mark.parametrize("case", TEACHERS)
def test_a_teacher_that_is_not_registered_stays_as_it_is(case, fails):
    hold, find = TEACHERS[case]
    hidden = teacher()

    def forward(self, x):
        y = self.fc(x) + find(self.held)(x)
        hidden.eval() if fails else None
        return 1 / 0 if fails else y

    model, (x, target) = model_of(forward, fc=T.Linear(4, 4), held=hold(hidden)), batch()
    before, twin, seeds = state_of(hidden), copy.deepcopy(hidden), torch.get_rng_state()
    if fails:
        with pytest.raises(ZeroDivisionError):
            probes.record(model, x, target)
    else:
        probes.record(model, x, target)
    assert state_of(hidden) == before
    torch.set_rng_state(seeds)
    y = hidden(x)
    torch.set_rng_state(seeds)
    assert torch.equal(y, twin(x)) and not torch.equal(hidden[1].running_mean, torch.zeros(4))  # it does move


def counting(self, x):
    """Changes everything it holds, in every way."""
    self.listed[0] += 1
    self.listed.append(3)
    self.pair[1].mul_(2)
    self.named.bank.add_(1)
    self.nested["a"]["b"][0] -= 1
    self.nested["a"]["new"] = 5
    self.memory.bank.data += 1
    self.memory.steps += 1
    self.slots.bank.zero_()
    self.queue.append(x.sum())
    self.names.add("new")
    self.calls["forward"] += 1
    self.array += 1
    self.namespace.bank[0] = 7
    self.counter()
    np.random.rand(), random.random(), torch.rand(1)
    return self.fc(x)


def test_tensors_and_values_in_containers_are_put_back():
    bank, count = torch.arange(4.0), 0

    def counter():
        nonlocal count, bank
        count += 1
        bank += 1
        bank = bank * 2
        return count

    def rows():
        return torch.arange(4.0)

    nested = {"a": {"b": [rows()]}}
    held = {"listed": [rows(), 2], "pair": (1, rows()), "named": Pair(rows(), 0), "nested": nested}
    held |= {"memory": Memory(rows()), "slots": Slots(rows()), "queue": deque([1], maxlen=3), "names": {"old"}}
    held |= {"calls": Counter(forward=2)}
    held |= {"array": np.arange(3.0), "namespace": types.SimpleNamespace(bank=rows()), "counter": counter}
    model, (x, target) = model_of(counting, fc=T.Linear(4, 3), **held), batch()
    expected = copy.deepcopy({name: value for name, value in held.items() if name != "counter"})
    numbers = np.random.get_state()[1].tobytes(), random.getstate(), torch.get_rng_state().numpy().tobytes()
    ids = [id(nested), id(nested["a"]), id(held["listed"][0]), id(bank)]
    probes.record(model, x, target)
    assert repr({name: getattr(model, name) for name in expected}) == repr(expected)
    assert count == 0 and torch.equal(bank, torch.arange(4.0))
    assert ids == [id(model.nested), id(model.nested["a"]), id(model.listed[0]), id(bank)]
    assert numbers == (np.random.get_state()[1].tobytes(), random.getstate(), torch.get_rng_state().numpy().tobytes())
    model(x)
    assert count == 1 and repr(model.listed) != repr(expected["listed"])  # it does change them


class Counts:
    """An object as anyone writes it."""

    def __init__(self):
        self.calls, self.rows, self.inner = 0, torch.arange(3.0), None

    def forward(self):
        self.calls += 1
        self.rows += 1
        self.new = 5
        if self.inner is not None:
            self.inner.forward()


class Slotted:
    __slots__ = ("__dict__", "calls", "later")

    def __init__(self):
        self.calls = 0

    def forward(self):
        self.calls += 1
        self.later = self.beside = 1


def with_attributes():
    with_attributes.calls += 1


def state_of_object(value):
    names = [*vars(value), *(name for name in ("calls", "later") if hasattr(value, name))]
    return {name: repr(getattr(value, name)) for name in names if name != "inner"}


@pytest.mark.parametrize(
    "hold", [lambda v: v, lambda v: [v], lambda v: types.SimpleNamespace(v=v), lambda v: v.forward]
)
@pytest.mark.parametrize("kind", [Counts, Slotted])
def test_attributes_of_plain_objects_are_put_back(kind, hold):
    counts = kind()

    def forward(self, x):
        counts.forward()
        return self.fc(x)

    if kind is Counts:
        counts.inner = Counts()
    model, (x, target) = model_of(forward, fc=T.Linear(4, 3), held=hold(counts)), batch()
    before = [state_of_object(v) for v in (counts, getattr(counts, "inner", None)) if v is not None]
    probes.record(model, x, target)
    assert [state_of_object(v) for v in (counts, getattr(counts, "inner", None)) if v is not None] == before
    counts.forward()
    assert state_of_object(counts) != before[0] and counts.calls == 1  # it does change them


def test_attributes_of_functions_are_put_back():
    with_attributes.calls = 0
    model, (x, target) = model_of(lambda self, x: (self.held(), self.fc(x))[1], fc=T.Linear(4, 3)), batch()
    model.held = with_attributes
    probes.record(model, x, target)
    assert with_attributes.calls == 0


GENERATORS = {
    "torch": (lambda: torch.Generator().manual_seed(1), lambda g: float(torch.rand(1, generator=g))),
    "numpy": (lambda: np.random.default_rng(1), lambda g: g.random()),
    "numpy, as of old": (lambda: np.random.RandomState(1), lambda g: g.normal()),
    "Python": (lambda: random.Random(1), lambda g: g.gauss(0, 1)),
}


@pytest.mark.parametrize("where", ["attribute", "list", "object"])
@pytest.mark.parametrize("kind", GENERATORS)
def test_random_numbers_of_a_generator_of_its_own_go_on(kind, where):
    make, draw = GENERATORS[kind]
    own, other = make(), make()
    held = {"attribute": own, "list": [own], "object": Counts()}[where]
    if where == "object":
        held.inner = types.SimpleNamespace(own=own)
    model, (x, target) = model_of(lambda self, x: self.fc(x) + draw(own), fc=T.Linear(4, 3), held=held), batch()
    probes.record(model, x, target)
    assert draw(own) == draw(other)


def test_what_is_no_state_of_a_model_is_not_copied():
    class Images(torch.utils.data.Dataset):
        def __init__(self):
            self.x = torch.zeros(3)

    images, found = Images(), []
    model = model_of(lambda self, x: self.fc(x), fc=T.Linear(4, 3), data=[images, torch, Images])
    for value in probes.untouched.held(model):
        found += [value is images, value is images.x, value is torch, value is Images]
    assert not any(found)
    probes.record(torch.fx.symbolic_trace(T.Sequential(T.Linear(4, 3), T.ReLU())), *batch())


def test_the_random_numbers_of_a_numpy_model_go_on():
    class Noise(nn.ReLU):
        def forward(self, x):
            return super().forward(x + np.float32(np.random.rand() + random.random()))

    model = nn.Sequential(nn.Linear(4, 3, rng=0), Noise())
    before = np.random.get_state()[1].tobytes(), random.getstate()
    probes.record(model, batch()[0].numpy(), batch()[1].numpy())
    assert (np.random.get_state()[1].tobytes(), random.getstate()) == before


# --- inputs and outputs -----------------------------------------------------------------------------------------------


def test_a_packed_sequence_is_one_argument_and_one_output():
    lengths = [5, 3, 2]
    padded = torch.from_numpy(generator("packed").normal(size=(3, 5, 4)).astype(np.float32))
    packed = T.utils.rnn.pack_padded_sequence(padded, lengths, batch_first=True)
    rnn = T.GRU(4, 3, batch_first=True)
    model = model_of(lambda self, x: self.out(self.rnn(x)[1][0]), rnn=rnn, out=T.Linear(3, 2))
    target = torch.tensor([0, 1, 1])
    recorded = probes.record(model, packed, target)
    assert list(recorded) == ["rnn[0].data", "rnn[1]", "out"]  # the model hands on the output of `out`
    output, last = rnn(packed)
    np.testing.assert_array_equal(recorded["rnn[0].data"][0], output.data.detach())
    np.testing.assert_array_equal(recorded["rnn[1]"][0], last.detach())
    assert recorded["rnn[1]"][1].any() and recorded["rnn[0].data"][0].shape == (sum(lengths), 3)
    again = probes.record(model, (packed,), target)
    np.testing.assert_array_equal(again["out"][1], recorded["out"][1])


def test_a_named_tuple_is_one_argument():
    model, (x, target) = model_of(lambda self, pair: self.fc(pair.bank), fc=T.Linear(4, 3)), batch()
    recorded = probes.record(model, Pair(x, 2), target)
    np.testing.assert_array_equal(recorded["fc"][0], model.fc(x).detach())


def test_dataclasses_are_seen():
    @dataclasses.dataclass
    class Output:
        logits: torch.Tensor
        hidden: list
        loss: torch.Tensor | None = None

    def forward(self, x):
        h = self.fc(x)
        return Output(2 * h, [h / 2, {"deep": h + 1}])

    model, (x, target) = model_of(forward, fc=T.Linear(4, 3)), batch()
    loss = torch.nn.functional.cross_entropy
    recorded = probes.record(model, x, target, loss=lambda y, t: loss(y.logits, t))
    assert list(recorded) == ["fc", ".logits", ".hidden[0]", ".hidden[1]['deep']"]
    assert_agrees(recorded[".logits"][0], 2 * recorded["fc"][0], 1e-6, "logits")
    assert_agrees(2 * recorded[".logits"][1], recorded["fc"][1], 1e-6, "gradient")
    assert recorded[".hidden[0]"][1] is None


def test_what_is_no_fashion_mnist_is_given_as_it_is():
    """Images of three channels, tokens: bytes of another shape are the business of the model."""
    rng = generator("bytes")
    colours = rng.integers(0, 256, (N, 3, 8, 8), dtype=np.uint8)
    seen = []

    def forward(self, x):
        seen.append(x)
        return self.fc(x.float().flatten(1))

    model = model_of(forward, fc=T.Linear(192, 3))
    target = rng.integers(0, 3, N)
    recorded = probes.record(model, colours, target)
    np.testing.assert_array_equal(seen[0], colours)
    expected = model.fc(torch.from_numpy(colours).float().flatten(1)).detach()
    np.testing.assert_array_equal(recorded["fc"][0], expected)
    tokens = rng.integers(0, 11, (N, 7), dtype=np.uint8)
    embedding = model_of(lambda self, t: self.embedding(t.long()), embedding=T.Embedding(11, 5))
    np.testing.assert_array_equal(
        probes.record(embedding, tokens)["embedding"][0], embedding.embedding.weight.detach()[tokens.astype(int)]
    )
    plain = T.Sequential(T.Flatten(), T.Linear(784, 3))
    images = rng.integers(0, 256, (N, 28, 28), dtype=np.uint8)
    assert abs(probes.record(plain, images, target)["0"][0].mean()) < 5  # standardized


# --- what no hook can see ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_modules_of_torch_jit_are_refused():
    x, target = batch()
    inside = T.Sequential(OrderedDict(a=T.Linear(4, 4), b=torch.jit.script(T.Linear(4, 3))))
    before = copy.deepcopy(inside.a.state_dict())
    for model, names in (
        (torch.jit.script(T.Sequential(T.Linear(4, 3))), r"\['', '0'\]"),
        (torch.jit.trace(T.Linear(4, 3), x), r"\[''\]"),
        (inside, r"\['b'\]"),
    ):
        for call in (lambda m: probes.record(m, x, target), probes.Recorder, lambda m: probes.xray(m, (x, target))):
            with pytest.raises(ValueError, match=f"compiled by torch.jit .modules {names}.*before torch.jit.script"):
                call(model)
    assert all(torch.equal(value, before[key]) for key, value in inside.a.state_dict().items())


def test_reentrant_checkpoints():
    from torch.utils.checkpoint import checkpoint

    def make(reentrant):
        torch.manual_seed(2)
        body = T.Sequential(T.Linear(4, 5), T.BatchNorm1d(5), T.ReLU())
        forward = lambda self, x: self.out(checkpoint(self.body, self.first(x), use_reentrant=reentrant))  # noqa: E731
        return model_of(forward, first=T.Linear(4, 4), body=body, out=T.Linear(5, 3))

    model, (x, target) = make(True), batch()
    before = state_of(model)
    with pytest.raises(ValueError, match=r"reentrant checkpoints.*use_reentrant=False, or give the inputs alone"):
        probes.record(model, x, target)
    assert state_of(model) == before
    expected = probes.record(make(False), x, target)
    alone = probes.record(model, x)
    for name, (activation, _) in expected.items():
        np.testing.assert_array_equal(alone[name][0], activation)
    with probes.Recorder(model) as recorder:  # with the user's own backward() it works; inside no gradient is seen
        torch.nn.functional.cross_entropy(model(x), target).backward()
    assert all(len(entries) == 1 for entries in recorder.activations.values())
    assert recorder.gradients["body.0"] == [None]
    np.testing.assert_array_equal(recorder.gradients["first"][0], expected["first"][1])
