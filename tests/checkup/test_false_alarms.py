"""What looks like a fault and is none, beside what looks the same and is one."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from bnbook.checkup import checkup

from . import models


def severe(report) -> dict[str, str]:
    """The layer of each warning and error, by code."""
    return {f.code: f.layer for f in report.findings if f.severity != "info"}


def settled(model: nn.Module, x: torch.Tensor, size: int = 100) -> nn.Module:
    """The model after training-mode passes over batches of x: each layer has the statistics of what arrives at it."""
    for _ in range(3):
        for part in x.split(size):
            model(part)
    return model


# --- what the batches cannot tell ------------------------------------------------------------------------------------


def rare(number: int, columns: int, seed: int) -> torch.Tensor:
    """Twenty normal columns, then columns that are 1 in one of a hundred to one of ten thousand examples, else 0."""
    generator = torch.Generator().manual_seed(seed)
    often = torch.logspace(-4, -2, columns)
    ones = torch.rand(number, columns, generator=generator) < often
    return torch.cat([torch.randn(number, 20, generator=generator), ones.float()], 1)


@pytest.mark.parametrize("columns", [50, 500])
def test_rare_columns_are_no_finding(columns):
    model = settled(nn.Sequential(nn.BatchNorm1d(20 + columns, momentum=0.01)), rare(50_000, columns, 0), 128)
    report = checkup(model, rare(256, columns, 1).split(128))
    assert "BN105" not in severe(report), report.text()
    missing = rare(256, columns, 1) + 3 * torch.nn.functional.one_hot(torch.tensor(5), 20 + columns)
    assert severe(checkup(model, missing.split(128)))["BN105"] == "0"


def test_a_column_that_is_constant_here_is_judged_by_its_own_spread():
    """A column that was normal in training and is 0 here is as likely as 0 was; one that is 6 is not."""
    model = settled(nn.Sequential(nn.BatchNorm1d(4)), torch.randn(3000, 4, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
    for value, found in ((0.0, False), (6.0, True)):
        x[:, 2] = value
        report = checkup(model, x.split(100))
        assert ("BN105" in severe(report)) == found, report.text()
    assert report.distances[0].channel == 2


def test_one_bad_channel_among_many_is_found_and_named():
    generator = torch.Generator().manual_seed(0)
    model = settled(nn.Sequential(nn.BatchNorm1d(512)), torch.randn(5000, 512, generator=generator))
    batches = torch.randn(256, 512, generator=generator).split(128)
    healthy = checkup(model, batches)
    assert severe(healthy) == {}, healthy.text()
    for change in (lambda norm: norm.running_mean[300].add_(4), lambda norm: norm.running_var[300].mul_(100)):
        bad = settled(nn.Sequential(nn.BatchNorm1d(512)), torch.randn(5000, 512, generator=generator))
        change(bad[0])
        report = checkup(bad, batches)
        (finding,) = (f for f in report.findings if f.code == "BN105")
        assert report.distances[0].mean < 0.3 and report.distances[0].variance < 0.6  # diluted, over the channels
        assert finding.message.startswith("channel 300 alone") and report.distances[0].channel == 300


# --- outputs ---------------------------------------------------------------------------------------------------------


class Answers(nn.Module):
    """A layer, a linear one after it, and what `answer` makes of it."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.norm, self.out, self.answer = nn.BatchNorm1d(8), nn.Linear(8, 5), answer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer(self.out(self.norm(x)))


def answering(answer) -> tuple[nn.Module, list[torch.Tensor]]:
    x = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0))
    return settled(Answers(answer), x), list(x[:200].split(100))


FORBIDDEN = torch.tensor([False, True, False, False, True])


def test_masked_outputs_are_no_error():
    model, batches = answering(lambda y: y.masked_fill(FORBIDDEN, -torch.inf))
    assert severe(checkup(model, batches)) == {}
    model.norm.running_mean += 2  # and are compared where they are not masked
    assert {"BN105", "BN106"} == severe(checkup(model, batches)).keys()


@pytest.mark.parametrize("fault", ["overflow", "weight", "NaN"])
def test_outputs_that_are_infinite_by_mistake_are_an_error(fault):
    ways = {"overflow": lambda y: (1e3 * y).exp(), "weight": lambda y: y, "NaN": lambda y: y / 0 - y / 0}
    model, batches = answering(ways[fault])
    if fault == "weight":
        with torch.no_grad():
            model.out.bias[2] = torch.inf
    assert severe(checkup(model, batches)) == {"BN109": ""}


def test_outputs_that_are_flat_have_no_absurd_distance():
    model, batches = answering(lambda y: 5 + 1e-9 * y.double())
    model.norm.running_mean += 2
    found = severe(checkup(model, batches))
    assert found.keys() == {"BN105"}, found
    model, batches = answering(lambda y: 5 + y)
    model.norm.running_mean += 2
    assert "BN106" in severe(checkup(model, batches))


# --- how layers are used ---------------------------------------------------------------------------------------------


class Twin(nn.Module):
    """Two inputs, one layer for both."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out = nn.BatchNorm1d(8), nn.Linear(8, 5)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(a)) - self.out(self.norm(b))


@pytest.mark.parametrize(("shift", "severity"), [(0.0, "info"), (3.0, "warning")])
def test_two_inputs_that_look_alike_may_share_a_layer(shift, severity):
    generator = torch.Generator().manual_seed(0)
    model = Twin()
    for _ in range(60):
        model(torch.randn(100, 8, generator=generator), shift + torch.randn(100, 8, generator=generator))
    x = torch.randn(2, 2, 100, 8, generator=generator)
    report = checkup(model, [(a, shift + b) for a, b in x])
    assert next(f.severity for f in report.findings if f.code == "BN203") == severity, report.text()
    assert shift or severe(report) == {}


def test_a_model_that_takes_gradients_in_forward():
    class Force(Answers):
        def forward(self, x):
            x = x.requires_grad_()
            return torch.autograd.grad(super().forward(x).sum(), x)[0]

    x = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0))
    report = checkup(settled(Force(lambda y: y**2), x), x[:200].split(100))
    assert report.examples == 200 and len(report.distances) == 1 and "BN105" not in severe(report)


def test_a_negative_momentum_and_a_layer_that_no_optimizer_has():
    model, batches = answering(lambda y: y)
    model.norm.momentum = -0.1
    assert severe(checkup(model, batches))["BN104"] == "norm"
    model.norm.momentum = 0.1
    rest, whole = torch.optim.SGD(model.out.parameters(), 0.1), torch.optim.SGD(model.parameters(), 0.1)
    assert severe(checkup(model, batches, optimizer=rest)) == {"BN302": "norm"}
    assert severe(checkup(model, batches, optimizer=whole)) == {}
    other = torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1)  # of another model: of this one nothing is known
    assert severe(checkup(model, batches, optimizer=other)) == {}


# --- batches that are not alike --------------------------------------------------------------------------------------


def unlike(model: nn.Module, batches) -> list[str]:
    return [f.message for f in checkup(model, batches).findings if f.code == "BN401"]


@pytest.mark.long(seconds=20)
def test_half_a_standard_deviation_between_two_batches_is_seen_and_chance_is_not():
    torch.manual_seed(0)
    model = models.trained(models.torch_cnn.cnn(image_size=14))
    x = models.images("val", 2000)[0]
    for parts in torch.randperm(2000, generator=torch.Generator().manual_seed(1)).split(200):
        first, second = x[parts].split(100)
        assert not unlike(model, [first, second])
        assert unlike(model, [first, second + 0.5])
    assert not unlike(model, list(x.split(63)))


def test_one_channel_that_is_unlike_is_named():
    generator = torch.Generator().manual_seed(0)
    model = settled(nn.Sequential(nn.BatchNorm1d(64)), torch.randn(3000, 64, generator=generator))
    first, second = torch.randn(2, 100, 64, generator=generator)
    assert not unlike(model, [first, second])
    second[:, 17] += 1.2
    assert unlike(model, [first, second])[0].startswith("the means of channel 17 of the batches")


def test_a_difference_that_is_certain_and_trifling_is_none():
    generator = torch.Generator().manual_seed(0)
    model = settled(nn.Sequential(nn.BatchNorm1d(64)), torch.randn(3000, 64, generator=generator))
    batches = list(torch.randn(4, 2000, 64, generator=generator))
    batches[0] += 0.1
    assert not unlike(model, batches)
    batches[0] += 0.3
    assert unlike(model, batches)


@pytest.mark.parametrize(("apart", "judged"), [(0.4, True), (1.0, False)])
def test_statistics_are_judged_while_the_batches_are_not_too_far_apart(apart, judged):
    generator = torch.Generator().manual_seed(0)
    model = settled(nn.Sequential(nn.BatchNorm1d(64)), torch.randn(3000, 64, generator=generator))
    model[0].running_mean += 2
    first, second = torch.randn(2, 500, 64, generator=generator)
    found = severe(checkup(model, [first, second + apart]))
    assert "BN401" in found and ("BN105" in found) == ("BN106" in found) == judged


class Tokens(nn.Module):
    """Thirty rows of each example, which are alike; all rows are the batch of the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out = nn.BatchNorm1d(8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(x.flatten(0, 1)).reshape(x.shape).mean(1))


def test_rows_of_one_example_are_no_new_examples():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 1, 8, generator=generator) + 0.3 * torch.randn(3000, 30, 8, generator=generator)
    model = settled(Tokens(), x)
    assert not any(unlike(model, part.split(64)) for part in x.split(192)[:10])
    assert unlike(model, [x[:64], x[64:128] + 1])


# --- what comes out --------------------------------------------------------------------------------------------------


def test_outputs_of_another_number_in_training_are_not_compared():
    """As of a detector that keeps what it is sure of; found is what is known without them."""
    model, batches = answering(lambda y: y[y > 0.1])
    assert severe(checkup(model, batches)) == {}
    model.norm.running_mean += 2
    assert severe(checkup(model, batches)) == {"BN105": "norm"}


def test_similarities_of_all_pairs_are_no_answers_for_examples():
    model, batches = answering(lambda y: y @ y.T)
    assert "BN107" not in severe(checkup(model, batches))
    model.norm.running_mean = model.norm.running_var = None
    assert severe(checkup(model, batches))["BN107"] == "norm"


def test_the_function_without_a_layer_is_seen():
    class Function(nn.Module):
        def __init__(self, training: bool) -> None:
            super().__init__()
            self.fc, self.always = nn.Linear(8, 5), training

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean, var = torch.zeros(5), torch.ones(5)
            return nn.functional.batch_norm(self.fc(x), mean, var, training=self.always)

    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    assert severe(checkup(Function(True), x.split(100))) == {"BN107": ""}
    assert severe(checkup(Function(False), x.split(100))) == {"BN101": "batch_norm()"}  # it divides by 1


class Functions(nn.Module):
    """The function in two places, with the statistics of two modules, and a third with those of none."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Module(), nn.Module(), nn.Linear(8, 5)
        for place in (self.one, self.two):
            place.register_buffer("mean", torch.zeros(8))
            place.register_buffer("var", torch.ones(8))
        self.third = nn.BatchNorm1d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for place in (self.one, self.two):
            x = nn.functional.batch_norm(2 * x + 1, place.mean, place.var, training=self.training)
        x = nn.functional.batch_norm(x, torch.zeros(8), torch.full([8], 1.1))
        return self.out(self.third(x))


def test_the_function_has_statistics_too():
    x = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0))
    model, batches = settled(Functions(), x), x[:200].split(100)
    report = checkup(model, batches)
    names = {"third", "one.batch_norm()", "two.batch_norm()", "batch_norm()"}
    assert severe(report) == {} and set(report.layers) == names == {d.layer for d in report.distances}, report.text()
    model.two.mean += 2
    far = {f.layer for f in checkup(model, batches).findings if f.code == "BN105"}
    assert "two.batch_norm()" in far and "one.batch_norm()" not in far
    model.one.mean[3] = torch.nan
    assert severe(checkup(model, batches))["BN102"] == "one.batch_norm()"


def test_layers_that_no_gradient_reaches():
    class Stopped(Twin):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.norm(x).detach() if self.stops else self.norm(x))

    x = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0))
    model, batches = Stopped(), x[:200].split(100)
    for model.stops in (False, True):
        settled(model, x)
        assert severe(checkup(model, batches)) == ({"BN302": "norm"} if model.stops else {})
    model.norm.eval()  # nothing of it moves
    assert "BN302" not in severe(checkup(model, batches))
    model.train()
    model.out.requires_grad_(False)
    model.norm.requires_grad_(False)
    assert severe(checkup(model.eval(), batches)) == {}  # nobody trains here
    blind, _ = answering(lambda y: y.detach())  # no gradient reaches anything: it is no trial of the layer
    assert severe(checkup(blind, batches)) == {}


def test_a_head_that_only_training_has():
    class Auxiliary(Twin):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.forgotten = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)), nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
            y = self.out(self.norm(x))
            return (y, self.head(y)) if self.training else y

    x = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0))
    model = settled(Auxiliary(), x)
    found = {f.layer: f.severity for f in checkup(model, x[:200].split(100)).findings if f.code == "BN204"}
    assert found == {"head.1": "info", "forgotten": "warning"}


def test_rows_that_the_model_gathers_are_no_examples():
    class Pooled(Twin):
        """Every example has forty rows, which are alike, and one answer; a second argument says whose row it is."""

        def forward(self, x: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
            return self.out(torch.zeros(int(of.max()) + 1, 8).index_add(0, of, self.norm(x)))

    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        x = torch.randn(80, 1, 8, generator=generator) + torch.randn(80, 40, 8, generator=generator)
        of = torch.arange(20).repeat_interleave(40)
        batches = [(part.flatten(0, 1), of) for part in x.split(20)]
        assert not unlike(Pooled(), batches)
        assert unlike(Pooled(), [*batches[:3], (batches[3][0] + 3, of)])


def test_gradients_that_pass_in_training_alone():
    class Rounded(Twin):
        """As with codes of a codebook: in training the gradient passes straight through the rounding."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm(x)
            rounded = x.detach().round()
            return self.out(x + (rounded - x).detach() if self.training else rounded)

    x = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0))
    assert severe(checkup(settled(Rounded(), x), x[:200].split(100))) == {}


def test_a_part_of_the_statistics_of_a_layer_is_that_layer():
    class Ghost(nn.BatchNorm1d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                return super().forward(x)
            half = slice(self.num_features // 2)
            return nn.functional.batch_norm(x[:, half], self.running_mean[half], self.running_var[half])

    x = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0))
    assert checkup(settled(nn.Sequential(Ghost(8)), x), x[:200].split(100)).layers == ("0",)


def test_new_layers_among_learned_ones():
    def two(*, weight: float, bias: float = 0.0) -> nn.Module:
        model = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 8), nn.BatchNorm1d(8))
        model = settled(model, torch.randn(3000, 8, generator=torch.Generator().manual_seed(0)))
        with torch.no_grad():
            model[2].weight[:] = weight
            model[2].weight[0] += bias
        return model

    batches = torch.randn(200, 8, generator=torch.Generator().manual_seed(1)).split(100)
    assert severe(checkup(two(weight=1.0), batches)) == {}  # both are new
    assert "BN305" not in severe(checkup(two(weight=0.0), batches))  # begun with zeros, and new, too
    assert severe(checkup(two(weight=1.0, bias=0.1), batches)) == {"BN305": "0"}
    assert severe(checkup(two(weight=1.0, bias=0.1))) == {"BN305": "0"}
    never = two(weight=1.0, bias=0.1)
    never[0].reset_running_stats()
    assert severe(checkup(never)) == {"BN101": "0"}  # which says it all


def test_a_module_that_is_compiled_in_place_is_not_compiled_again():
    calls = []

    def backend(graph, inputs):
        calls.append(graph)
        return graph.forward

    model, batches = answering(lambda y: y)
    model.compile(backend=backend)
    compiled = model._compiled_call_impl
    report = checkup(model, batches)
    assert not calls and len(report.distances) == 1 and severe(report) == {}
    assert model._compiled_call_impl is compiled
