"""The text of `kernels.py`."""

from __future__ import annotations

from collections.abc import Sequence

from tdsl import __version__
from tdsl.compiler.emit.groups import GroupText, group_text
from tdsl.compiler.emit.render import plain, render
from tdsl.compiler.ir import Group


def emit_kernels(groups: Sequence[Group], source: str) -> str:
    """All groups of a program, in order."""
    texts = [group_text(group) for group in groups]
    return render(
        "triton/kernels.py.jinja",
        source=plain(source),
        version=__version__,
        math=any("math." in line for g in texts for line in (*g.forward, *g.backward)),
        functional=any("F." in line for g in texts for line in g.reference),
        random=any(g.draws for g in texts),
        tm=any("tm." in line for g in texts for line in _kernel_lines(g)),
        once=not any(g.twice for g in texts),
        groups=texts,
    )


def _kernel_lines(group: GroupText) -> list[str]:
    return [line for kernel in group.kernels for line in kernel.lines]
