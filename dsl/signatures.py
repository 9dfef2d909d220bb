"""What the sections of a program may say: settings, and the built-in optimizers, sources, metrics and so on.

Names, arguments, order and defaults are PyTorch's, torchvision's and torchmetrics'. A new one is a line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tdsl.dsl.kinds import (
    BETAS,
    COUNT,
    DELIMITER,
    FLAG,
    INTEGER,
    NATURAL,
    NONNEGATIVE,
    POSITIVE,
    RANGE,
    REAL,
    SIZE,
    TEXT,
    TEXTS,
    UNIT,
    Arg,
    Kind,
    Signature,
    call,
    choice,
    either,
    integer,
    many,
    number,
    optional,
    signature,
    word,
)

MONITOR = Arg("monitor", TEXT, "val/loss")

# Optimizers ---------------------------------------------------------------------------------------------------------

LR = Arg("lr", NONNEGATIVE, 1e-3)
EPS = Arg("eps", NONNEGATIVE, 1e-8)
DECAY = Arg("weight_decay", NONNEGATIVE, 0.0)
MOMENTUM = Arg("momentum", NONNEGATIVE, 0.0)
ADAM_BETAS = Arg("betas", BETAS, (0.9, 0.999))
MAXIMIZE = Arg("maximize", FLAG, False)
DECOUPLED = Arg("decoupled_weight_decay", FLAG, False)

OPTIMIZERS = dict((
    signature("SGD", LR, MOMENTUM, Arg("dampening", REAL, 0.0), DECAY, Arg("nesterov", FLAG, False), MAXIMIZE),
    signature("Adam", LR, ADAM_BETAS, EPS, DECAY, Arg("amsgrad", FLAG, False), MAXIMIZE, DECOUPLED),
    signature(
        "AdamW", LR, ADAM_BETAS, EPS, Arg("weight_decay", NONNEGATIVE, 0.01), Arg("amsgrad", FLAG, False), MAXIMIZE,
    ),
    signature(
        "RMSprop", Arg("lr", NONNEGATIVE, 1e-2), Arg("alpha", NONNEGATIVE, 0.99), EPS, DECAY, MOMENTUM,
        Arg("centered", FLAG, False), MAXIMIZE,
    ),
    signature(
        "Adagrad", Arg("lr", NONNEGATIVE, 1e-2), Arg("lr_decay", NONNEGATIVE, 0.0), DECAY,
        Arg("initial_accumulator_value", NONNEGATIVE, 0.0), Arg("eps", NONNEGATIVE, 1e-10), MAXIMIZE,
    ),
    signature(
        "Adadelta", Arg("lr", NONNEGATIVE, 1.0), Arg("rho", UNIT, 0.9), Arg("eps", NONNEGATIVE, 1e-6), DECAY, MAXIMIZE,
    ),
    signature("Adamax", Arg("lr", NONNEGATIVE, 2e-3), ADAM_BETAS, EPS, DECAY, MAXIMIZE),
    signature(
        "NAdam", Arg("lr", NONNEGATIVE, 2e-3), ADAM_BETAS, EPS, DECAY, Arg("momentum_decay", NONNEGATIVE, 4e-3),
        DECOUPLED,
        MAXIMIZE,
    ),
    signature("RAdam", LR, ADAM_BETAS, EPS, DECAY, DECOUPLED, MAXIMIZE),
    signature("Lion", Arg("lr", NONNEGATIVE, 1e-4), Arg("betas", BETAS, (0.9, 0.99)), DECAY),
    signature(
        "Muon", LR, Arg("weight_decay", NONNEGATIVE, 0.1), Arg("momentum", NONNEGATIVE, 0.95), Arg("nesterov", FLAG,
        True),
        Arg("ns_coefficients", many(REAL, 3), (3.4445, -4.775, 2.0315)), Arg("eps", NONNEGATIVE, 1e-7),
        Arg("ns_steps", COUNT, 5), Arg("adjust_lr_fn", optional(choice("original", "match_rms_adamw")), None),
    ),
))  # fmt: skip

# Schedulers; `per` says what they count: `none` is the unit of the run ----------------------------------------------

PER = Arg("per", optional(choice("epoch", "step")), None)
ETA_MIN = Arg("eta_min", REAL, 0.0)
CYCLE = Arg("cycle_momentum", FLAG, True)

SCHEDULERS = dict((
    signature("StepLR", Arg("step_size", COUNT), Arg("gamma", POSITIVE, 0.1), PER),
    signature("MultiStepLR", Arg("milestones", many(NATURAL)), Arg("gamma", POSITIVE, 0.1), PER),
    signature("ExponentialLR", Arg("gamma", POSITIVE), PER),
    signature("CosineAnnealingLR", Arg("T_max", COUNT), ETA_MIN, PER),
    signature("CosineAnnealingWarmRestarts", Arg("T_0", COUNT), Arg("T_mult", COUNT, 1), ETA_MIN, PER),
    signature(
        "LinearLR", Arg("start_factor", number(above=0), 1.0 / 3), Arg("end_factor", UNIT, 1.0),
        Arg("total_iters", COUNT, 5), PER,
    ),
    signature("PolynomialLR", Arg("total_iters", COUNT, 5), Arg("power", POSITIVE, 1.0), PER),
    signature("ConstantLR", Arg("factor", UNIT, 1.0 / 3), Arg("total_iters", COUNT, 5), PER),
    signature(
        "OneCycleLR", Arg("max_lr", POSITIVE), Arg("total_steps", optional(COUNT), None), Arg("epochs",
        optional(COUNT), None),
        Arg("steps_per_epoch", optional(COUNT), None), Arg("pct_start", UNIT, 0.3),
        Arg("anneal_strategy", choice("cos", "linear"), "cos"), CYCLE, Arg("base_momentum", UNIT, 0.85),
        Arg("max_momentum", UNIT, 0.95), Arg("div_factor", POSITIVE, 25.0), Arg("final_div_factor", POSITIVE, 1e4),
        Arg("three_phase", FLAG, False), PER,
    ),
    signature(
        "CyclicLR", Arg("base_lr", NONNEGATIVE), Arg("max_lr", POSITIVE), Arg("step_size_up", COUNT, 2000),
        Arg("step_size_down", optional(COUNT), None),
        Arg("mode", choice("triangular", "triangular2", "exp_range"), "triangular"), Arg("gamma", POSITIVE, 1.0), CYCLE,
        Arg("base_momentum", UNIT, 0.8), Arg("max_momentum", UNIT, 0.9), PER,
    ),
    signature(
        "ReduceLROnPlateau", Arg("mode", choice("min", "max"), "min"), Arg("factor", UNIT, 0.1), Arg("patience",
        NATURAL, 10),
        Arg("threshold", NONNEGATIVE, 1e-4), Arg("threshold_mode", choice("rel", "abs"), "rel"), Arg("cooldown",
        NATURAL, 0),
        Arg("min_lr", NONNEGATIVE, 0.0), EPS, MONITOR,
    ),
    signature("WarmupCosine", Arg("warmup", NATURAL), Arg("min_lr", NONNEGATIVE, 0.0), PER),
))  # fmt: skip

# Data ---------------------------------------------------------------------------------------------------------------

PATH = Arg("path", TEXT)
TOKENIZERS = dict((signature("characters"), signature("hf", PATH)))
WINDOW = Arg("window", COUNT, 256)
TOKEN_TYPES = choice("u8", "u16", "u32", "i16", "i32", "i64")
ANY = Kind("a value", lambda value: True)
PLAIN = Kind("a number, a string or a list of such", lambda value: not hasattr(value, "args"))
SEED = Arg("seed", NATURAL, 0)

SOURCES = dict((
    signature("csv", PATH, Arg("delimiter", DELIMITER, ",")),
    signature("parquet", PATH),
    signature("jsonl", PATH),
    signature("npz", PATH),
    signature("npy", PATH),
    signature("idx", Arg("images", TEXT), Arg("labels", optional(TEXT), None)),
    signature("image_folder", PATH, Arg("mode", choice("RGB", "L", "RGBA"), "RGB")),
    signature("text", PATH, Arg("tokenizer", call("a tokenizer", TOKENIZERS), None), WINDOW),
    signature(
        "tokens", PATH, Arg("dtype", TOKEN_TYPES, "u16"), WINDOW, Arg("vocab_size", optional(COUNT), None),
    ),
    signature("safetensors", PATH),
    signature("huggingface", Arg("name", TEXT), Arg("config", optional(TEXT), None), Arg("split", TEXT, "train")),
    signature(
        "torchvision", Arg("name", TEXT), Arg("root", TEXT, "data"), Arg("train", FLAG, True),
        Arg("download", FLAG, False), variadic=PLAIN,
    ),
    signature("python", Arg("target", TEXT), variadic=PLAIN),
    signature("synthetic", Arg("rows", COUNT, 1000), Arg("classes", COUNT, 10), SEED),
))  # fmt: skip

FRACTIONS = (Arg("train", UNIT, 0.0), Arg("val", UNIT, 0.0), Arg("test", UNIT, 0.0))

SPLITS = dict((
    signature("random", *FRACTIONS, SEED),
    signature("stratified", *FRACTIONS, SEED, Arg("by", TEXT)),
    signature("grouped", *FRACTIONS, SEED, Arg("by", TEXT)),
    signature("sequential", *FRACTIONS),
))  # fmt: skip

P = Arg("p", UNIT, 0.5)
FILL = Arg("fill", either(REAL, many(REAL)), 0)
PADDING_MODE = Arg("padding_mode", choice("constant", "edge", "reflect", "symmetric"), "constant")
INTERPOLATION = Arg("interpolation", choice("nearest", "nearest-exact", "bilinear", "bicubic"), "bilinear")
ANTIALIAS = Arg("antialias", FLAG, True)
NEAREST = INTERPOLATION._replace(default="nearest")

TRANSFORMS: dict[str, Signature] = dict((
    signature("Resize", Arg("size", SIZE), INTERPOLATION, Arg("max_size", optional(COUNT), None), ANTIALIAS),
    signature("CenterCrop", Arg("size", SIZE)),
    signature(
        "RandomCrop", Arg("size", SIZE), Arg("padding", optional(either(NATURAL, many(NATURAL))), None),
        Arg("pad_if_needed", FLAG, False), FILL, PADDING_MODE,
    ),
    signature(
        "RandomResizedCrop", Arg("size", SIZE), Arg("scale", many(POSITIVE, 2), (0.08, 1.0)),
        Arg("ratio", many(POSITIVE, 2), (3.0 / 4.0, 4.0 / 3.0)), INTERPOLATION, ANTIALIAS,
    ),
    signature("RandomHorizontalFlip", P),
    signature("RandomVerticalFlip", P),
    signature(
        "RandomRotation", Arg("degrees", RANGE), NEAREST, Arg("expand", FLAG, False),
        Arg("center", optional(many(REAL, 2)), None), FILL,
    ),
    signature(
        "ColorJitter", Arg("brightness", optional(RANGE), None), Arg("contrast", optional(RANGE), None),
        Arg("saturation", optional(RANGE), None), Arg("hue", optional(RANGE), None),
    ),
    signature(
        "RandomErasing", P, Arg("scale", many(POSITIVE, 2), (0.02, 0.33)), Arg("ratio", many(POSITIVE, 2), (0.3, 3.3)),
        Arg("value", REAL, 0.0), Arg("inplace", FLAG, False),
    ),
    signature("Grayscale", Arg("num_output_channels", COUNT, 1)),
    signature("GaussianBlur", Arg("kernel_size", SIZE), Arg("sigma", either(POSITIVE, many(POSITIVE, 2)), (0.1, 2.0))),
    signature("ToTensor"),
    signature("Normalize", Arg("mean", many(REAL)), Arg("std", many(POSITIVE)), Arg("inplace", FLAG, False)),
    signature("Pad", Arg("padding", either(NATURAL, many(NATURAL))), FILL, PADDING_MODE),
    signature(
        "RandAugment", Arg("num_ops", NATURAL, 2), Arg("magnitude", NATURAL, 9), Arg("num_magnitude_bins", COUNT, 31),
        NEAREST, Arg("fill", optional(either(REAL, many(REAL))), None),
    ),
))  # fmt: skip
TRANSFORM = call("a transform", TRANSFORMS)
TRANSFORMS["Compose"] = Signature("Compose", (Arg("transforms", many(TRANSFORM)),))

# Metrics; of each, the key it is logged and monitored by; None where it is a curve or a table -----------------------

IGNORE = Arg("ignore_index", optional(INTEGER), None)
THRESHOLD = Arg("threshold", UNIT, 0.5)
THRESHOLDS = Arg("thresholds", optional(either(integer(low=2), many(UNIT))), None)
TOP_K = Arg("top_k", COUNT, 1)
AVERAGES = choice("micro", "macro", "weighted", "none")
AVERAGE = Arg("average", optional(AVERAGES), "micro")
# Areas are averaged over classes: there is none over all rows of all classes.
MACRO = Arg("average", optional(choice("macro", "weighted", "none")), "macro")
OUTPUTS = Arg("num_outputs", COUNT, 1)

METRICS = dict((
    signature("Accuracy", THRESHOLD, AVERAGE, TOP_K, IGNORE),
    signature("Precision", THRESHOLD, AVERAGE, TOP_K, IGNORE),
    signature("Recall", THRESHOLD, AVERAGE, TOP_K, IGNORE),
    signature("F1Score", THRESHOLD, AVERAGE, TOP_K, IGNORE),
    signature("JaccardIndex", THRESHOLD, Arg("average", optional(AVERAGES), "macro"), IGNORE),
    signature("AUROC", THRESHOLDS, MACRO, Arg("max_fpr", optional(UNIT), None), IGNORE),
    signature("ROC", THRESHOLDS, IGNORE),
    signature("PrecisionRecallCurve", THRESHOLDS, IGNORE),
    signature("AveragePrecision", THRESHOLDS, MACRO, IGNORE),
    signature("ConfusionMatrix", THRESHOLD, Arg("normalize", optional(choice("true", "pred", "all")), None), IGNORE),
    signature("CalibrationError", Arg("n_bins", COUNT, 15), Arg("norm", choice("l1", "l2", "max"), "l1"), IGNORE),
    signature("MeanSquaredError", Arg("squared", FLAG, True), OUTPUTS),
    signature("MeanAbsoluteError", OUTPUTS),
    signature(
        "R2Score", Arg("adjusted", NATURAL, 0),
        Arg("multioutput", choice("raw_values", "uniform_average", "variance_weighted"), "uniform_average"),
    ),
    signature("Perplexity", IGNORE),
))  # fmt: skip

METRIC_KEYS = {
    "Accuracy": "accuracy",
    "Precision": "precision",
    "Recall": "recall",
    "F1Score": "f1_score",
    "JaccardIndex": "jaccard_index",
    "AUROC": "auroc",
    "ROC": None,
    "PrecisionRecallCurve": None,
    "AveragePrecision": "average_precision",
    "ConfusionMatrix": None,
    "CalibrationError": "calibration_error",
    "MeanSquaredError": "mean_squared_error",
    "MeanAbsoluteError": "mean_absolute_error",
    "R2Score": "r2_score",
    "Perplexity": "perplexity",
}
# Of `MeanSquaredError(squared=false)`.
ROOT_MEAN_SQUARED_ERROR = "root_mean_squared_error"
# Those that are better the larger they are; of the others, and of losses, the smaller.
HIGHER_IS_BETTER = (
    "accuracy", "precision", "recall", "f1_score", "jaccard_index", "auroc", "average_precision", "r2_score",
)  # fmt: skip
# Arguments that ask a metric for a number of each class or output.
MANY_NUMBERS = (("average", "none"), ("average", None), ("multioutput", "raw_values"))


def metric_key(name: str, args: Mapping[str, Any]) -> str | None:
    """What a metric is logged and monitored by; None of one that is no single number."""
    if args.get("num_outputs", 1) != 1 or any((key, args.get(key, "")) == (key, value) for key, value in MANY_NUMBERS):
        return None
    return METRIC_KEYS[name] if args.get("squared", True) else ROOT_MEAN_SQUARED_ERROR


# Settings and sections ----------------------------------------------------------------------------------------------

EMAS = dict((signature("EMA", Arg("decay", UNIT, 0.999)),))
STRATEGIES = dict((signature("ddp"), signature("fsdp")))
WEIGHTS = dict((signature("weights", Arg("path", TEXT), Arg("model", TEXT, "model"), Arg("without", TEXTS, ())),))
_START = either(TEXT, call("`weights(...)`", WEIGHTS))
START = either(_START, many(_START))._replace(what="a path as a string, `weights(...)`, or a list of these")
EVERY = Arg("every", optional(COUNT), None)
RESUME = word("auto", "none")._replace(
    what="`auto`, `none` or a path as a string", accepts=lambda value: value is None or isinstance(value, str)
)
MODE = Arg("mode", word("auto", "min", "max"), "auto")

DATA_SETTINGS = (
    Arg("source", call("a source", SOURCES)),
    Arg("val", call("a source", SOURCES), None),
    Arg("test", call("a source", SOURCES), None),
    Arg("split", call("a split", SPLITS), None),
    Arg("workers", NATURAL, 0),
    Arg("prefetch", COUNT, 2),
    Arg("shuffle", FLAG, True),
    Arg("drop_last", FLAG, False),
    Arg("resident", either(FLAG, word("auto")), "auto"),
)

TRAIN_SETTINGS = (
    Arg("model", ANY),
    Arg("data", ANY),
    Arg("optimizer", call("an optimizer", OPTIMIZERS)),
    Arg("scheduler", ANY, None),
    Arg("epochs", COUNT, None),
    Arg("steps", COUNT, None),
    Arg("batch_size", COUNT, 32),
    Arg("accumulate", COUNT, 1),
    Arg("precision", word("f32", "bf16", "f16"), "f32"),
    Arg("tf32", FLAG, False),
    Arg("clip_grad_norm", optional(POSITIVE), None),
    Arg("ema", optional(call("`EMA(decay=...)`", EMAS)), None),
    Arg("seed", NATURAL, 0),
    Arg("deterministic", FLAG, False),
    Arg("freeze", TEXTS, ()),
    Arg("init_from", optional(START), None),
    Arg("activation_checkpointing", TEXTS, ()),
    Arg("distributed", optional(call("`ddp()`, `fsdp()`", STRATEGIES)), None),
)
TRAIN_BLOCKS = ("loss",)

# Those of the first table hold where they are not written, too.
SECTIONS = dict((
    signature(
        "checkpoint", EVERY, Arg("keep", COUNT, 3), Arg("best", optional(TEXT), None), MODE, Arg("resume", RESUME,
        "auto"),
    ),
    signature("validate", EVERY),
    signature("logging", Arg("every", COUNT, 10), Arg("tensorboard", FLAG, False), Arg("csv", FLAG, False)),
))  # fmt: skip
OPTIONAL_SECTIONS = dict((
    signature("early_stopping", MONITOR, Arg("patience", NATURAL, 3), Arg("min_delta", NONNEGATIVE, 0.0), MODE),
))  # fmt: skip

EVALUATE_SETTINGS = (
    Arg("metrics", many(call("a metric", METRICS)), ()),
    Arg("split", choice("train", "val", "test"), "test"),
)
EVALUATE_BLOCKS = ("compare", "predict")
SPLIT_NAMES = ("train", "val", "test")
FACTS = ("num_classes", "rows", "vocab_size")
# Sources whose headers are read when a program is checked.
READABLE = ("csv", "parquet", "jsonl", "npz", "npy", "safetensors", "idx", "image_folder", "text", "tokens")
# Arguments of sources that are paths from the program's folder.
PATHS = ("path", "images", "labels", "root")
