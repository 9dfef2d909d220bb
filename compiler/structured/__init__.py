"""Kernels that are more than elements and rows: a template each, with what varies hooked in."""

from __future__ import annotations

from tdsl.compiler.structured import (
    attention,
    batch_norm,
    cross_entropy,
    embedding,
    linear_cross_entropy,
    rope,
    split_rope,
)
from tdsl.compiler.structured.template import TEMPLATES, Case, Naming, Template, register, template_of

__all__ = ["TEMPLATES", "Case", "Naming", "Template", "register", "template_of"]

# To import a template is to register it.
KNOWN = (attention, batch_norm, cross_entropy, embedding, linear_cross_entropy, rope, split_rope)
