"""Modules made: each elaborated for the arguments it is made with, to a class that stays generic in its sizes."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from tdsl.compiler.build import body, extern, members, parameters
from tdsl.compiler.build.assume import assume
from tdsl.compiler.build.bind import Given, match
from tdsl.compiler.build.expr import evaluate
from tdsl.compiler.build.frame import Frame, GraphBuilder
from tdsl.compiler.build.layers import LAYERS
from tdsl.compiler.build.sharing import shared
from tdsl.compiler.build.types import Binding, declared, new_sizes
from tdsl.compiler.build.unit import ConstantMember, ModuleIR, TensorMember
from tdsl.compiler.build.values import (
    FunctionRef,
    Instance,
    LayerInstance,
    LayerRef,
    ListInstance,
    ModuleInstance,
    ModuleRef,
    Observer,
    Semantic,
    Signature,
    Skip,
    describe,
)
from tdsl.compiler.ir import Graph, Scalar, Value
from tdsl.compiler.ops.infer import assuming, knowing
from tdsl.compiler.ops.op import Arg, Kind
from tdsl.compiler.size import Size, Symbol
from tdsl.dsl import ast
from tdsl.dsl.declared_names import walk
from tdsl.dsl.diagnostics import Diagnostic, ProgramError, Reporter, Span, fail
from tdsl.dsl.program import Constant, Program

# What has parameters.
Parametric = ast.Module | ast.ExternModule | ast.Function
_FUSIBLE = (Kind.POINTWISE, Kind.REDUCTION, Kind.ROW, Kind.RANDOM)


@dataclass(eq=False)
class Classes:
    """The classes of a program, in the order in which they can be defined."""

    program: Program
    reporter: Reporter
    found: dict[object, ModuleInstance] = field(default_factory=dict)
    order: list[ModuleIR] = field(default_factory=list)
    active: list[str] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)
    # Told what each expression, target, input and member is: for editors.
    observe: Observer | None = None
    sequential: LayerRef = field(default_factory=lambda: LayerRef(members.SEQUENTIAL))

    # Names -----------------------------------------------------------------------------------------------------------

    def lookup(self, name: str) -> Semantic | None:
        """A declaration of the program, or a built-in layer."""
        program = self.program
        if name in program.consts:
            return constant(program.consts[name])
        if name in program.functions:
            return FunctionRef(program.functions[name])
        if name in program.modules:
            return ModuleRef(program.modules[name])
        if name in program.externs:
            return ModuleRef(program.externs[name])
        if name == "Sequential":
            return self.sequential
        return LayerRef(LAYERS[name]) if name in LAYERS else None

    def names(self) -> list[str]:
        program = self.program
        return [
            *program.consts,
            *program.functions,
            *program.modules,
            *program.externs,
            *LAYERS,
            "Sequential",
            "size",
            "rearrange",
        ]

    @contextmanager
    def entering(self, name: str, span: Span) -> Iterator[None]:
        """Recursion, of modules or of functions, is an error."""
        if name in self.active:
            chain = " -> ".join([*self.active[self.active.index(name) :], name])
            help = "a loop of so many turns is `for i in range(n) { }`, of modules `[Block(dim) for i in range(n)]`"
            fail("E210", f"`{name}` contains itself", span, notes=(chain,), help=help)
        self.tried.add(name)
        self.active.append(name)
        try:
            yield
        finally:
            self.active.pop()

    # Construction ----------------------------------------------------------------------------------------------------

    def construct(self, ref: LayerRef | ModuleRef, args: Sequence[ast.Argument], span: Span, frame: Frame) -> Instance:
        if isinstance(ref, ModuleRef):
            return self._module(ref.decl, args, span, frame)
        if ref is self.sequential:
            elements = tuple(evaluate(a.value, frame) for a in args)
            return replace(self.listed(elements, span), sequential=True)
        return members.layer_instance(ref, args, span, frame)

    def listed(self, items: Sequence[Semantic], span: Span) -> ListInstance:
        """A list of modules; its elements are found at `0`, `1`, ... below it."""
        for item in items:
            if not isinstance(item, (LayerInstance, ModuleInstance, ListInstance)):
                help = "call it: `ReLU()`" if isinstance(item, (LayerRef, ModuleRef)) else None
                fail("E201", f"{describe(item)} in a list of modules", span, help=help)
        return ListInstance(tuple(i for i in items if isinstance(i, (LayerInstance, ModuleInstance, ListInstance))))

    def comprehension(self, expr: ast.Comprehension, frame: Frame) -> ListInstance:
        return members.comprehension(expr, frame)

    def _module(
        self, decl: ast.Module | ast.ExternModule, args: Sequence[ast.Argument], span: Span, frame: Frame
    ) -> ModuleInstance:
        signature = tuple(Arg(p.name, p.kind, None, p.default is None) for p in decl.params)
        given = match(decl.name, signature, args, lambda e: evaluate(e, frame), span)
        env = {name: value for name, _, value in self.given(decl, given)}
        made = self.instance(decl, env, span)
        positional = [p.name for p, a in zip(decl.params, args) if a.name is None]
        kept = [p for p in decl.params if p.name in given and p.kind not in ("fn", "module")]
        texts = tuple(("" if p.name in positional else p.name, parameters.attr(env[p.name])) for p in kept)
        if len(kept) != len(given):
            texts = tuple((p.name, parameters.attr(env[p.name])) for p in kept)
        return replace(made, env=env, args=texts)

    def given(self, decl: Parametric, found: Mapping[str, Given]) -> Iterator[tuple[str, str, Semantic]]:
        """Each parameter with its kind and what a call gives for it, or its default."""
        for param in decl.params:
            if param.name in found:
                value, at = found[param.name]
                if isinstance(decl, ast.Function) and isinstance(value, Value):
                    parameters.refuse_tensor(decl, param, value, at)
                yield param.name, param.kind, parameters.checked(decl.name, param, value, at)
            else:
                yield param.name, param.kind, self._default(decl, param)

    def _default(self, decl: Parametric, param: ast.Parameter) -> Semantic:
        assert param.default is not None
        others = {p.name for p in decl.params}
        named = next((n for n in walk(param.default) if isinstance(n, ast.Name) and n.id in others), None)
        if named is not None:
            help = "give it where the module is made"
            fail("E120", f"the default of `{param.name}` is another parameter, `{named.id}`", named.span, help=help)
        frame = Frame(self, GraphBuilder(decl.name), {})
        return parameters.checked(decl.name, param, evaluate(param.default, frame), param.default.span)

    def instance(self, decl: ast.Module | ast.ExternModule, env: Mapping[str, Semantic], span: Span) -> ModuleInstance:
        """The class of a module for these arguments, elaborated once."""
        key = (decl.name, tuple(parameters.key_of(v) for v in env.values()))
        if key not in self.found:
            for param in decl.params:
                _ = self._default(decl, param) if param.default is not None else None
            with self.entering(decl.name, span):
                if isinstance(decl, ast.ExternModule):
                    self.found[key] = self._extern(decl, env)
                else:
                    self.found[key] = self._elaborate(decl, env)
        return self.found[key]

    def alone(self, decl: ast.Module) -> None:
        """Elaborate a module that nothing makes, with its defaults; what has none stays unknown."""
        if any(p.default is None and p.kind in ("fn", "module") for p in decl.params):
            return
        env: dict[str, Semantic] = {
            p.name: self._default(decl, p) if p.default is not None else Scalar(None, "unknown") for p in decl.params
        }
        self.instance(decl, env, decl.name_span)

    def declared(self, decl: ast.ExternModule) -> None:
        """Check an extern module that nothing makes."""
        extern.check(decl)
        env: dict[str, Semantic] = {p.name: Scalar(None, "unknown") for p in decl.params}
        self._signature(extern.forward(decl), parameters.of_module(decl, env)[0])

    def function_alone(self, decl: ast.Function, frame: Frame) -> None:
        """Elaborate a function that nothing calls, for the types that it declares."""
        unknown = [p.kind for p in decl.params if p.default is None]
        if "fn" in unknown or "str" in unknown:
            return
        env = {p.name: self._default(decl, p) if p.default is not None else parameters.unknown(p) for p in decl.params}
        signature = self.function_signature(decl, env)
        values = [Value(type, name) for name, type in signature.inputs]
        frame.builder.inputs += values
        names, sizes = parameters.of_function(decl, env)
        frame.names |= {**names, **new_sizes([t for _, t in signature.inputs]), **{v.name: v for v in values}}
        for declared_input, value in zip(decl.inputs, values):
            frame.saw(declared_input, value)
        with self.entering(decl.name, decl.name_span), knowing(sizes), self._for_any(bool(unknown)):
            self.body(decl, frame, signature, {})

    @contextmanager
    def _for_any(self, unknown: bool) -> Iterator[None]:
        """Where a parameter is not known, that a value can't be told is no mistake."""
        if not unknown:
            yield
            return
        told, self.reporter = self.reporter, Reporter()
        try:
            yield
        finally:
            for each in self.reporter.diagnostics:
                if each.code != "E208":
                    told.add(each)
            self.reporter = told

    # Elaboration -----------------------------------------------------------------------------------------------------

    def _elaborate(self, decl: ast.Module, env: Mapping[str, Semantic]) -> ModuleInstance:
        names, sizes = parameters.of_module(decl, env)
        with knowing(sizes):
            frame = Frame(self, GraphBuilder(decl.name), names)
            made = {}
            frame.awaited = frozenset(member.name for member in decl.members)
            self._assumed(decl, frame)
            for member in decl.members:
                with body.guarded(self.reporter, frame, [member.name]):
                    made[member.name] = members.member(member, frame)
                    frame.saw(member, frame.names[member.name])
            signature = Signature((), ())
            graph = frame.builder.graph((), sizes)
            if decl.forward is not None:
                signature = self._signature(decl.forward, frame.names)
                # After a mistake in the body, callers still have the signature to go on with.
                with body.guarded(self.reporter, frame, []):
                    graph = self._forward(decl.forward, frame, signature, sizes)
            self._sizes_told(decl, made)
            irs = {name: members.member_ir(m) for name, m in made.items()}
        ir = ModuleIR(decl.name, decl, parameters.declared(decl, env), irs, members.ties(made, frame), graph, decl.doc)
        ir = shared(ir, self.order, self.program.modules)
        return ModuleInstance(decl, env, ir, signature, (), self._inlined(ir))

    def _extern(self, decl: ast.ExternModule, env: Mapping[str, Semantic]) -> ModuleInstance:
        """A Python class for these arguments."""
        extern.check(decl)
        names, sizes = parameters.of_module(decl, env)
        with knowing(sizes):
            signature = self._signature(extern.forward(decl), names)
        made = extern.module_ir(decl, parameters.declared(decl, env), signature)
        ir = shared(made, self.order, self.program.modules)
        return ModuleInstance(decl, env, ir, signature, (), False)

    def _sizes_told(self, decl: ast.Module, made: Mapping[str, object]) -> None:
        """Tell of each `_` that no call has given a size."""
        spans = {member.name: member.span for member in decl.members}
        for name, each in made.items():
            for path in members.unknown_sizes(each) if not self.reporter.errors else ():
                message, help = f"the size `_` of `{path}` is not known", "call it in `forward`, or write the size"
                self.reporter.add(Diagnostic("E208", message, spans[name], "nothing gives it a tensor", help=help))

    def _assumed(self, decl: ast.Module, frame: Frame) -> None:
        """What `forward` states of the parameters holds for the members too."""
        names = {param.name for param in decl.params}
        for condition in _stated(decl.forward, names) if decl.forward is not None else ():
            with body.guarded(self.reporter, frame, []):
                assume(condition, frame)

    def _forward(self, decl: ast.Function, frame: Frame, signature: Signature, sizes: Mapping[Symbol, int]) -> Graph:
        values = [Value(type, name) for name, type in signature.inputs]
        frame.builder.inputs += values
        frame.names |= new_sizes([t for _, t in signature.inputs])
        frame.names |= {v.name: v for v in values}
        for declared_input, value in zip(decl.inputs, values):
            frame.saw(declared_input, value)
            frame.builder.given[value] = declared_input.span
        outputs = self.body(decl, frame, signature, {})
        return frame.builder.graph(outputs, sizes)

    def _signature(self, decl: ast.Function, names: Mapping[str, Semantic]) -> Signature:
        frame = Frame(self, GraphBuilder(decl.name), dict(names))
        # `float[B, 2 * T]` may stand before the input that binds `T`.
        lone = [d.id for i in decl.inputs for d in i.type.dims or () if isinstance(d, ast.Name) and d.id[0].isupper()]
        frame.names |= {
            name: Scalar(Size.of(Symbol(name))) for name in lone if name not in {*names, *self.program.consts}
        }
        inputs = tuple((i.name, declared(i.type, names, True, lambda e: evaluate(e, frame))) for i in decl.inputs)
        frame.names |= new_sizes([t for _, t in inputs])
        with assuming():
            # What the body states of its sizes holds for those of its results; mistakes are told with the body.
            for condition in _stated(decl, frame.names):
                with suppress(ProgramError, Skip):
                    assume(condition, frame)
            outputs = tuple(declared(t, frame.names, False, lambda e: evaluate(e, frame)) for t in decl.outputs)
        return Signature(inputs, outputs)

    def function_signature(self, decl: ast.Function, env: Mapping[str, Semantic]) -> Signature:
        # In its own words, of which nothing is known that its caller knows of the same words.
        names, sizes = parameters.of_function(decl, env)
        with knowing(sizes):
            return self._signature(decl, names)

    def sizes(self, binding: Binding) -> dict[str, Semantic]:
        """What a call bound, as the names of the body that is inlined."""
        return {s.name: Scalar(shape[0]) for s, shape in binding.items() if len(shape) == 1 and not s.param}

    def body(self, decl: ast.Function, frame: Frame, signature: Signature, binding: Binding) -> tuple[Value, ...]:
        return body.run(decl, frame, signature, binding, self.reporter)

    def inline(
        self, instance: ModuleInstance, values: Sequence[Value], binding: Binding, span: Span, frame: Frame
    ) -> tuple[Value, ...]:
        """Elaborate a module's body again where it is called; its parameters are reached through its path."""
        decl = instance.decl
        assert isinstance(decl, ast.Module)
        assert decl.forward is not None
        path = f"{frame.path}.{instance.path}" if frame.path else instance.path
        names: dict[str, Semantic] = {}
        for param in decl.params:
            value = instance.env[param.name]
            if param.kind == "float" and isinstance(value, Scalar):
                value = Scalar(value.value, f"{frame.builder.owner}{_as_python(path)}.{param.name}")
            names[param.name] = value
        names |= self.sizes(binding)
        inner = frame.inner(names, path, decl.name)
        self._assumed(decl, inner)
        for member in decl.members:
            names[member.name] = members.inlined(member, inner)
        names |= dict(zip((i.name for i in decl.forward.inputs), values))
        return self.body(decl.forward, inner, instance.signature, binding)

    def _inlined(self, ir: ModuleIR) -> bool:
        nodes = ir.graph.nodes
        plain = all(isinstance(m, (TensorMember, ConstantMember)) for m in ir.members.values())
        computed = [n for n in nodes if n.op.cut is None]
        return plain and bool(computed) and all(n.op.fusible and n.op.kind in _FUSIBLE for n in computed)


def _as_python(path: str) -> str:
    """`blocks.0.norm` as `blocks[0].norm`."""
    return re.sub(r"\.(\d+)", r"[\1]", path)


def constant(value: Constant) -> Semantic:
    """A folded constant as a value of a body."""
    if isinstance(value, tuple):
        return tuple(constant(v) for v in value)
    return value if isinstance(value, str) else Scalar(value)  # type: ignore[arg-type]


def _stated(decl: ast.Function, names: Container[str]) -> list[ast.Expr]:
    """What a body assumes of these names alone, in its own statements."""
    conditions = [s.condition for s in decl.body if isinstance(s, ast.Assume)]
    return [c for c in conditions if all(n.id in names for n in walk(c) if isinstance(n, ast.Name))]
