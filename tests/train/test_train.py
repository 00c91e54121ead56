"""`bnbook.train`: the loop, its settings, its preparation for a GPU, and what it shows."""

from __future__ import annotations

import functools
import io
import json
import math
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from bnbook import data
from bnbook.models.torch_cnn import cnn
from bnbook.models.torch_mlp import mlp
from bnbook.train import MODELS, Settings, batches, describe, evaluate, loop, progress, train, update
from tests.train.training import SMALL, equal, few_images_are_scored, load_anew, quiet, run, tensors  # noqa: F401

needs_full_set = pytest.mark.skipif(
    not os.environ.get("BNBOOK_DATA") and not data.SYSTEM_FOLDER.is_dir(),
    reason="the full Fashion-MNIST is not here: neither BNBOOK_DATA nor Debian's package dataset-fashion-mnist",
)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


# --- the loop ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def one_thread():
    """The order of sums is that of `SMALL`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.long
def test_the_loop_is_plain_pytorch(one_thread):
    """Against a loop as a tutorial writes it, with torch's own schedule, and an accuracy counted by hand."""
    wanted = replace(SMALL, model="cnn", lr=0.05, momentum=0.8, weight_decay=1e-3, seed=3, train_images=200)
    result = quiet(wanted)

    torch.manual_seed(3)
    model = cnn("batch")
    sgd = torch.optim.SGD(model.parameters(), 0.05, momentum=0.8, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=12)
    images, labels = data.load("train")
    x, y = torch.from_numpy(data.to_input(images[:200])), torch.from_numpy(labels[:200])
    for epoch in range(2):
        losses = []
        for batch in batches.order(200, 32, 3, epoch):
            loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            schedule.step()
            losses.append(loss.item())
        assert result.history[epoch]["train_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    for name, expected in model.state_dict().items():
        assert torch.allclose(tensors(result)[name], expected, rtol=1e-4, atol=1e-4), name
    assert result.steps == 12 and [row["step"] for row in result.history] == [6, 12]

    images, labels = data.load("test")
    with torch.no_grad():
        predicted = model.eval()(torch.from_numpy(data.to_input(images))).argmax(1).numpy()
    assert result.final["test_accuracy"] == pytest.approx((predicted == labels).mean(), abs=1e-3)
    assert not result.model.training


def test_the_recipe_of_the_book_learns():
    result = quiet(Settings(model="mlp", epochs=2, threads=1, device="cpu"))
    assert result.final["test_accuracy"] > 0.8
    assert result.history[-1]["train_loss"] < result.history[0]["train_loss"]


def test_every_epoch_is_another_permutation_and_leaves_an_incomplete_batch_out():
    first, second = batches.order(100, 32, 0, 0), batches.order(100, 32, 0, 1)
    for order in (first, second):
        assert order.shape == (3, 32) and len(set(order.flatten().tolist())) == 96
    assert not torch.equal(first, second)
    assert torch.equal(first, batches.order(100, 32, 0, 0)) and not torch.equal(first, batches.order(100, 32, 1, 0))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataloader_brings_the_same_batches(workers):
    """So two rungs of the ladder differ in nothing but how the images arrive; dropout draws the same numbers."""
    wanted = replace(SMALL, model="mlp_dropout")
    assert equal(tensors(quiet(wanted)), tensors(quiet(replace(wanted, loader="dataloader", workers=workers))))


def test_the_caller_keeps_random_numbers_and_threads():
    torch.manual_seed(7)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    wanted = replace(SMALL, threads=threads + 1, train_images=64, epochs=1)
    first = quiet(wanted)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    torch.manual_seed(8)
    assert equal(tensors(first), tensors(quiet(wanted)))  # nor do they matter
    assert not equal(tensors(first), tensors(quiet(replace(wanted, seed=1))))


def test_evaluations_within_an_epoch():
    """Each row counts the images since the row before; the weights do not notice."""
    once, often = quiet(), quiet(replace(SMALL, evaluations=3))
    assert [row["step"] for row in often.history] == [3, 7, 10, 13, 17, 20]
    assert [row["epoch"] for row in often.history] == pytest.approx([0.3, 0.7, 1, 1.3, 1.7, 2])
    assert equal(tensors(once), tensors(often))
    parts = [often.history[i]["train_accuracy"] * n for i, n in enumerate((3, 4, 3))]
    assert sum(parts) / 10 == pytest.approx(once.history[0]["train_accuracy"])
    assert often.history[2]["accuracy"] == once.history[0]["accuracy"]
    seconds = [row["seconds"] for row in often.history]
    assert seconds == sorted(seconds) and 0 < seconds[0] and seconds[-1] <= often.seconds["training"]


def test_evaluation_changes_nothing():
    torch.manual_seed(0)
    model = mlp("batch", dropout=0.5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = batches.load("val", SMALL)
    loss, accuracy = evaluate(model, images, labels, SMALL)
    assert model.training and equal(model.state_dict(), before)
    logits = model.eval()(images)
    assert accuracy == (logits.argmax(1) == labels).double().mean().item()
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


def test_evaluation_does_without_float64_on_the_device(monkeypatch):
    """MPS has none."""
    monkeypatch.setattr(torch.Tensor, "double", lambda self: pytest.fail("float64 on the device"))
    logits = torch.eye(3)[[0, 1, 2, 2, 1, 0, 0]]
    labels = torch.tensor([0, 1, 2, 1, 1, 2, 0])
    assert evaluate(torch.nn.Identity(), logits, labels, SMALL)[1] == 5 / 7


def test_the_bar_of_processes_that_go_on_shows_the_mean_of_their_images():
    """The first one goes on from the sums of all."""
    run = loop.Run(SMALL.resolved(), loop.Processes("cpu"), progress.Progress(SMALL, False))
    run.restore(run.state() | {"images": 64, "sums": [torch.tensor(128.0), torch.tensor(32)]})
    run.processes.size = 2
    assert run.running() == (2.0, 0.5)
    run.images += 32  # of which this process has seen half
    run.update.loss_sum += 16 * 12.0
    assert run.running() == (4.0, 0.4)


def test_a_run_that_diverges_ends_with_its_epoch():
    result = quiet(replace(SMALL, norm="none", lr=1e10, epochs=4))
    assert result.diverged and not math.isfinite(result.history[-1]["train_loss"])
    assert result.epochs == 1 and result.steps == 10 and result.final["test_accuracy"] <= 0.2
    row = json.loads(json.dumps(describe(result, "")))  # without a number that JSON has no word for
    assert row["diverged"] and row["history"][-1]["train_loss"] is None


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains(name):
    result = quiet(replace(SMALL, model=name, optimizer="adam", lr=1e-3, epochs=1))
    assert math.isfinite(result.history[0]["loss"])


def test_precision_and_memory_format_are_what_they_say(monkeypatch):
    seen = []

    def watched(norm):
        model = cnn(norm)
        model.conv.register_forward_hook(lambda layer, given, output: seen.append((model.training, output)))
        return model

    monkeypatch.setitem(MODELS, "cnn", watched)
    wanted = replace(SMALL, model="cnn", epochs=1, train_images=64)
    plain = quiet(wanted)
    assert all(o.dtype == torch.float32 and o.is_contiguous() for _, o in seen)
    seen.clear()
    other = quiet(replace(wanted, precision="bfloat16", memory_format="channels_last"))
    assert {training for training, _ in seen} == {True, False}
    assert all(o.dtype == torch.bfloat16 and o.is_contiguous(memory_format=torch.channels_last) for _, o in seen)
    assert all(value.dtype != torch.bfloat16 for value in tensors(other).values())
    difference = max(
        (a - b).abs().max().item() for a, b in zip(tensors(plain).values(), tensors(other).values(), strict=True)
    )
    assert 0 < difference < 0.2


def test_subset_and_full_are_scored_where_they_should_be():
    resolved = Settings(data="subset", device="cpu").resolved()
    assert (resolved.train_images, resolved.evaluate) == (10_000, "val")
    resolved = Settings(data="full", device="cpu").resolved()
    assert (resolved.train_images, resolved.evaluate) == (60_000, "test")
    resolved = Settings(data="full", evaluate="val", device="cpu").resolved()
    assert (resolved.train_images, resolved.evaluate) == (50_000, "val")


@pytest.mark.long
@needs_full_set
def test_no_image_validates_and_trains(monkeypatch):
    monkeypatch.setattr(data, "load", load_anew)
    resolved = Settings(data="full", evaluate="val", device="cpu").resolved()
    trained_on, _ = batches.load("train", resolved)
    scored_on, labels = batches.load("val", resolved)
    assert len(trained_on) == 50_000 and len(scored_on) == len(labels) == 10_000
    official = torch.from_numpy(data.to_input(load_anew("train", False)[0]))
    assert torch.equal(torch.cat([trained_on, scored_on]), official)


@pytest.mark.long
@needs_full_set
def test_a_split_seed_draws_which_images_validate(monkeypatch):
    monkeypatch.setattr(data, "load", load_anew)
    wanted = Settings(data="full", evaluate="val", split_seed=0, seed=1, device="cpu").resolved()
    trained_on, _ = batches.load("train", wanted)
    scored_on, scores = batches.load("val", wanted)
    assert len(trained_on) == 50_000 and len(scored_on) == 10_000
    official = torch.from_numpy(data.to_input(load_anew("train", False)[0]))
    drawn = torch.cat([trained_on, scored_on])
    assert torch.allclose(drawn.sum(0), official.sum(0), rtol=1e-3) and not torch.equal(drawn, official)  # all of them
    assert torch.bincount(scores, minlength=10).min() > 900
    assert torch.equal(batches.load("val", replace(wanted, seed=2))[0], scored_on)
    assert not torch.equal(batches.load("val", replace(wanted, split_seed=1))[0], scored_on)
    few = replace(wanted, train_images=100)
    assert torch.equal(batches.load("train", few)[0], trained_on[:100]) and len(batches.load("val", few)[0]) == 10_000
    assert torch.equal(batches.load("test", wanted)[0], batches.load("test", replace(wanted, split_seed=None))[0])


# --- preparation: compiling, warming up, recording --------------------------------------------------------------------


def an_update(wanted: Settings, **rate) -> tuple[update.Update, list[torch.Tensor]]:
    """An update and the batches of its first epoch."""
    one = loop.Processes("cpu")
    torch.manual_seed(wanted.seed)
    model = MODELS[wanted.model](wanted.norm).train()
    loader = batches.OnDevice(*batches.load("train", wanted), wanted, one)
    made = update.Update(model, update.optimizer(model, wanted), loader.fetch, wanted, torch.device("cpu"))
    return made, list(loader.epoch(0))


def all_of(made: update.Update) -> list[torch.Tensor]:
    """Everything that an update changes."""
    state = [value for values in made.optimizer.state.values() for value in values.values()]
    return [*made.model.state_dict().values(), *state, made.loss_sum, made.correct, torch.get_rng_state()]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("updates", [0, 3])
def test_preparation_leaves_no_trace(optimizer, updates):
    """At the beginning and in the middle of a run: weights, running statistics, optimizer, sums, random numbers."""
    wanted = replace(SMALL, model="mlp_dropout", optimizer=optimizer, lr=0.01)
    torch.manual_seed(0)
    plain, order = an_update(wanted)
    prepared, _ = an_update(wanted)
    for made in (plain, prepared):
        torch.manual_seed(5)
        for batch in order[:updates]:
            made(batch, 0.01)
        before = [value.clone() for value in all_of(made)]
        if made is prepared:
            made.prepare(order[0])
            after = all_of(made)
            if updates == 0:  # the optimizer has made its state, and it is what it begins with
                assert all(not value.any() for values in made.optimizer.state.values() for value in values.values())
            else:
                assert len(before) == len(after)
                assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
        for batch in order[updates:]:
            made(batch, 0.01)
    assert all(torch.equal(a, b) for a, b in zip(all_of(plain), all_of(prepared), strict=True))


@pytest.mark.long
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_update_is_the_same_update(monkeypatch, precision):
    """Traced by TorchDynamo, executed operation by operation: the default backend takes a minute to compile its C++."""
    traced = functools.partial(torch.compile, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr(torch, "compile", lambda function, mode: traced(function))
    wanted = replace(SMALL, epochs=1, precision=precision)
    plain, compiled = quiet(wanted), quiet(replace(wanted, compile="default"))
    assert compiled.seconds["preparation"] > 0 and compiled.steps == plain.steps
    for name, expected in tensors(plain).items():
        assert torch.allclose(tensors(compiled)[name], expected, atol=1e-5 if precision == "float32" else 2e-2), name


@pytest.fixture
def recorded_updates(monkeypatch):
    """CUDA graphs by repetition on the CPU: a rehearsal of the wiring, not of CUDA."""

    class Graph:
        def replay(self):
            Graph.run(Graph.batch)

    class Stream:
        def wait_stream(self, other):
            pass

    @contextmanager
    def stream(chosen):
        yield

    @contextmanager
    def graph(made, stream):
        original = update.Update._run

        def once(self, batch):
            Graph.run, Graph.batch = functools.partial(original, self), batch  # recorded, not executed

        monkeypatch.setattr(update.Update, "_run", once)
        yield
        monkeypatch.setattr(update.Update, "_run", original)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)


def test_a_recorded_update_reads_its_batch_and_rate_anew(recorded_updates):
    wanted = replace(SMALL, model="mlp_dropout")
    plain, order = an_update(wanted)
    recorded, _ = an_update(replace(wanted, capture="graph"))
    recorded.prepare(order[0])
    memory = [recorded.optimizer.param_groups[0]["lr"], recorded._batch, *all_of(recorded)[:-1]]
    places = [tensor.data_ptr() for tensor in memory]
    for made in (plain, recorded):
        torch.manual_seed(5)
        for step, batch in enumerate(order):
            made(batch, 0.1 / (step + 1))
    assert all(torch.equal(a, b) for a, b in zip(all_of(plain), all_of(recorded), strict=True))
    # A graph knows addresses, not names: the rate is a tensor, and nothing has moved since it was recorded.
    memory = [recorded.optimizer.param_groups[0]["lr"], recorded._batch, *all_of(recorded)[:-1]]
    assert [tensor.data_ptr() for tensor in memory] == places and memory[0].item() == pytest.approx(0.1 / len(order))


@needs_cuda
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_on_a_card_a_graph_makes_the_same_updates(norm, optimizer):
    wanted = Settings(norm=norm, optimizer=optimizer, lr=1e-3, train_images=1280, epochs=1, device="cuda")
    plain, recorded = quiet(wanted), quiet(replace(wanted, capture="graph"))
    assert recorded.seconds["preparation"] > 0
    assert recorded.history[0]["train_loss"] == pytest.approx(plain.history[0]["train_loss"], rel=1e-3)
    for name, expected in tensors(plain).items():
        assert torch.allclose(tensors(recorded)[name].double(), expected.double(), atol=1e-3), name


@needs_cuda
@pytest.mark.parametrize(
    "changes",
    [
        {"capture": "graph", "precision": "bfloat16", "memory_format": "channels_last"},
        {"capture": "graph", "compile": "default"},
        {"compile": "reduce-overhead"},
        {"loader": "dataloader"},
    ],
)
def test_on_a_card_every_way_learns(changes, tmp_path):
    wanted = Settings(train_images=6400, epochs=2, device="cuda", **changes)
    result = quiet(wanted, checkpoint=tmp_path, checkpoint_every=0.5)
    assert result.final["test_accuracy"] > 0.75 and result.memory["bytes"] > 0
    assert quiet(wanted, checkpoint=tmp_path, resume=True).final == pytest.approx(result.final, abs=1e-3)


def test_an_update_that_cannot_be_compiled_says_so(monkeypatch, capsys):
    def broken(function, mode):
        def fail(*arguments):
            raise OSError("no compiler\nwas found")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    status, _, error = run("--model mlp --train-images 64 --compile", capsys)
    assert status == 1 and "could not be prepared with compile 'default'" in error and "no compiler" in error


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error, message",
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "CUDA out of memory. Take a smaller --batch-size"),
        (RuntimeError("no kernel image"), "(RuntimeError: no kernel image); another device may do it"),
    ],
)
def test_a_first_update_that_fails_on_a_card_says_what_to_do(error, message, monkeypatch, capsys):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(update.Update, "needs_preparation", True)
    monkeypatch.setattr(update.Update, "_run", fail)
    status, _, said = run("--model mlp --train-images 64", capsys)
    assert status == 1 and message in said and said.count("\n") == 1 and "both 'none'" not in said


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model": "resnet"}, r"model must be one of 'cnn', 'mlp', .*, got 'resnet'"),
        ({"norm": "batchnorm"}, r"norm must be one of .*'?none'?.*, got 'batchnorm'"),
        ({"data": "mnist"}, r"data must be one of 'subset', 'full', got 'mnist'"),
        ({"evaluate": "train"}, r"evaluate must be one of 'val', 'test', got 'train'"),
        ({"train_images": 20_000}, r"train_images must be at most 10000 of data 'subset', got 20000"),
        (
            {"data": "full", "evaluate": "val", "train_images": 60_000},
            r"at most 50000; the other 10,000 validate",
        ),
        ({"split_seed": 1}, r"split_seed needs data 'full' and evaluate 'val'"),
        ({"data": "full", "split_seed": 1}, r"split_seed needs data 'full' and evaluate 'val'"),
        ({"data": "full", "evaluate": "val", "split_seed": -1}, r"split_seed must be an integer of at least 0, got -1"),
        ({"epochs": 0}, r"epochs must be an integer of at least 1, got 0"),
        ({"batch_size": 2.5}, r"batch_size must be an integer of at least 1, got 2.5"),
        ({"batch_size": 400}, r"batch_size must be from 1 to the 320 training images, got 400"),
        ({"batch_size": 1}, r"batch_size must be at least 2 with norm 'batch', because one image has no variance"),
        ({"lr": 0}, r"lr must be positive and finite, got 0"),
        ({"lr": math.nan}, r"lr must be positive and finite, got nan"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        ({"weight_decay": -1.0}, r"weight_decay at least 0, got .* -1.0"),
        ({"seed": -1}, r"seed must be an integer of at least 0, got -1"),
        ({"precision": "float16"}, r"precision must be one of 'float32', 'bfloat16', got 'float16'"),
        ({"capture": "graph"}, r"capture 'graph' needs device 'cuda', this is 'cpu': take capture 'none'"),
        ({"capture": "graph", "loader": "dataloader"}, r"capture 'graph' needs loader 'device'"),
        ({"capture": "graph", "compile": "reduce-overhead"}, r"makes CUDA graphs of its own"),
    ],
)
def test_settings_that_are_not_possible_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes).resolved()


def test_a_batch_of_one_trains_without_batch_normalization():
    assert quiet(replace(SMALL, norm="none", batch_size=1, train_images=3, epochs=1)).steps == 3


@pytest.mark.parametrize(
    "processes, changes, message",
    [
        (3, {}, "batch_size must be a multiple of the 3 processes, got 32"),
        (4, {"batch_size": 4}, "batch_size must be at least 8 with norm 'batch'"),
        (2, {"compile": "default"}, "capture and compile work in one process"),
    ],
)
def test_settings_that_are_not_possible_in_several_processes(processes, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes).resolved(processes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_here():
    assert Settings(device="auto").resolved().device in ("cpu", "mps")
    with pytest.raises(ValueError, match=r"device 'cuda': PyTorch .* finds none here; take .*'cpu', or 'auto'"):
        replace(SMALL, device="cuda").resolved()


def test_a_look_at_the_norms_draws_no_random_numbers():
    state = torch.get_rng_state()
    replace(SMALL, model="residual_mlp").resolved()
    assert torch.equal(state, torch.get_rng_state())


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_without_tqdm_or_a_terminal_there_is_a_line_an_evaluation(capsys):
    train(SMALL)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all(word in lines[0] for word in ("loss", "accuracy", "val accuracy", "images/s"))


def test_a_terminal_has_a_bar(capsys, monkeypatch):
    pytest.importorskip("tqdm")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(progress, "SECONDS", 0)
    train(SMALL)
    shown = sys.stderr.getvalue()
    assert "epoch 2/2: 100%" in shown and "image/s" in shown and "loss" in shown and "val accuracy" in shown
    assert capsys.readouterr().out == ""


@pytest.mark.long
def test_it_needs_no_tqdm():
    code = (
        "import sys; sys.modules['tqdm'] = None\n"
        "from bnbook.train import Settings, train\n"
        "train(Settings(model='mlp', train_images=64, epochs=1))\n"
        "print({'scipy', 'matplotlib', 'pooch', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert "epoch 1/1" in done.stdout and done.stdout.endswith("set()\n")
