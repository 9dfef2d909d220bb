"""The rows of the table, by number: what each measures, against whom, with what floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.bench import Bench, Case
from benchmarks.rows import attention, elements, losses, norms, optimizer, start, training

# Each row's cases, made one after the other: what one holds is gone before the next.
ROWS: Mapping[int, tuple[Callable[[Bench], Case], ...]] = {
    1: (lambda bench: losses.cross_entropy(bench, 8192, 50304),),
    2: (lambda bench: losses.cross_entropy(bench, 8192, 128256),),
    3: (lambda bench: losses.linear_cross_entropy(bench, 8192, 4096, 128256),),
    4: (lambda bench: losses.linear_cross_entropy(bench, 65536, 768, 50304),),
    5: (lambda bench: norms.add_rms_norm(bench, 16384, 4096),),
    6: (lambda bench: norms.dropout_add_layer_norm(bench, 65536, 768),),
    7: (lambda bench: elements.swiglu(bench, 8192, 14336),),
    8: (lambda bench: elements.rope(bench, 4, 4096, 32, 8, 128),),
    9: (optimizer.Optimizer,),
    10: (
        lambda bench: attention.causal(bench, 64, 12, 1024, 64),
        lambda bench: attention.causal(bench, 4, 32, 4096, 128),
    ),
    11: (
        lambda bench: elements.linear_gelu(bench, 65536, 768, 3072, backward=False),
        lambda bench: elements.linear_gelu(bench, 65536, 768, 3072, backward=True),
    ),
    12: (training.gpt2,),
    15: (training.mlp,),
    16: (start.FirstStep,),
}
