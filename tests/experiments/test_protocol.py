"""The networks of the experiments and the loop that trains them."""

import math
import os

import numpy as np
import pytest
import torch

from bnbook import data
from bnbook.experiments import protocol as T
from bnbook.models.torch_mlp import Block, initialize, mlp, residual_mlp

needs_full_set = pytest.mark.skipif(
    not os.environ.get("BNBOOK_DATA") and not data.SYSTEM_FOLDER.is_dir(),
    reason="the full Fashion-MNIST is not here: neither BNBOOK_DATA nor Debian's package dataset-fashion-mnist",
)


def seeded(make, seed=0, **settings):
    torch.manual_seed(seed)
    return make(**settings)


# --- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [mlp, residual_mlp])
@pytest.mark.parametrize("norm", ["batch", "layer", "group"])
def test_arms_of_one_seed_start_from_the_same_weights(make, norm):
    plain, other = seeded(make, norm="none"), seeded(make, norm=norm)
    linear = [[layer for layer in m.modules() if isinstance(layer, torch.nn.Linear)] for m in (plain, other)]
    assert len(linear[0]) >= 3
    for a, b in zip(*linear, strict=True):
        assert torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias)


def test_the_norm_stands_where_placement_says():
    def names(**settings):
        return [name for name, _ in mlp(widths=(16,), **settings).named_children()]

    assert names() == ["flatten", "fc1", "bn1", "act1", "out"]
    assert names(placement="after", dropout=0.5) == ["flatten", "fc1", "act1", "bn1", "drop1", "out"]
    assert names(placement="after", dropout=0.5, dropout_at="norm") == "flatten fc1 act1 drop1 bn1 out".split()
    assert names(dropout=0.5, dropout_at="norm") == "flatten fc1 drop1 bn1 act1 out".split()
    assert names(norm="none") == ["flatten", "fc1", "act1", "out"]


def test_a_skipinit_network_begins_as_its_stem_and_head():
    model = seeded(residual_mlp, norm="skipinit", depth=6, width=16)
    x = torch.randn(5, 1, 28, 28)
    assert torch.equal(model(x), model.out(torch.relu(model.stem(x.flatten(1)))))
    block = Block(16, "none")
    h = torch.randn(5, 16)
    assert torch.allclose(block(h) - h, block.branch(h), atol=1e-6) and block.branch(h).std() > 0.01


@pytest.mark.parametrize(
    "init, variance",
    [("he", 2 / 400), ("xavier", 2 / 1000), ("default", 1 / 1200), (0.05, 0.0025), ("orthogonal", 1 / 600)],
)
def test_initial_weights_have_the_variance_that_is_said(init, variance):
    layer = torch.nn.Linear(400, 600)
    torch.nn.init.constant_(layer.weight, math.nan) if init != "default" else None
    initialize(layer, init)
    assert layer.weight.var().item() == pytest.approx(variance, rel=0.02)
    assert (layer.bias == 0).all() == (init != "default")


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: mlp("instance"), "norm must be one of 'none', 'batch', 'layer', 'group', got 'instance'"),
        (lambda: mlp(activation="gelu"), "activation must be one of 'relu', 'tanh', 'sigmoid', 'linear', got 'gelu'"),
        (lambda: mlp(placement="inside"), "placement must be one of 'before', 'after', got 'inside'"),
        (lambda: mlp(dropout_at="start"), "dropout_at must be one of 'end', 'norm', got 'start'"),
        (lambda: mlp(init="zeros"), "init must be one of 'default', 'he', 'xavier', 'orthogonal', got 'zeros'"),
        (lambda: mlp(init=-1.0), "or a positive standard deviation, got -1.0"),
        (lambda: residual_mlp(depth=5), "depth must be even and at least 2, two layers a block, got 5"),
        (lambda: T.split("train", 55_000), "count must be at most 50000, or 60000"),
        (lambda: T.split("val", 11_000), "count must be at most 10000, the images of 'val', got 11000"),
        (lambda: T.subset(0, 1), "count must be from 1 to 50000, the training images that never validate, got 0"),
        (lambda: T.subset(50_001, 1), "count must be from 1 to 50000, the training images .*, got 50001"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- training --------------------------------------------------------------------------------------------------------


def problem(n=50):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, 6, generator=generator)
    return x, (x[:, 0] + x[:, 1] > 0).long()


def small(norm="batch", seed=0):
    return seeded(mlp, seed, norm=norm, widths=(8,), in_features=6, out_features=2)


def test_a_step_is_that_of_plain_gradient_descent():
    x, y = problem(16)
    model, reference = small(), small()
    for _ in T.updates(model, x, y, steps=1, lr=0.3, seed=0, batch_size=16):
        pass
    torch.nn.functional.cross_entropy(reference(x), y).backward()  # the order within the one batch makes no difference
    for new, old in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(new, old - 0.3 * old.grad, atol=1e-6)


def test_every_epoch_is_another_order_of_the_same_examples_and_leaves_an_incomplete_batch_out():
    batches = T._batches(10, 4, seed=0)
    first, second = ([next(batches).tolist() for _ in range(2)] for _ in range(2))
    for epoch in (first, second):
        assert len({i for batch in epoch for i in batch}) == 8
    assert first != second
    again = T._batches(10, 4, seed=0)
    assert [next(again).tolist() for _ in range(2)] == first
    assert next(T._batches(10, 4, seed=1)).tolist() != first[0]


def test_the_cosine_schedule_begins_at_lr_and_ends_near_zero(monkeypatch):
    seen = []
    original = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda s, *a: (seen.append(s.param_groups[0]["lr"]), original(s, *a)))
    for _ in T.updates(small(), *problem(), steps=10, lr=0.2, seed=0, batch_size=10, schedule="cosine"):
        pass
    assert seen == pytest.approx([0.1 * (1 + math.cos(math.pi * t / 10)) for t in range(10)])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_slow_parameters_take_a_tenth_of_the_step(optimizer, schedule):
    """Of the same steps otherwise: three of them, so that the schedule has come to more than its first rate."""
    moved = []
    for slow in (False, True):
        model = small("none")
        start = [p.detach().clone() for p in model.parameters()]
        chosen = [model.fc1.weight, model.out.bias] if slow else []
        more = dict(steps=3, lr=1e-4, seed=0, batch_size=50, optimizer=optimizer, schedule=schedule, slow=chosen)
        for _ in T.updates(model, *problem(), **more):
            pass
        moved.append({n: p.detach() - s for (n, p), s in zip(model.named_parameters(), start, strict=True)})
    for name, fast in moved[0].items():
        share = 0.1 if name in ("fc1.weight", "out.bias") else 1.0
        assert torch.allclose(moved[1][name], share * fast, rtol=0.05, atol=1e-7), name


def test_a_run_that_diverges_ends_there():
    model = small("none")
    losses = [loss for _, loss in T.updates(model, *problem(), steps=300, lr=1e30, seed=0, batch_size=10)]
    assert len(losses) < 300 and not math.isfinite(losses[-1]) and all(map(math.isfinite, losses[:-1]))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"optimizer": "lion"}, "optimizer must be sgd or adam, got 'lion'"),
        ({"schedule": "linear"}, "schedule must be constant or cosine, got 'linear'"),
        ({"batch_size": 64}, "batch_size must be from 1 to the 50 training images, got 64"),
    ],
)
def test_bad_training_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        next(T.updates(small(), *problem(), **{"steps": 1, "lr": 0.1, "seed": 0, "batch_size": 10} | settings))


# --- augmentation ----------------------------------------------------------------------------------------------------


def variants(image, pad):
    """Every shift of one image (H, W), then those of its mirror image."""
    size = len(image)
    for mirrored in (image, image[:, ::-1]):
        for down in range(-pad, pad + 1):
            for right in range(-pad, pad + 1):
                moved = np.full_like(image, image[0, 0])
                for i in range(max(0, down), min(size, size + down)):
                    for j in range(max(0, right), min(size, size + right)):
                        moved[i, j] = mirrored[i - down, j - right]
                yield moved


@pytest.mark.parametrize(("half", "pad"), [(True, 1), (False, 2)])
def test_an_image_is_shifted_and_flipped_in_every_way_alike(half, pad):
    image = T.split("train", 6, half)[0][5:]  # a boot: its pixels at the edges are background
    expected = [v.tobytes() for v in variants(image[0, 0].numpy(), pad)]
    kinds = len(set(expected))
    assert kinds == 2 * (2 * pad + 1) ** 2 and float(image[0, 0, 0, 0]) == T.BACKGROUND
    made = T.shift_and_flip(image.expand(200 * kinds, -1, -1, -1), np.random.default_rng(0))
    assert made.shape == (200 * kinds, 1, *image.shape[2:]) and made.dtype == torch.float32
    counts = dict.fromkeys(expected, 0)
    for one in made.numpy():
        counts[one.tobytes()] += 1  # a KeyError: not a shifted and flipped image
    assert 130 < min(counts.values()) and max(counts.values()) < 270  # five standard deviations


def test_what_is_moved_in_is_background_and_channels_move_together():
    x = torch.ones(400, 3, 14, 14)
    x[:, 1:] = torch.arange(14.0) + 20
    made = T.shift_and_flip(x, np.random.default_rng(1))
    assert set(made[:, 0].unique().tolist()) == {1.0, T.BACKGROUND} and (x[:, 0] == 1).all()
    assert torch.equal(made[:, 1], made[:, 2]) and torch.equal(made[:, 0] == 1, made[:, 1] > 0)
    assert (made[:, 0] == 1).flatten(1).sum(1).min() == 13 * 13


class Seen(torch.nn.Linear):
    """A network that keeps what it is shown."""

    def __init__(self):
        super().__init__(196, 10)
        self.images = []

    def forward(self, x):
        self.images.append(x.clone())
        return super().forward(x.flatten(1))


def shown(seed=0, **settings):
    torch.manual_seed(0)
    model = Seen()
    x, y = T.split("train", 30, True)
    losses = [loss for _, loss in T.updates(model, x, y, steps=9, lr=0.1, seed=seed, batch_size=10, **settings)]
    return torch.cat(model.images), losses


def shifted(x):
    rng = np.random.default_rng([0, 2])
    return torch.cat([T.shift_and_flip(part, rng) for part in x.split(10)])


def test_batches_are_augmented_when_asked_alone_and_are_the_same_batches():
    x = T.split("train", 30, True)[0]
    batches = T._batches(30, 10, seed=0)
    order = torch.cat([next(batches) for _ in range(9)])
    plain, losses = shown()
    assert torch.equal(plain, x[order]) and losses == shown(augment=False)[1]
    augmented, others = shown(augment=True)
    assert torch.equal(augmented, shifted(x[order])) and losses != others
    assert torch.equal(augmented, shown(augment=True)[0])
    assert not torch.equal(augmented[:10], augmented[30:40])  # every epoch anew


def test_what_are_no_images_cannot_be_shifted():
    with pytest.raises(ValueError, match=r"x must be images .*, got the shape \(10, 6\)"):
        next(T.updates(small(), *problem(), steps=1, lr=0.1, seed=0, batch_size=10, augment=True))
    with pytest.raises(ValueError, match=r"got the shape \(2, 1, 14, 28\)"):
        T.shift_and_flip(torch.zeros(2, 1, 14, 28), np.random.default_rng(0))


# --- data and scores -------------------------------------------------------------------------------------------------


def test_the_splits_of_the_experiments_are_disjoint_and_standardized():
    x, y = T.split("train")
    assert x.shape == (10_000, 1, 28, 28) and x.dtype == torch.float32
    assert T.split("train", 500)[0].shape[0] == 500 and torch.equal(T.split("train", 500)[1], y[:500])
    assert T.split("train", 500, True)[0].shape == (500, 1, 14, 14)
    assert float(T.split("train", 500, True)[0][3, 0, 2, 5]) == pytest.approx(
        float(x[3, 0, 4:6, 10:12].mean()), abs=1e-6
    )
    assert abs(float(x.mean())) < 0.02 and abs(float(x.std()) - 1) < 0.02
    images = {split: {image.tobytes() for image in data.load(split)[0]} for split in ("train", "val")}
    assert T.split("val")[0].shape[0] == 2_000 and len(images["train"] & images["val"]) < 5  # some images occur twice


@needs_full_set
def test_more_validation_images_are_the_last_of_the_official_training_images():
    (x, y), (few, labels) = T.split("val", 10_000), T.split("val")
    assert torch.equal(T.split("val", 2_000)[0], few) and len(few) == 2_000
    images, official = data.load("train", subset=False)
    assert np.array_equal(y.numpy(), official[50_000:]) and torch.equal(x, torch.tensor(data.to_input(images[50_000:])))
    first, many = T.split("val", 5_000, True), T.split("train", 50_000, True)
    assert torch.equal(first[1], y[:5_000]) and len(first[0]) == 5_000
    place = {image.tobytes(): i for i, image in reversed(list(enumerate(first[0].numpy())))}
    found = [
        place[image.tobytes()] for image in torch.nn.functional.avg_pool2d(few, 2).numpy()
    ]  # the few are among them
    assert torch.equal(first[1][found], labels)
    assert np.array_equal(many[1].numpy(), official[:50_000])  # and no training set has one of them


def drawn(monkeypatch, count, seed, half=False):
    """Which split a training set is drawn from, and which of its images."""
    asked = []

    def numbers(name, count=None, half=False):
        asked.append((name, count, half))
        return torch.arange(count or 10_000).view(-1, 1), torch.arange(count or 10_000) + 7

    monkeypatch.setattr(T, "split", numbers)
    x, y = T.subset(count, seed, half)
    assert torch.equal(x.flatten() + 7, y) and len(y) == count == len(set(y.tolist()))
    return asked, x.flatten()


def test_the_training_set_of_a_seed(monkeypatch):
    asked, few = drawn(monkeypatch, 300, 4, True)
    assert asked == [("train", None, True)]  # the embedded images: no download
    assert drawn(monkeypatch, 9_999, 4)[0] == [("train", None, False)]
    asked, many = drawn(monkeypatch, 10_000, 4)
    assert asked == [("train", 50_000, False)] and many.max() > 49_000
    assert torch.equal(few, torch.from_numpy(np.random.default_rng([4, 15]).permutation(10_000)[:300]))
    assert torch.equal(few, drawn(monkeypatch, 1_000, 4)[1][:300])
    assert torch.equal(many, drawn(monkeypatch, 50_000, 4)[1][:10_000])
    assert not torch.equal(few, drawn(monkeypatch, 300, 5)[1])


def test_scores_of_known_logits():
    probability = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]], dtype=torch.float64)
    result = T.scores(probability.log(), torch.tensor([0, 1, 1, 1]))
    assert result.correct.tolist() == [True, False, True, True] and result.accuracy == 0.75
    assert result.loss == pytest.approx(-(math.log(0.9) + math.log(0.1) + 2 * math.log(0.6)) / 4)
    assert result.calibration_error == pytest.approx((abs(0.5 - 0.9) * 2 + abs(1 - 0.6) * 2) / 4)


def test_logits_that_are_no_numbers_are_wrong():
    result = T.scores(torch.tensor([[math.nan, 1.0], [0.0, 9.0]]), torch.tensor([0, 1]))
    assert result.loss == math.inf and result.correct.tolist() == [False, True]


def test_evaluation_leaves_model_and_modes_alone():
    model = small()
    model.bn1.eval()
    x, y = problem()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parts = T.evaluate(model, x, y)
    assert model.training and not model.bn1.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    assert np.array_equal(parts.correct, (model(x).argmax(1) == y).numpy())


# --- train and score --------------------------------------------------------------------------------------------------


def test_a_row_is_the_training_of_updates_and_the_scores_after_it():
    x, y = T.split("train", 300, half=True)
    val, test = (x[:50], y[:50]), (x[50:150], y[50:150])
    how = {"steps": 90, "lr": 0.1, "seed": 4, "batch_size": 20, "schedule": "cosine"}

    def model() -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(196, 10))

    trained, same = model(), model()
    row = T.train_and_score(trained, (x, y), val, test, **how)
    losses = [loss for _, loss in T.updates(same, x, y, **how)]
    assert torch.equal(trained[1].weight, same[1].weight)
    assert row["train_loss"] == pytest.approx(np.mean(losses[-78:])) and not row["diverged"]
    assert row["val_accuracy"] == T.evaluate(same, *val).accuracy
    assert (row["test_accuracy"], row["test_loss"]) == T.evaluate(same, *test)[1::-1]
    assert np.array_equal(row["correct"], T.evaluate(same, *test).correct)


@pytest.mark.parametrize("where", ["training", "test"])
def test_a_loss_that_is_not_finite_is_a_run_that_diverged(where):
    x, y = T.split("train", 100, half=True)
    broken = x.clone()
    broken[0] = math.inf
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(196, 10))
    images = (broken, y) if where == "training" else (x, y)
    tested = (broken, y) if where == "test" else (x, y)
    assert T.train_and_score(model, images, (x, y), tested, steps=5, lr=0.01, seed=0, batch_size=100)["diverged"]
