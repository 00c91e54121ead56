"""The catalogue of findings: what each code means, why it matters, and what mends it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "info"]


class Rule(NamedTuple):
    """One kind of finding; a finding may be less severe than its rule says, never more."""

    code: str
    severity: Severity
    title: str
    why: str
    mend: str
    link: str


_FORGOTTEN = "book/03_inference.html#a-forgotten-eval"
_RECALIBRATION = "book/03_inference.html#recalibration"
_MOMENTUM = "book/03_inference.html#what-momentum-means"
_BUFFERS = "book/03_inference.html#saving-them-buffers"
_LAYER = "book/05_layer.html#the-layer"
_DECAY = "book/12_scale_invariance.html#weight-decay-and-what-it-does-here"
_DROPOUT = "book/16_placement.html#dropout-in-front"
_FOLDING = "book/23_folding.html#a-tool-that-refuses"
_TOOLS = "book/23_folding.html#what-the-tools-do-today"
_SHARDS = "book/24_devices.html#a-batch-in-shards"
_OTHERS = "book/24_devices.html#what-others-do"
_MODES = "book/03_inference.html#training-and-evaluation-as-two-functions"

_INFINITE = "book/20_statistics.html#one-infinite-pixel-and-a-step-that-is-skipped"
_SORTED = "book/19_batch.html#batches-that-are-sorted"
_HELPS = "book/19_batch.html#what-helps"
_TWO = "book/20_statistics.html#two-kinds-of-data-one-layer"
_WRONG = "book/20_statistics.html#find-your-case"
_FROZEN = "book/20_statistics.html#frozen-or-half-frozen"
_AVERAGED = "book/20_statistics.html#averaged-weights-statistics-of-others"
_STANDS_STILL = "book/21_numerics.html#running-averages-that-stand-still"

_ALL: tuple[Rule, ...] = (
    Rule(
        "BN101",
        "error",
        "statistics that were never updated",
        "Evaluation subtracts a running mean of 0 and divides by a running standard deviation of 1, so the layer does"
        " not normalize at all. That happens to a model that was never trained, and to one whose buffers were lost: a"
        " checkpoint of `parameters()` alone, or a load with strict=False that met other names.",
        "Load the buffers too (`state_dict` has them), or recompute them: torch.optim.swa_utils.update_bn(batches,"
        " model).",
        _BUFFERS,
    ),
    Rule(
        "BN102",
        "error",
        "statistics that are no numbers",
        "A single infinite or missing value in one batch makes a running mean infinite or NaN, and a moving average"
        " never forgets it: gradient scaling skips the update of the weights, but not that of the statistics."
        " Evaluation then returns NaN whatever comes in.",
        "reset_running_stats() of the layer, then update_bn over clean batches; look for the batch that did it.",
        _INFINITE,
    ),
    Rule(
        "BN103",
        "warning",
        "statistics that do not move in training",
        "A whole batch in training mode left the running statistics as they were, though the layer is not frozen: its"
        " momentum is 0, or its buffers have too few digits to take up a small step.",
        "Set momentum (0.1 is PyTorch's value); Keras's and TensorFlow's `momentum` is 1 minus PyTorch's.",
        _MOMENTUM,
    ),
    Rule(
        "BN104",
        "warning",
        "an unusual momentum",
        "With momentum=None all batches since the beginning weigh the same, also those of the first, unlike weights."
        " With 0.5 or more, evaluation hangs on the last few batches; 0.9 or 0.99 is most often the value of a"
        " framework that counts from the other end.",
        "If it is not meant: momentum=0.1, or the converted value (bnbook.interop.convert_momentum).",
        _MOMENTUM,
    ),
    Rule(
        "BN105",
        "warning",
        "running statistics far from those of these batches",
        "In evaluation the layer subtracts and divides by numbers that do not belong to what comes in. Either the"
        " statistics are stale (momentum too small, too few steps, copied to other weights, data prepared differently)"
        " or the batches are of another kind than the training data: from the model alone the two look the same.",
        "Prepare these batches as in training. If they are right: update_bn over some hundred of them, then compare"
        " the accuracy.",
        _WRONG,
    ),
    Rule(
        "BN106",
        "warning",
        "outputs in training and in evaluation far apart",
        "The same examples get other answers once running statistics replace those of the batch, by more than the size"
        " of the batch explains.",
        "See BN105 for the layer where it begins; batches of few values (BN201) widen it.",
        _FORGOTTEN,
    ),
    Rule(
        "BN107",
        "error",
        "an output in evaluation that depends on the other examples",
        "An answer must not change with the company that a request happens to be served in. Layers with"
        " track_running_stats=False, a train() that ignores eval(), or statistics computed by hand do that.",
        "model.eval(), and layers with track_running_stats=True whose statistics are then computed by update_bn.",
        _FORGOTTEN,
    ),
    Rule(
        "BN108",
        "warning",
        "statistics in half precision",
        "A moving average in float16 or bfloat16 stops moving where a step is less than half of the last digit: with"
        " bfloat16 and momentum 0.001 it stalls at a third of the way to a mean of 3.",
        "Keep the layer in float32 (`layer.float()`); autocast does so by itself.",
        _STANDS_STILL,
    ),
    Rule(
        "BN109",
        "error",
        "outputs that are no numbers",
        "In evaluation outputs are NaN or infinite although all running statistics are finite, so weights or inputs are"
        " not. One batch of them in training mode would make the statistics so, too (BN102).",
        "Look for NaN in the inputs, then in the parameters. What would have been compared was not.",
        _RECALIBRATION,
    ),
    Rule(
        "BN201",
        "error",
        "few values per channel",
        "Mean and variance of m values have relative errors of about 1/√m and √(2/m); two values become ±1 whatever"
        " they were, and with one PyTorch refuses: 'Expected more than 1 value per channel when training'.",
        "Larger batches (drop_last=True where only the last one is small), GroupNorm, or statistics over several"
        " devices; in fine-tuning, frozen statistics.",
        _HELPS,
    ),
    Rule(
        "BN202",
        "info",
        "a bias that is subtracted again",
        "The layer that follows subtracts the mean over the batch, and with it whatever is the same for all examples:"
        " moving the bias was seen to change nothing in training. It takes memory and a step of the optimizer.",
        "bias=False in the layer before; β does its work.",
        "book/02_forward.html#two-things-it-cannot-see",
    ),
    Rule(
        "BN203",
        "warning",
        "one layer called more than once in a forward pass",
        "All its calls share one pair of running statistics, which become a mixture that fits none of them; in training"
        " each call has statistics of its own, so the two modes differ.",
        "One layer of batch normalization for each place; the weights around it may be shared.",
        _TWO,
    ),
    Rule(
        "BN204",
        "warning",
        "a layer that is not called",
        "It is in the model, in its state and in its count of parameters, and takes no part: a misspelled attribute, or"
        " a branch that these batches do not take.",
        "Call it, or take it out.",
        _LAYER,
    ),
    Rule(
        "BN205",
        "warning",
        "dropout or other noise in front",
        "In training dropout (or a path that is dropped) makes the variance of what arrives larger than it is in"
        " evaluation; the running variance keeps the larger one, so evaluation divides by too much.",
        "Dropout after the last layer of batch normalization; or update_bn with the dropout off.",
        _DROPOUT,
    ),
    Rule(
        "BN206",
        "error",
        "an error in training alone",
        "In evaluation the model answers; with its layers of batch normalization in training mode it raises an error."
        " PyTorch refuses an ε of 0 there, its synchronized layer refuses a CPU, and a layer of one's own may have a"
        " mistake in the branch that evaluation does not take.",
        "Call model.train()(batch) yourself: the traceback names the layer.",
        _MODES,
    ),
    Rule(
        "BN301",
        "warning",
        "frozen statistics, learning γ and β",
        "The statistics stand still while γ and β go on learning: often the wish was to freeze the whole layer.",
        "To freeze all of it: requires_grad_(False) for its weight and bias, beside eval().",
        _FROZEN,
    ),
    Rule(
        "BN302",
        "warning",
        "frozen γ and β, moving statistics",
        "requires_grad=False, torch.no_grad() and an optimizer without them stop γ and β, not the running statistics:"
        " in training mode they follow the new data, and a network that was meant to stay as it was changes.",
        "Call eval() of these layers after each train() of the model, or let γ and β learn.",
        _FROZEN,
    ),
    Rule(
        "BN303",
        "warning",
        "channels with a dead γ",
        "Where γ is 0 the layer hands on β alone: the channel says the same of every example, and no gradient reaches"
        " what comes before it.",
        "None is needed for a few (weight decay or sparse training made them); take such channels out to save time.",
        "book/02_forward.html#the-definition",
    ),
    Rule(
        "BN304",
        "info",
        "γ and β under weight decay",
        "On a weight that normalization follows, decay sets the effective learning rate; on γ and β themselves it pulls"
        " the outputs of the layer towards 0. Most recipes for large training leave them out.",
        "A group of parameters with weight_decay=0 for γ, β and biases.",
        _DECAY,
    ),
    Rule(
        "BN305",
        "warning",
        "γ and β of a new layer among learned ones",
        "After a step of the optimizer hardly a γ is exactly 1 or a β exactly 0. Here all of a layer are, and those of"
        " other layers are not: its name was absent from a file that was loaded with strict=False, or no optimizer has"
        " it. Its channels then come out at another size and place than what follows has learned to expect.",
        "Read what load_state_dict() returns, missing_keys and unexpected_keys; look whether the optimizer has the"
        " layer's parameters. In a layer that is new on purpose, as of a new head, nothing is wrong.",
        _BUFFERS,
    ),
    Rule(
        "BN401",
        "warning",
        "batches that are not alike",
        "The means of these batches differ by far more than batches drawn at random would: sorted by class, by source"
        " or by time, or one of them was prepared in another way. In training the layer then removes what tells the"
        " batches apart; in evaluation their average fits none of them.",
        "Shuffle before batching; of a batch that stands apart, look at its examples. Where the batches are more than"
        " 0.3 standard deviations apart, BN105 and BN106 cannot be judged and are not.",
        _SORTED,
    ),
    Rule(
        "BN402",
        "warning",
        "statistics of one device under data parallelism",
        "Each process normalizes with its own part of the batch, and the statistics that are saved are those of the"
        " first.",
        "torch.nn.SyncBatchNorm.convert_sync_batchnorm(model) before wrapping, where the part of a device is small; on"
        " CPUs bnbook.kernels.sync_batch_norm.convert(model).",
        _SHARDS,
    ),
    Rule(
        "BN403",
        "warning",
        "SyncBatchNorm on a CPU",
        "PyTorch's layer synchronizes on accelerators only. On a CPU it is harmless as long as no process group is"
        " initialized, as where a model from several GPUs is checked, evaluated or exported: there it is an ordinary"
        " layer. With a process group it raises in training.",
        "None where the model is trained on GPUs and only looked at here (ignore BN403). To train on CPUs:"
        " bnbook.kernels.sync_batch_norm.convert(model) in several processes, BatchNorm1d, 2d or 3d in one.",
        _OTHERS,
    ),
    Rule(
        "BN404",
        "warning",
        "averaged weights with the statistics of others",
        "torch.optim.swa_utils.AveragedModel averages parameters and copies buffers: the statistics belong to the last"
        " weights, not to the average.",
        "update_bn(batches, averaged_model), or AveragedModel(..., use_buffers=True) for a fast average.",
        _AVERAGED,
    ),
    Rule(
        "BN501",
        "info",
        "pairs that can be folded",
        "In evaluation the layer multiplies by a constant and adds one: it was put into the weights before it, and the"
        " outputs stayed the same.",
        "For deployment: folded, report = bnbook.interop.fold(model.eval(), batch); or let the exporter do it.",
        _FOLDING,
    ),
    Rule(
        "BN502",
        "info",
        "a pair that looks foldable and is not",
        "The layer follows a convolution or a linear layer directly, and folding it would change the outputs: the"
        " weights are used more than once or are computed from others, or their output is used elsewhere, or the"
        " channels are on another axis, or the layer does more than normalize.",
        "Leave it as it is; check what a tool that folds by itself has done with it.",
        _TOOLS,
    ),
    Rule(
        "BN503",
        "info",
        "a transposed convolution that tools fold wrongly",
        "It can be folded, and was, by hand; fuse_conv_bn_eval scales another axis unless it is told that the"
        " convolution is transposed, and does not know groups.",
        "bnbook.interop.fold(model.eval(), batch), which folds along axis 1 of the weights, group by group.",
        _FOLDING,
    ),
)

RULES: dict[str, Rule] = {rule.code: rule for rule in _ALL}
