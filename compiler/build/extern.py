"""`extern module`: a Python class, typed by its declaration alone."""

from __future__ import annotations

import keyword
import re

from tdsl.compiler.build.unit import ModuleIR, ParameterIR
from tdsl.compiler.build.values import Signature
from tdsl.compiler.ir import Graph, Value
from tdsl.dsl import ast
from tdsl.dsl.diagnostics import fail

TARGET = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*")


def check(decl: ast.ExternModule) -> None:
    """Refuse a target that is no class of a Python module, and parameters that no Python class takes."""
    words = re.split("[.:]", decl.target)
    if not TARGET.fullmatch(decl.target) or any(map(keyword.iskeyword, words)):
        help = 'write "package.module:Class", as in "mypackage.backbones:ResNet"'
        fail("E211", "this names no Python class", decl.target_span, help=help)
    for param in decl.params:
        if param.kind in ("fn", "module"):
            help = "give it a number, a truth value or a string"
            what = f"a Python class takes no {param.kind} of this language"
            fail("E211", what, param.span, f"`{param.name}`", help=help)


def target(ir: ModuleIR) -> tuple[str, str] | None:
    """The Python module and the class that a module of the program stands for."""
    if not isinstance(ir.source, ast.ExternModule):
        return None
    package, _, name = ir.source.target.partition(":")
    return package, name


def forward(decl: ast.ExternModule) -> ast.Function:
    """The declaration's types as those of a `forward` whose inputs are given by position."""
    names = ["input"] if len(decl.inputs) == 1 else [f"input{i}" for i in range(len(decl.inputs))]
    inputs = tuple(ast.Input(type.span, name, type) for name, type in zip(names, decl.inputs))
    return ast.Function(decl.span, "forward", decl.name_span, "", inputs, decl.outputs, ())


def module_ir(decl: ast.ExternModule, params: tuple[ParameterIR, ...], signature: Signature) -> ModuleIR:
    """A module without a body of its own."""
    inputs = tuple(Value(type, name) for name, type in signature.inputs)
    return ModuleIR(decl.name, decl, params, {}, (), Graph(decl.name, inputs, (), (), ()), decl.doc)
