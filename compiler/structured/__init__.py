"""Kernels that are more than elements and rows: a template each, with what varies hooked in."""

from __future__ import annotations

from tdsl.compiler.structured import cross_entropy, linear_cross_entropy
from tdsl.compiler.structured.template import TEMPLATES, Case, Naming, Template, register, template_of

__all__ = [
    "TEMPLATES",
    "Case",
    "Naming",
    "Template",
    "cross_entropy",
    "linear_cross_entropy",
    "register",
    "template_of",
]
