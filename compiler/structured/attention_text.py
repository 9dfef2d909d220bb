"""The text of one use of attention: what its kernels take, and what its autograd function does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tdsl.compiler.emit.render import layout
from tdsl.compiler.ir import Group, Scalar
from tdsl.compiler.structured.attention_bias import bias_gradient, bias_text
from tdsl.compiler.structured.attention_seen import Sight
from tdsl.compiler.structured.template import Naming

ROLES = ("q", "k", "v", "bias")
# What a tile decides, as kernels read it.
TILE = ("D", "E", "BLOCK_T", "BLOCK_S", "BLOCK_D", "BLOCK_E", "PRECISION")
WHOLE = "1 << (n_heads.bit_length() - 1)"
# Columns before the launch of a kernel.
LAUNCH = 12


@dataclass(frozen=True)
class KernelText:
    """A kernel's `def` line, its launch, and what tells how large its blocks may be."""

    head: str
    launch: str
    step: str = ""


def variables(group: Group, naming: Naming) -> Mapping[str, object]:
    """What `templates/triton/attention.py.jinja` shows."""
    return _Writer(group, naming).variables()


class _Writer:
    def __init__(self, group: Group, naming: Naming) -> None:
        assert group.structure is not None
        self.group, self.name, self.low = group, naming.name, naming.low
        self.roles, self.options = group.structure.roles, group.structure.options
        self.causal, self.grouped = bool(self.options["causal"]), bool(self.options["grouped"])
        self.draws = self.options["dropout_p"] is not None
        # The numbers that are arguments, each once, under the name of what it is first.
        self.numbers: dict[Scalar, str] = {}
        self.scale, self.softcap = self._number("scale"), self._number("softcap")
        self.rate, window = self._number("dropout_p", "p"), self._number("window")
        self.window = "window" if window.isidentifier() else window
        self.sight = Sight(self.causal, self.window)
        dims = self.options["bias"]
        assert isinstance(dims, tuple)
        self.dims = tuple(map(str, dims))
        self.inputs = ["".join(r for r in ROLES if self.roles.get(r) is v) for v in group.body.inputs]

    def _number(self, option: str, name: str = "") -> str:
        """A number as it is read: a literal, or the name of an argument or of what is bound before; "" for none."""
        value = self.options[option]
        if isinstance(value, Scalar):
            return self.numbers.setdefault(value, name or option)
        if value is None or isinstance(value, str):
            return option if value else ""
        assert isinstance(value, (int, float))
        return repr(int(value) if option == "window" else float(value))

    def variables(self) -> dict[str, object]:
        bias = ["bias"] if self.dims else []
        return {
            "arguments": [*self.inputs, *(self.numbers[s] for s in self.group.scalars), *self._seed()],
            "sources": [self.inputs[self.group.body.inputs.index(self.roles[role])] for role in ROLES[:3]],
            "cast": self._cast(),
            "bound": self._bound(),
            "saved": ["q", "k", "v", *bias, "y", "lse"],
            "strided": ["q", "k", "v", *bias],
            "carried": self._carried(),
            "returned": self._returned(),
            "causal": self.causal,
            "window": self.window,
            "softcap": self.softcap,
            "slope": self._slope(),
            "numbers_keys": bool(self.causal or self.window or self.dims or self._slope() or self.draws),
            "grouped": self.grouped,
            "group": "group" if self.grouped else "head",
            "n_groups": "n_groups" if self.grouped else "n_heads",
            "draws": self.draws,
            "weights": "dropped" if self.draws else "weights",
            "bias": bias_text(self.dims) if self.dims else None,
            "bias_index": self.inputs.index("bias") if self.dims else None,
            "d_bias": bias_gradient(self.dims, self.sight) if self._differentiates_bias() else None,
            "ranges": self.sight.ranges(),
            **self._kernels(),
        }

    def _differentiates_bias(self) -> bool:
        return bool(self.dims) and bool(self.options["bias_grad"])

    # The autograd function -------------------------------------------------------------------------------------------

    def _cast(self) -> str:
        """What brings parameters, which stay in float32, to the precision of the run."""
        full = any(self.roles[role].type.dtype == "f32" for role in ROLES[:3])
        return f".to({self.low})" if self.low and full else ""

    def _seed(self) -> list[str]:
        return ["seed"] if self.draws else []

    def _bound(self) -> list[str]:
        """Numbers that the shapes tell, and that must not be too large to count with."""
        scale, softcap, window = (self.options[name] for name in ("scale", "softcap", "window"))
        lines = [f"softcap = {softcap}"] if isinstance(softcap, str) else []
        if not isinstance(scale, Scalar):
            lines.append(f"scale = {scale if isinstance(scale, str) else self.scale or 'width**-0.5'}")
        if self.window.isidentifier():
            text = self.numbers[window] if isinstance(window, Scalar) else window
            lines.append(f"window = min({text}, 1 << 30)")
        return lines

    def _carried(self) -> list[str]:
        """The numbers that the kernels take, and the backward needs again."""
        scale = self.scale if isinstance(self.options["scale"], Scalar) else "scale"
        named = [text for text in (self.softcap, self.rate, self.window) if text.isidentifier()]
        return list(dict.fromkeys([scale, *named, *self._seed()]))

    def _returned(self) -> list[str]:
        """A gradient for each argument."""
        without = () if self._differentiates_bias() else ("bias",)
        found = []
        for value in self.group.body.inputs:
            roles = [role for role in ROLES if self.roles.get(role) is value and role not in without]
            found.append(" + ".join(f"d_{role}" for role in roles) or "None")
        return found + ["None"] * (len(self.group.scalars) + len(self._seed()))

    # Kernels ---------------------------------------------------------------------------------------------------------

    def _kernels(self) -> dict[str, KernelText]:
        read = ["q", "k", "v", *(["bias"] if self.dims else [])]
        back = [*read, "lse", "d_y", "delta"]
        found = {
            "forward": self._kernel("forward", [*read, "y", "lse"], read),
            "backward_delta": self._delta(),
            "backward_q": self._kernel("backward_q", [*back, "d_q"], [*read, "d_y"]),
            "backward_kv": self._kernel("backward_kv", [*back, "d_k", "d_v"], [*read, "d_y"]),
        }
        if self._differentiates_bias():
            found["backward_bias"] = self._kernel("backward_bias", [*back, "d_bias"], [*read, "d_y", "d_bias"])
        return found

    def _kernel(self, step: str, tensors: Sequence[str], strided: Sequence[str]) -> KernelText:
        numbers = ["n_batch"] if step == "backward_bias" else []
        numbers += ["n_heads", *(["n_groups"] if self.grouped else []), "n_queries", "n_keys", *self._carried()]
        constants = {"DROPOUT": f"{self.rate} > 0.0"} if self.draws else {}
        constants |= {"WHOLE": WHOLE} if isinstance(self.options["alibi"], str) else {}
        name = f"_{self.name}_{step}"
        parameters = [*(f"{t}_ptr" for t in tensors), *(f"{t}_strides" for t in strided), *numbers]
        parameters += [f"{constant}: tl.constexpr" for constant in (*TILE, *constants)]
        strides = ["*strides", *(["d_bias.stride()"] if step == "backward_bias" else [])]
        given = [*tensors, *strides, *numbers, *(f"{c}={text}" for c, text in constants.items()), "**tile.options"]
        launch = layout(f"{name}[(programs,)]", given, "", LAUNCH)
        return KernelText(layout(f"def {name}", parameters, ":", 0), launch, f"{step}{self._size(step)}")

    def _size(self, step: str) -> str:
        """What takes registers beside the scores."""
        if self.dims or self.draws:
            return " rich"
        return " grouped" if self.grouped and step == "backward_kv" else ""

    def _delta(self) -> KernelText:
        """What each query's weights have in common in their gradients: the product of a row of y with that of d_y."""
        name = f"_{self.name}_backward_delta"
        head = ["y_ptr", "d_y_ptr", "delta_ptr", "d_y_strides", "n_heads", "n_queries"]
        head += [f"{constant}: tl.constexpr" for constant in ("E", "BLOCK_T", "BLOCK_E")]
        given = ["y", "d_y", "delta", "d_y.stride()", "n_heads", "n_queries"]
        given += ["E=v_width", "BLOCK_T=attention_tiles.DELTA_ROWS", "BLOCK_E=launch.power_of_two(v_width)"]
        return KernelText(layout(f"def {name}", head, ":", 0), layout(f"{name}[(programs,)]", given, "", LAUNCH))

    def _slope(self) -> str:
        """Of linear biases, the text of a head's."""
        heads = self.options["alibi"]
        if heads is None:
            return ""
        if isinstance(heads, int):
            return f"tm.alibi_slope({'0' if heads == 1 else 'head'}, {1 << (heads.bit_length() - 1)})"
        return "tm.alibi_slope(head, WHOLE)"
