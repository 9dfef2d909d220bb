"""From a resolved program to IR."""

from __future__ import annotations
