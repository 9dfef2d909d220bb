"""What the reference takes from the compiler's own registries: lists of names, signatures, settings, options.

Each function has the text of one kind of place in the pages, which `<!-- KIND: NAME -->` marks.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from docs.snippets import Snippet, emitted, looked_at, pages, prepared, snippets
from tdsl.compiler.build.expr import METHODS
from tdsl.compiler.build.layers import LAYERS
from tdsl.compiler.build.layers.layer import INPUT, Layer
from tdsl.compiler.build.rearrange import EINOPS
from tdsl.compiler.cli import command_line
from tdsl.compiler.codes import CODES as OF_TYPES
from tdsl.compiler.editor import builtins, sections_doc
from tdsl.compiler.editor.builtins import Builtin, shown
from tdsl.compiler.ops import OPS, Kind
from tdsl.compiler.ops.op import INTERNAL, Arg, Op, Signature
from tdsl.dsl import kinds, signatures
from tdsl.dsl.codes import CODES as OF_FRONT_END
from tdsl.dsl.codes import Code
from tdsl.dsl.constants import FUNCTIONS as COMPUTED
from tdsl.dsl.render import render, to_json

WIDTH = 118
# Where a function stands in the reference; one that is in none of the others is in the last.
GROUPS: Mapping[str, frozenset[str]] = {
    name: frozenset(text.split())
    for name, text in {
        "attention": "attention rope alibi",
        "losses": """
            mse_loss l1_loss smooth_l1_loss huber_loss cross_entropy nll_loss binary_cross_entropy
            binary_cross_entropy_with_logits kl_div triplet_margin_loss margin_ranking_loss cosine_embedding_loss
            hinge_embedding_loss multi_margin_loss gaussian_nll_loss poisson_nll_loss ctc_loss""",
        "autograd": "detach grad",
        "creation": """
            tensor zeros ones full arange linspace eye tril triu rand randn randint zeros_like ones_like full_like
            rand_like randn_like one_hot""",
        "shape": """
            reshape reshape_as view view_as flatten unflatten transpose permute movedim t squeeze unsqueeze expand
            expand_as repeat_interleave repeat tile cat stack split chunk unbind roll flip pad contiguous rearrange
            reduce size numel""",
        "indexing": "narrow select gather scatter index_select masked_fill where",
        "logic": "eq ne lt le gt ge logical_and logical_or logical_not isnan isinf isfinite",
        "conversion": "cast type_as",
        "reductions": """
            sum mean prod max min amax amin var std norm logsumexp all any cumsum cumprod normalize
            cosine_similarity""",
        "order": "argmax argmin sort argsort topk median",
        "linalg": "matmul mm bmm dot outer einsum",
        "activations": """
            relu relu6 leaky_relu elu selu celu gelu silu mish sigmoid logsigmoid hardsigmoid hardswish hardtanh tanh
            softplus softsign softmax log_softmax glu prelu threshold""",
        "nn": """
            linear bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d max_pool1d
            max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
            adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d layer_norm rms_norm
            group_norm batch_norm instance_norm local_response_norm embedding embedding_bag dropout dropout1d
            dropout2d dropout3d interpolate pixel_shuffle pixel_unshuffle""",
        "arithmetic": "",
    }.items()
}
# Where a layer stands; pooling tells itself by its name, and what is in none of these is among the others.
LAYER_GROUPS: Mapping[str, frozenset[str]] = {
    name: frozenset(text.split())
    for name, text in {
        "dense": "Linear Bilinear Embedding EmbeddingBag",
        "conv": "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d",
        "norm": """
            LayerNorm RMSNorm GroupNorm BatchNorm1d BatchNorm2d BatchNorm3d InstanceNorm1d InstanceNorm2d
            InstanceNorm3d LocalResponseNorm""",
        "recurrent": "RNN LSTM GRU",
        "attention": "MultiheadAttention",
        "rearranging": """
            Dropout Dropout1d Dropout2d Dropout3d Flatten Unflatten Upsample PixelShuffle PixelUnshuffle""",
        "activation": """
            ReLU ReLU6 LeakyReLU PReLU ELU SELU CELU GELU SiLU Mish Sigmoid LogSigmoid Hardsigmoid Hardswish Hardtanh
            Tanh Softplus Softsign Softmax LogSoftmax GLU Threshold""",
    }.items()
}


MARKED = re.compile(r"<!-- (\w+): (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def written() -> dict[Path, str]:
    """The pages of the reference, as they should be."""
    with TemporaryDirectory() as folder:
        prepared(Path(folder))
        return {path: _page(path, Path(folder)) for path in pages()}


def _page(path: Path, folder: Path) -> str:
    text = path.read_text(encoding="utf-8")
    programs = list(snippets(path))

    def fresh(match: re.Match[str]) -> str:
        kind, name = match.groups()
        if kind in SHOWN:
            before = [each for each in programs if each.end < match.start() and each.kind != "file"]
            content = SHOWN[kind](name, before[-1], folder)
        else:
            content = texts()[kind](name)
        return f"<!-- {kind}: {name} -->\n{content}\n<!-- end -->"

    return MARKED.sub(fresh, text)


def texts() -> Mapping[str, Callable[[str], str]]:
    """By kind of place, what has its text."""
    return {
        "names": lambda name: wrapped(names()[name]),
        "functions": functions,
        "layers": layers,
        "signatures": called,
        "settings": settings,
        "options": lambda name: options(),
        "lints": lambda name: lints(),
    }


# What programs become -----------------------------------------------------------------------------------------------


def _becomes(name: str, program: Snippet, folder: Path) -> str:
    """The class in `model.py` that the program above becomes."""
    return _part(program, folder, "model.py", rf"^class {name}\(.*?(?=\n\n\n|\Z)")


def _reference(name: str, program: Snippet, folder: Path) -> str:
    """The plain PyTorch of a kernel, in `kernels.py`."""
    return _part(program, folder, "kernels.py", rf"^def {name}_reference\(.*?(?=\n\n\n)")


def _part(program: Snippet, folder: Path, file: str, pattern: str) -> str:
    unit, told = looked_at(program, folder)
    assert unit is not None, f"{program.name}: {render(told)}"
    match = re.search(pattern, emitted(unit)[file], re.DOTALL | re.MULTILINE)
    assert match is not None, f"{program.name}: {pattern}"
    return f"```python\n{match[0].rstrip()}\n```"


def _told(form: str, program: Snippet, folder: Path) -> str:
    """What `tdsl check` says of the program above."""
    told = looked_at(program, folder)[1]
    text = render(told) if form == "text" else to_json(told)
    return f"```{form}\n{text.replace(f'{folder}/', '').rstrip()}\n```"


SHOWN: Mapping[str, Callable[[str, Snippet, Path], str]] = {"becomes": _becomes, "reference": _reference, "told": _told}

# Names ---------------------------------------------------------------------------------------------------------------


def names() -> Mapping[str, Iterable[str]]:
    """Lists by name, each what the registries hold."""
    ops = {name: op for name, op in OPS.items() if name not in INTERNAL}
    fused = [name for name, op in ops.items() if op.fusible]
    views = [name for name, op in ops.items() if op.kind is Kind.VIEW]
    views += [name for name, op in METHODS.items() if OPS[op].kind is Kind.VIEW]
    own = [name for name, op in ops.items() if op.structure is not None]
    return {
        "fused": fused,
        "structured": own,
        "views": views,
        "library": [name for name in builtins.functions() if name not in {*fused, *own, *views}],
        "computed": COMPUTED,
    }


def wrapped(found: Iterable[str]) -> str:
    """Names in lines, in alphabetical order."""
    lines = [""]
    for word in (f"`{name}`" for name in sorted(found, key=str.lower)):
        if len(lines[-1]) + len(word) >= WIDTH:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


def entry(text: str, sentence: str) -> str:
    return f"- `{text}`: {sentence[:1].lower()}{sentence[1:]}" if _lowers(sentence) else f"- `{text}`: {sentence}"


def _lowers(sentence: str) -> bool:
    """Whether a sentence may go on after a colon as it is, but for its first letter."""
    first = sentence.partition(" ")[0]
    return (first[1:].islower() and first not in signatures.OPTIMIZERS) or first == "A"


# Functions -----------------------------------------------------------------------------------------------------------


def functions(group: str) -> str:
    """The functions of a group: every form of each, and a sentence."""
    taken = frozenset().union(*GROUPS.values())
    every = builtins.functions()
    found = [name for name in every if name in GROUPS[group] or (group == "arithmetic" and name not in taken)]
    return "\n".join(_function(every[name]) for name in sorted(found))


def _function(builtin: Builtin) -> str:
    op = OPS[builtin.name]
    forms = [_form(builtin.name, each) for each in (op, *op.overloads)]
    if builtin.name in EINOPS:
        reduction = "reduction, " if builtin.name == "reduce" else ""
        einops = f"{builtin.name}(tensor, pattern, {reduction}**lengths)"
        forms = [einops, *(forms if builtin.name == "repeat" else ())]
    return entry("`, `".join(dict.fromkeys(forms)), _sentence(builtin.doc or op.doc))


def _form(name: str, op: Op) -> str:
    result = f" -> {', '.join(op.results)}" if op.results else ""
    return f"{name}({', '.join(_shown(op.signature))}){result}"


def _shown(signature: Signature) -> list[str]:
    """`input, dim: int = -1`: arguments as a person would tell them; kinds only where nothing else shows them."""
    parts: list[str] = []
    for arg in signature:
        if arg.is_built:
            continue
        if arg.keyword_only and not any(part.startswith("*") for part in parts):
            parts.append("*")
        parts.append(_argument(arg))
    return parts


def _argument(arg: Arg) -> str:
    if arg.variadic:
        return f"*{arg.name}"
    return arg.name if arg.required else f"{arg.name}={shown(arg.default)}"


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


# Layers --------------------------------------------------------------------------------------------------------------


def layers(group: str) -> str:
    """The layers of a group: constructor, what a call takes beyond one tensor, what may be `_`, and a sentence."""
    pools = {name for name in LAYERS if "Pool" in name}
    groups = {**LAYER_GROUPS, "pool": pools}
    taken = frozenset().union(*groups.values())
    found = [name for name in LAYERS if name in groups.get(group, ()) or (group == "others" and name not in taken)]
    lines = [_layer(LAYERS[name]) for name in found]
    return "\n".join(
        [*lines, entry("Sequential(*layers)", builtins.layers()["Sequential"].doc)] if group == "others" else lines
    )


def _layer(layer: Layer) -> str:
    text = entry(f"{layer.name}({', '.join(_shown(layer.signature))})", _sentence(builtins.layers()[layer.name].doc))
    if layer.inputs != INPUT:
        text += f" Called with `({', '.join(_shown(layer.inputs))})`."
    if layer.infer:
        text += f" May be `_`: {', '.join(f'`{name}`' for name in layer.infer)}."
    return text


# Sections ------------------------------------------------------------------------------------------------------------


def called(kind: str) -> str:
    """What a section calls: optimizers, metrics and the like, with their arguments."""
    if kind == "initializers":
        found = builtins.initializers()
        return "\n".join(
            entry(f"{name}({', '.join(map(_plain, each.parameters))})", each.doc) for name, each in found.items()
        )
    table = builtins.of_sections()[kind.removesuffix("s")]
    return "\n".join(_called(kind, each) for each in table.values())


def _called(kind: str, each: Builtin) -> str:
    shown = each.parameters
    # One that is required stands before those with defaults: here, by its name.
    late = [p for i, p in enumerate(shown) if p.default is None and any(q.default is not None for q in shown[:i])]
    parts = [f"{p.name}=..." if p in late else _plain(p) for p in shown]
    text = entry(f"{each.name}({', '.join(parts)})", _sentence(each.doc))
    key = signatures.METRIC_KEYS.get(each.name) if kind == "metrics" else None
    return f"{text} Key: `{key}`." if key else text


def _plain(parameter: builtins.Parameter) -> str:
    return parameter.name if parameter.default is None else f"{parameter.name}={parameter.default}"


def settings(section: str) -> str:
    """A table of settings."""
    rows = {
        "data": lambda: _settings(signatures.DATA_SETTINGS, sections_doc.DATA),
        "train": lambda: _settings(signatures.TRAIN_SETTINGS, sections_doc.TRAIN),
        "evaluate": lambda: _settings(signatures.EVALUATE_SETTINGS, sections_doc.EVALUATE),
        "sections": lambda: [
            row
            for name, each in {**signatures.SECTIONS, **signatures.OPTIONAL_SECTIONS}.items()
            for row in _settings(each.args, sections_doc.SECTIONS, f"{name}.")
        ],
    }[section]()
    return "\n".join(["| setting | takes | default | |", "| --- | --- | --- | --- |", *rows])


def _settings(args: Iterable[kinds.Arg], docs: Mapping[str, str], prefix: str = "") -> list[str]:
    cells = [(f"`{prefix}{arg.name}`", _takes(arg), _default(arg), docs.get(prefix + arg.name, "")) for arg in args]
    return [f"| {' | '.join(map(escaped, row))} |" for row in cells]


def escaped(text: str) -> str:
    """A cell of a table."""
    return text.replace("|", "\\|")


def _takes(arg: kinds.Arg) -> str:
    words = {"model": "a module", "data": "the name of a dataset", "scheduler": "schedulers"}
    return words.get(arg.name, arg.kind.what)


def _default(arg: kinds.Arg) -> str:
    return "" if arg.default is kinds.Required or arg.default is None else f"`{shown(arg.default)}`".replace('"', "")


# The command line ----------------------------------------------------------------------------------------------------


def options() -> str:
    """The options of every command as it tells them itself, those that all have which read a program first."""
    told = {
        name: [line for each in command._actions if (line := _option(each))] for name, command in _commands().items()
    }
    shared = [line for line in told["inspect"] if line in told["check"]]
    found = ["Of all commands that read a program:", "", *shared, ""]
    for name, lines in told.items():
        own = [line for line in lines if line not in shared]
        found += [f"`tdsl {name}`:", "", *own, ""] if own else []
    return "\n".join(found).rstrip()


def _commands() -> Mapping[str, argparse.ArgumentParser]:
    made = command_line()
    (action,) = (each for each in made._actions if isinstance(each, argparse._SubParsersAction))
    return dict(action.choices)


def _option(action: argparse.Action) -> str:
    if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
        return ""
    value = action.metavar if isinstance(action.metavar, str) else "|".join(map(str, action.choices or ()))
    text = f"{', '.join(action.option_strings)} {value}".strip()
    return f"- `{text}`: {action.help}" if action.help else ""


def lints() -> str:
    """The warnings: title and cure."""
    found = sorted((each for each in (OF_FRONT_END | OF_TYPES).values() if each.code[0] == "W"), key=lambda c: c.code)
    cells = [
        (f"[{each.code}](../errors.md#{_anchor(each)})", escaped(each.title), escaped(each.cure)) for each in found
    ]
    rows = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join(["| code | tells of | cure |", "| --- | --- | --- |", *rows])


def _anchor(code: Code) -> str:
    """Of its heading in `errors.md`."""
    return re.sub(r"[^\w\- ]", "", f"{code.code}: {code.title}".lower()).replace(" ", "-")
