"""Move the last linear layer of a model into the loss, where that can then do without its scores.

Before: in the model `%s = linear(%x, head.weight) layer=head; return %s`; in the loss
        `%l = call_module(%batch.x) layer=model; %y = cross_entropy(%l, %batch.y)`.
After:  the model yields `%x` where it is called with `head=False`, as the loss does:
        `%h = call_module(%batch.x, head=False); %l = linear(%h, model.head.weight); %y = cross_entropy(%l, %batch.y)`.

The layer stays where it is, for whoever calls the model otherwise. It may be that of a module whose result the model
returns: then that is called without its head, too. All goes through `forward`, whatever is wrapped around the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tdsl.compiler.build.unit import ModuleIR, ModuleMember, RunIR, Unit
from tdsl.compiler.emit.python import RESERVED
from tdsl.compiler.inspect import bound
from tdsl.compiler.ir import Graph, Node, Parameter, Scalar, Shape, TensorType, Value
from tdsl.compiler.passes.patterns.linear_cross_entropy import pays
from tdsl.compiler.passes.recognise import recognise
from tdsl.compiler.passes.tidy import prune, share
from tdsl.compiler.size import Size, Symbol

KEYWORDS = ("head", "with_head", "head_too", "heads_too")
CALL = "call_module"


@dataclass(frozen=True)
class Head:
    """The last layer of a model: the modules that lead to it, that which has it last, and the layer's call there.

    `prefix` is the path from the model to the last module, `sizes` are that module's.
    """

    modules: tuple[ModuleIR, ...]
    linear: Node
    prefix: str
    sizes: Mapping[Symbol, int]

    def shape(self, shape: Shape) -> tuple[int | None, ...]:
        return tuple(size.substitute(self.sizes).constant for size in shape)


def lift_head(unit: Unit) -> Unit:
    """The unit with the heads that pay in the losses of its runs."""
    runs = dict(unit.runs)
    lifted: dict[str, ModuleIR] = {}
    for name, run in unit.runs.items():
        for call in run.loss.nodes:
            head = _head_of(unit, run, call)
            loss = _with_head(runs[name].loss, call, head) if head is not None else None
            if head is not None and loss is not None:
                runs[name] = replace(runs[name], loss=loss)
                lifted.update((m.class_name, _with_keyword(m, head)) for m in head.modules)
    return replace(unit, runs=runs, modules=tuple(lifted.get(m.class_name, m) for m in unit.modules))


# Finding it ----------------------------------------------------------------------------------------------------------


def _head_of(unit: Unit, run: RunIR, call: Node) -> Head | None:
    """The head of the model that a node of the loss calls, where it pays to have its scores computed by the loss."""
    if call.op.name != CALL or call.layer not in run.models or len(call.outputs) != 1:
        return None
    head = _head(unit, run.models[call.layer], "", {})
    if head is None:
        return None
    classes, width = head.shape(head.linear.values[1].type.shape)
    return head if pays(classes, width) and all(map(_keyword, head.modules)) else None


def _head(unit: Unit, member: ModuleMember, prefix: str, sizes: Mapping[Symbol, int]) -> Head | None:
    ir = next(m for m in unit.modules if m.class_name == member.class_name)
    inner = bound(ir, member, sizes)
    last = _last(ir.graph)
    if last is None:
        return None
    params = {p.value for p in ir.graph.params}
    if last.op.name == "linear" and last.values[0] not in params and params.issuperset(last.values[1:]):
        return Head((ir,), last, prefix, inner)
    below = ir.members.get(last.layer)
    if last.op.name != CALL or not isinstance(below, ModuleMember):
        return None
    found = _head(unit, below, f"{prefix}{last.layer}.", inner)
    return replace(found, modules=(ir, *found.modules)) if found is not None else None


def _last(graph: Graph) -> Node | None:
    """The node whose one result is the graph's, and is for nothing else."""
    if len(graph.outputs) != 1:
        return None
    (output,) = graph.outputs
    node = graph.producers().get(output)
    idle = output not in graph.users() and output not in graph.tracked.values()
    return node if node is not None and len(node.outputs) == 1 and idle else None


def _keyword(ir: ModuleIR) -> str:
    """What says whether the module is called with its head: a name that its `forward` does not use otherwise."""
    names = {v.name for v in ir.graph.inputs} | {v.name for n in ir.graph.walk() for v in n.outputs}
    return ir.head or next((name for name in KEYWORDS if name not in names | RESERVED), "")


# Moving it -----------------------------------------------------------------------------------------------------------


def _with_head(loss: Graph, call: Node, head: Head) -> Graph | None:
    """The loss with the head in it; None where it would store the scores all the same."""
    scores = call.output
    (width,) = head.shape(head.linear.values[0].type.shape[-1:])
    assert width is not None
    hidden = Value(TensorType(scores.type.dtype, (*scores.type.shape[:-1], Size.of(width))), "hidden")
    without = replace(call, attrs={**call.attrs, _keyword(head.modules[0]): False}, outputs=(hidden,))
    params = {p.path: p for p in loss.params}
    given = [_parameter(head, call.layer, i) for i in range(1, len(head.linear.values))]
    own = [params.setdefault(each.path, each).value for each in given]
    absent = head.linear.inputs[1 + len(own) :]
    linear = replace(head.linear, inputs=(hidden, *own, *absent), outputs=(scores,), layer="")
    nodes = [new for node in loss.nodes for new in ((without, linear) if node is call else (node,))]
    found = replace(loss, nodes=tuple(nodes), params=tuple(params.values()))
    return found if _stores_no_scores(found, scores) else None


def _parameter(head: Head, model: str, index: int) -> Parameter:
    """A parameter of the layer, as the loss has it."""
    value = head.linear.values[index]
    held = next(p for p in head.modules[-1].graph.params if p.value is value)
    name = ("weight", "bias")[index - 1]
    path = f"{head.linear.layer}.{name}" if head.linear.layer else held.path
    shape = tuple(size.substitute(head.sizes) for size in value.type.shape)
    return Parameter(f"{model}.{head.prefix}{path}", Value(TensorType(value.type.dtype, shape), name), held.trainable)


def _stores_no_scores(loss: Graph, scores: Value) -> bool:
    made = {v for node in recognise(prune(share(loss))).nodes for v in node.outputs}
    return scores not in made


def _with_keyword(ir: ModuleIR, head: Head) -> ModuleIR:
    """The module with the keyword that leaves its head out; a module within it that has the head is told the same."""
    keyword = _keyword(ir)
    at = head.modules.index(ir)
    if at + 1 == len(head.modules):
        return replace(ir, head=keyword)
    last = _last(ir.graph)
    assert last is not None
    told = replace(last, attrs={**last.attrs, _keyword(head.modules[at + 1]): Scalar(None, keyword)})
    graph = replace(ir.graph, nodes=tuple(told if node is last else node for node in ir.graph.nodes))
    return replace(ir, head=keyword, graph=graph)


# Without it ----------------------------------------------------------------------------------------------------------


def without_heads(unit: Unit) -> Unit:
    """The unit with modules, beside those that it has, which are those of them with heads, called without them."""
    classes: dict[str, ModuleIR] = {m.class_name: m for m in unit.modules}
    for ir in unit.modules:
        if ir.head:
            made = replace(ir, class_name=headless(ir.class_name), head="", graph=_without(ir, classes))
            classes[made.class_name] = made
    return replace(unit, modules=tuple(classes.values()))


def headless(class_name: str) -> str:
    """What a class is called where it is called without its head."""
    return f"{class_name}, no head"


def is_headless(call: Node) -> bool:
    """Whether a call of a module leaves its head out."""
    return any(attr is False for attr in call.attrs.values())


def _without(ir: ModuleIR, classes: Mapping[str, ModuleIR]) -> Graph:
    """The graph of a module up to what goes into its head."""
    last = _last(ir.graph)
    assert last is not None
    rest = tuple(node for node in ir.graph.nodes if node is not last)
    if last.op.name != CALL:
        return prune(replace(ir.graph, nodes=rest, outputs=last.values[:1]))
    member = ir.members[last.layer]
    assert isinstance(member, ModuleMember)
    below = classes[headless(member.class_name)]
    width = below.graph.outputs[0].type.shape[-1].substitute(dict(bound(below, member, {})))
    scores = last.output
    hidden = Value(TensorType(scores.type.dtype, (*scores.type.shape[:-1], width)), "hidden")
    told = replace(last, attrs=dict.fromkeys(last.attrs, False), outputs=(hidden,))
    return replace(ir.graph, nodes=(*rest, told), outputs=(hidden,))
