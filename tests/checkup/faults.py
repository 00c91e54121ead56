"""Models with one fault each, planted into a healthy one, and the code under which it must be found."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnbook.models import torch_cnn

from . import models

Case = tuple[nn.Module, list, torch.optim.Optimizer | None]
FAULTS: dict[str, tuple[str, Callable[[], Case]]] = {}


def fault(code: str, name: str) -> Callable:
    def keep(make: Callable[[], nn.Module | Case]) -> Callable:
        def case() -> Case:
            torch.manual_seed(0)
            made = make()
            return made if isinstance(made, tuple) else (made, models.batches(), None)

        FAULTS[name] = code, case
        return make

    return keep


@cache
def _network() -> nn.Module:
    torch.manual_seed(0)
    return models.trained(torch_cnn.cnn(image_size=14))


def network() -> nn.Module:
    return copy.deepcopy(_network())


def norms(model: nn.Module) -> Iterator[nn.Module]:
    return (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))


@fault("BN101", "never trained")
def _() -> nn.Module:
    return torch_cnn.cnn(image_size=14)


@fault("BN101", "parameters saved without buffers")
def _() -> nn.Module:
    model = torch_cnn.cnn(image_size=14)
    model.load_state_dict(dict(network().named_parameters()), strict=False)
    return model


@fault("BN101", "one layer reset")
def _() -> nn.Module:
    model = network()
    model.bn2.reset_running_stats()
    return model


class ByFunction(nn.Module):
    """Buffers of its own, and PyTorch's function in place of the layer."""

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.conv, self.out, self.momentum = nn.Conv2d(1, 8, 3), nn.Sequential(*models.head(8)), momentum
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("var", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(self.conv(x), self.mean, self.var, training=self.training, momentum=self.momentum)
        return self.out(F.relu(x))


@fault("BN101", "a function whose statistics never move")
def _() -> nn.Module:
    return models.trained(ByFunction(momentum=0.0))


@fault("BN101", "replaced by a new layer")
def _() -> nn.Module:
    model = network()
    model.bn1 = nn.BatchNorm2d(32)
    return model


@fault("BN102", "one infinite pixel")
def _() -> nn.Module:
    model = network()
    x = models.batches(1)[0].clone()
    x[0, 0, 3, 3] = float("inf")
    model(x)
    return model


@fault("BN102", "overflow to a negative variance")
def _() -> nn.Module:
    model = network()
    model.bn2.running_var[3] = -0.1
    return model


@fault("BN103", "momentum 0")
def _() -> nn.Module:
    model = network()
    for norm in norms(model):
        norm.momentum = 0.0
    return model


@fault("BN103", "a step below the last digit")
def _() -> nn.Module:
    model = network()
    for norm in norms(model):
        norm.momentum = 1e-9
    return model


@fault("BN104", "cumulative average")
def _() -> nn.Module:
    model = network()
    model.bn1.momentum = None
    return model


@fault("BN104", "momentum as in Keras")
def _() -> nn.Module:
    model = network()
    model.bn1.momentum = 0.99
    return model


@fault("BN105", "inverted images")
def _() -> Case:
    return network(), [-x for x in models.batches()], None


@fault("BN105", "images of a third of the contrast")
def _() -> Case:
    return network(), [0.3 * x for x in models.batches()], None


@fault("BN105", "pixels that are not standardized")
def _() -> Case:
    return network(), [(x + 1) * 90 for x in models.batches()], None


@fault("BN105", "momentum too small for so few steps")
def _() -> nn.Module:
    model = torch_cnn.cnn(image_size=14)
    for norm in norms(model):
        norm.momentum = 0.001
    return models.trained(model)


@fault("BN105", "standard deviations loaded as variances")
def _() -> nn.Module:
    model = network()
    model.bn2.running_var.pow_(2)
    return model


@fault("BN105", "a function whose statistics are too slow")
def _() -> nn.Module:
    return models.trained(ByFunction(momentum=0.001))


@fault("BN105", "statistics of other channels")
def _() -> nn.Module:
    model = network()
    model.bn2.running_mean.copy_(model.bn2.running_mean.roll(1))
    return model


@fault("BN106", "outputs far apart")
def _() -> nn.Module:
    model = network()
    model.bn2.running_mean += 3 * model.bn2.running_var.sqrt()
    return model


@fault("BN107", "without running statistics")
def _() -> nn.Module:
    model = torch_cnn.cnn(image_size=14)
    model.bn1 = nn.BatchNorm2d(32, track_running_stats=False)
    return models.trained(model)


class Always(nn.BatchNorm1d):
    def train(self, mode: bool = True) -> nn.Module:
        return super().train(True)


@fault("BN107", "a layer that ignores eval()")
def _() -> nn.Module:
    model = torch_cnn.cnn(image_size=14)
    model.bn2 = Always(128)
    return models.trained(model)


class ByHand(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.var(0) + 1e-5).sqrt()


@fault("BN107", "statistics of the batch, by hand")
def _() -> nn.Module:
    model = network()
    model.relu2 = nn.Sequential(ByHand(), nn.ReLU())
    return model


class Function(nn.Module):
    """No layer at all: PyTorch's function, which is told to train."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 8, 3), nn.Sequential(*models.head(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(F.batch_norm(self.conv(x), None, None, training=True)))


@fault("BN107", "statistics of the batch, by function")
def _() -> nn.Module:
    return models.trained(Function())


class Listed(nn.Module):
    """Takes a list of images and returns a list of answers, as detectors do."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        return [{"scores": scores} for scores in self.body(torch.stack(images))]


@fault("BN107", "without running statistics, images in a list")
def _() -> Case:
    model = models.residual()
    model[1] = nn.BatchNorm2d(16, track_running_stats=False)
    return Listed(models.trained(model)), [(list(x),) for x in models.batches()], None


class Serving(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x: Tensor) -> Tensor:
        self.body.train()
        return self.body(x)


@fault("BN107", "a forward() that calls train()")
def _() -> nn.Module:
    return Serving()


@fault("BN107", "left in training mode")
def _() -> nn.Module:
    model = network().eval()
    model.bn2.train()
    return model


@fault("BN109", "a weight that is no number")
def _() -> nn.Module:
    model = network()
    with torch.no_grad():
        model.fc2.bias[0] = torch.nan
    return model


@fault("BN109", "a pixel that is no number")
def _() -> Case:
    first, *others = models.batches()
    first = first.clone()
    first[0, 0, 0, 0] = torch.nan
    return network(), [first, *others], None


@fault("BN108", "everything in bfloat16")
def _() -> Case:
    return network().to(torch.bfloat16), [x.bfloat16() for x in models.batches()], None


@fault("BN201", "one example")
def _() -> Case:
    return network(), models.batches(3, 1), None


@fault("BN201", "four examples")
def _() -> Case:
    return network(), models.batches(8, 4), None


@fault("BN202", "a convolution with a bias")
def _() -> nn.Module:
    return network()


@fault("BN202", "a linear layer with a bias")
def _() -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(196, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10)]
    return models.trained(nn.Sequential(*layers))


class Siamese(nn.Module):
    """Two places, one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(196, 32, bias=False), nn.Linear(32, 32, bias=False)
        self.bn, self.out = nn.BatchNorm1d(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.fc1(x.flatten(1))))
        return self.out(F.relu(self.bn(self.fc2(x))))


@fault("BN203", "one layer in two places")
def _() -> nn.Module:
    return models.trained(Siamese())


@fault("BN204", "a layer that forward() forgets")
def _() -> nn.Module:
    model = models.residual()
    model[3].bn3 = nn.BatchNorm2d(16)
    return models.trained(model)


def with_dropout(dropout: nn.Module) -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(196, 64), nn.ReLU(), dropout, nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU()]
    return models.trained(nn.Sequential(*layers, nn.Linear(32, 10)))


@fault("BN205", "dropout in front")
def _() -> nn.Module:
    return with_dropout(nn.Dropout(0.5))


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training)


@fault("BN205", "dropout in front, as a function")
def _() -> nn.Module:
    return with_dropout(Noise())


@fault("BN206", "an eps of 0")
def _() -> nn.Module:
    model = network()
    model.bn1.eps = 0.0
    return model


@fault("BN301", "eval() of the layers alone")
def _() -> nn.Module:
    model = network()
    for norm in norms(model):
        norm.eval()
    return model


@fault("BN302", "requires_grad=False alone")
def _() -> nn.Module:
    model = network()
    for norm in norms(model):
        norm.requires_grad_(False)
    return model


class Features(nn.Module):
    """A trained network up to its last layer, which is to stay as it is, and a new last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.out = models.trained(models.residual())[:-1], nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.body(x)
        return self.out(x)


@fault("BN302", "torch.no_grad() alone")
def _() -> nn.Module:
    return Features()


@fault("BN303", "most γ dead")
def _() -> nn.Module:
    model = network()
    with torch.no_grad():
        model.bn1.weight[:20] = 0
    return model


@fault("BN304", "weight decay on everything")
def _() -> Case:
    model = network()
    return model, models.batches(), torch.optim.AdamW(model.parameters(), weight_decay=0.05)


@fault("BN305", "names that strict=False did not find")
def _() -> nn.Module:
    model, state = models.residual(), models.trained(models.residual()).state_dict()
    kept = {name: value for name, value in state.items() if name not in ("3.bn1.weight", "3.bn1.bias")}
    model.load_state_dict(kept, strict=False)
    return model


def one_among_many(odd: Callable[[Tensor], Tensor]) -> Case:
    batches = models.batches(32, 16)
    return models.trained(models.residual(), 150), [*batches[:20], odd(batches[20]), *batches[21:]], None


@fault("BN401", "one batch of 32 half a standard deviation brighter")
def _() -> Case:
    return one_among_many(lambda x: x + 0.5)


@fault("BN401", "one batch of 32 with half the contrast")
def _() -> Case:
    return one_among_many(lambda x: 0.5 * x)


@fault("BN401", "one batch of 32 with a single class")
def _() -> Case:
    x, y = models.images("val", 1000)
    return one_among_many(lambda _: x[600:][y[600:] == 1][:16])


@fault("BN401", "sorted by class")
def _() -> Case:
    x, y = models.images("val", 1000)
    return network(), [x[y == c][:64] for c in range(4)], None


@fault("BN401", "one batch from each of two sources")
def _() -> Case:
    first, second, *_ = models.batches()
    return network(), [first, second + 1.5], None


@fault("BN401", "half a standard deviation between two batches")
def _() -> Case:
    first, second = models.batches(2, 100)
    return network(), [first, second + 0.5], None


@fault("BN401", "one unit that tells the batches apart")
def _() -> Case:
    row = nn.Sequential(nn.Flatten(), nn.Linear(196, 32, bias=False), nn.BatchNorm1d(32), nn.Linear(32, 10))
    models.trained(row)
    first, second = models.batches(2, 100)
    with torch.no_grad():  # moves the values of the fifth unit alone
        weights = row[1].weight
        step = torch.linalg.lstsq(weights, torch.eye(32)[:, 4:5]).solution[:, 0] * row[2].running_var[4].sqrt()
    return row, [first, second + step.reshape(1, 14, 14)], None


@fault("BN403", "SyncBatchNorm on a CPU")
def _() -> nn.Module:
    return nn.SyncBatchNorm.convert_sync_batchnorm(network())


@fault("BN404", "averaged weights, statistics of the last")
def _() -> nn.Module:
    model = network()
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999))
    x, y = models.images("train", 1000)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for part, labels in zip(x.split(50), y.split(50), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(part), labels).backward()
        optimizer.step()
        with torch.no_grad():
            model.bn1.weight += 0.1  # fast weights, as early in training
        average.update_parameters(model)
    return average


@fault("BN501", "a pair that can be folded")
def _() -> nn.Module:
    return network()


class Shared(nn.Module):
    """One convolution before two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, bias=False)
        self.one, self.other, self.out = nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.Sequential(*models.head(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.one(self.conv(x))) + F.relu(self.other(self.conv(-x))))


@fault("BN502", "one convolution before two layers")
def _() -> nn.Module:
    return models.trained(Shared())


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)
        self.out = nn.Sequential(*models.head(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.out(F.relu(self.bn(x)) + x)


@fault("BN502", "the output of the convolution is used beside")
def _() -> nn.Module:
    return models.trained(Skip())


@fault("BN502", "a linear layer along another axis")
def _() -> nn.Module:
    body = [nn.Flatten(1, 2), nn.Linear(14, 14, bias=False), nn.BatchNorm1d(14), nn.ReLU(), nn.Flatten()]
    return models.trained(nn.Sequential(*body, nn.Linear(196, 10)))


def upsampled(groups: int) -> nn.Module:
    body = [nn.ConvTranspose2d(16, 8, 2, stride=2, groups=groups, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    return models.trained(nn.Sequential(*models.stem(16), *body, *models.head(8)))


@fault("BN503", "a transposed convolution")
def _() -> nn.Module:
    return upsampled(1)


@fault("BN503", "a transposed convolution with groups")
def _() -> nn.Module:
    return upsampled(4)
