"""A small declarative language for neural networks, and its compiler."""

from __future__ import annotations

__version__ = "0.1.0"
