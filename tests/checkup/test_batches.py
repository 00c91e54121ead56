"""How a model is called: arguments with names, without, too many, of several lengths."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

from bnbook.checkup import ModelError, checkup


def severe(report) -> dict[str, str]:
    return {f.code: f.layer for f in report.findings if f.severity != "info"}


def normal(number: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(number, *shape, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """One layer between two linear ones; how it is called is the concern of those who inherit."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm, self.out = nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(self.fc(x)))


def settled(model: nn.Module, *more: object) -> nn.Module:
    for part in normal(3000, 4).split(100):
        model(part, *more)
    return model


def test_a_layer_that_is_called_with_a_keyword_is_heard():
    class Named(Net):
        def forward(self, x):
            return self.out(self.norm(input=self.fc(x)))

    report = checkup(settled(Named()), normal(200, 4, seed=1).split(100))
    plain = checkup(settled(Net()), normal(200, 4, seed=1).split(100))
    assert severe(report) == {} and len(report.distances) == 1
    assert [f.code for f in report.findings] == [f.code for f in plain.findings] == ["BN501"]
    report = checkup(settled(Named()), (3 + normal(200, 4, seed=1)).split(100))
    assert severe(report)["BN105"] == "norm"


class Scaled(Net):
    """The second argument has no examples."""

    def forward(self, x, scale):
        return super().forward(x * scale)


@pytest.mark.parametrize("scale", [torch.ones(4), torch.tensor(1.0)], ids=["features", "number"])
def test_a_tensor_without_examples_among_the_arguments(scale):
    batches = [(part, scale) for part in normal(200, 4, seed=1).split(100)]
    report = checkup(settled(Scaled(), scale), batches)
    assert report.examples == 200 and severe(report) == {}
    companions = settled(Scaled(), scale)
    companions.norm.running_mean = companions.norm.running_var = None
    assert severe(checkup(companions, batches)) == {"BN107": "norm"}


class Graph(Net):
    """Each node takes from those that edges lead to it from: another part of the graph gives other answers."""

    def forward(self, x, edges):
        taken = torch.zeros_like(x).index_add(0, edges[1] % len(x), x[edges[0] % len(x)])
        return super().forward(x + taken)


def test_the_nodes_of_a_graph_may_depend_on_each_other():
    edges = torch.randint(100, (2, 300), generator=torch.Generator().manual_seed(0))
    model = settled(Graph(), edges)
    report = checkup(model, [(part, edges) for part in normal(200, 4, seed=1).split(100)])
    assert report.examples == 200 and severe(report) == {}, report.text()


def test_examples_of_a_batch_that_only_the_model_can_read():
    class Record(Net):
        def forward(self, rows):
            return super().forward(torch.tensor(rows.numbers))

    class Rows:
        def __init__(self, numbers):
            self.numbers = numbers

    model = Record()
    for part in normal(3000, 4).split(100):
        model(Rows(part.tolist()))
    report = checkup(model, [Rows(part.tolist()) for part in normal(200, 4, seed=1).split(100)])
    assert report.examples == 200 and severe(report) == {}


def loader(x: torch.Tensor) -> DataLoader:
    return DataLoader(TensorDataset(x, torch.randint(3, (len(x),))), batch_size=100)


def test_an_averaged_model_takes_the_batches_of_its_model():
    average = AveragedModel(settled(Net()))
    report = checkup(average, loader(normal(200, 4, seed=1)))
    assert severe(report) == {} and report.layers == ("module.norm",)


def test_targets_are_not_taken_for_an_optional_argument():
    class Optional(Net):
        def forward(self, x, mask=None, deep=False):
            if mask is not None:
                x = x * mask  # (N,) with (N, 4): targets do not fit
            return super().forward(x)

    report = checkup(settled(Optional()), loader(normal(200, 4, seed=1)))
    assert severe(report) == {} and report.examples == 200
    masked = checkup(settled(Optional()), [(part, torch.ones(4)) for part in normal(200, 4, seed=1).split(100)])
    assert masked.examples == 200 and severe(masked) == {}


def test_a_name_that_the_model_does_not_take_is_said_in_its_own_words():
    with pytest.raises(ModelError, match=r"TypeError on a batch: .*unexpected keyword argument 'label'") as caught:
        checkup(settled(Net()), [{"x": normal(100, 4), "label": torch.zeros(100)}])
    assert "\n" not in str(caught.value)


class Listed(Net):
    """As detectors take images: a list of them, of any sizes; targets in training."""

    def forward(self, rows, targets=None):
        answers = super().forward(torch.stack([row.mean(0) for row in rows]))
        return [{"scores": answer} for answer in answers]


def test_a_list_of_images_is_a_batch_of_them():
    model = settled(Net())
    listed = Listed()
    listed.load_state_dict(model.state_dict())
    batches = [([row[None] for row in part],) for part in normal(256, 4, seed=1).split(32)]
    report = checkup(listed, batches)
    assert report.examples == 256 and severe(report) == {}, report.text()
    named = [{"rows": rows, "targets": [{"label": torch.zeros(1)}] * 32} for (rows,) in batches]
    assert checkup(listed, named).examples == 256
    listed.norm.running_mean = listed.norm.running_var = None
    for given in (batches, named):
        (finding,) = (f for f in checkup(listed, given).findings if f.severity == "error")
        assert (finding.code, finding.layer) == ("BN107", "norm") and "outputs of the layer" in finding.message
