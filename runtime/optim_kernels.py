"""Triton kernels of the optimizers: one launch updates all tensors, one sums the squares of all gradients.

Tensors are told by a table `tensors` of int64, a row of `WIDTH` for each:

    elements, hyperparameters, learning rate, parameter, gradient, copy in low precision, state 1, state 2, state 3

All but the first are addresses, 0 where there is nothing; a parameter without a gradient is left as it is. The
hyperparameters are a row of float32 for each group of the optimizer, in the order in which its `_numbers` reads them;
the rate is a float32 of its own, so that it can be a tensor that others write.

A program works on `CHUNK` elements of one tensor: `chunks` [programs, 2] has the tensor's row and the number of the
chunk. Its own count of steps is in `counts` [programs], where no other program reads or writes: so steps are counted on
the device within the one launch, and all programs of a tensor agree.
"""

# Triton reads the source of these functions: no annotations but `tl.constexpr`, no postponed evaluation.
# mypy: ignore-errors

import triton
import triton.language as tl

from tdsl.runtime import triton_math as tm

WIDTH = tl.constexpr(9)


# Rules ----------------------------------------------------------------------------------------------------------------
# A rule is two functions: one from a group's hyperparameters, the rate and the count of steps (from 1) to the numbers
# that hold for a whole tensor, one from an element and these to its new values. FLAGS change the formula.


@triton.jit
def sgd_numbers(group, rate, count, FLAGS: tl.constexpr):
    return tl.load(group), tl.load(group + 1), tl.load(group + 2), tl.load(group + 3), rate, count == 1


@triton.jit
def sgd(p, g, velocity, b, c, numbers, FLAGS: tl.constexpr):
    """`torch.optim.SGD`. FLAGS: momentum; Nesterov's. The first velocity is the gradient itself."""
    sign, decay, momentum, undamped, rate, first = numbers
    g = sign * g
    g = tl.where(decay != 0, g + decay * p, g)
    if FLAGS[0]:
        velocity = tl.where(first, g, momentum * velocity + undamped * g)
        if FLAGS[1]:
            g += momentum * velocity
        else:
            g = velocity
    return p - rate * g, velocity, b, c


@triton.jit
def _lerp(start, end, weight):
    """`torch.lerp`, from whichever end is nearer: what is small beside the other would be lost to rounding."""
    return tl.where(weight < 0.5, start + weight * (end - start), end - (end - start) * (1.0 - weight))


@triton.jit
def adam_numbers(group, rate, count, FLAGS: tl.constexpr):
    """The corrections of the biases are 1 - beta^count, which in float32 cancels unless computed by `expm1`."""
    decay = tl.load(group + 1)
    if FLAGS[1]:
        decay = 1.0 - rate * decay
    step = tl.div_rn(rate, -tm.expm1(count * tl.load(group + 6)))
    root = tl.sqrt_rn(-tm.expm1(count * tl.load(group + 7)))
    return (
        tl.load(group),
        decay,
        tl.load(group + 2),
        tl.load(group + 3),
        tl.load(group + 4),
        tl.load(group + 5),
        step,
        root,
    )


@triton.jit
def adam(p, g, mean, square, largest, numbers, FLAGS: tl.constexpr):
    """`torch.optim.Adam` and `AdamW`. FLAGS: AMSGrad; weight decay apart from the gradient."""
    sign, decay, weight1, beta2, weight2, eps, step, root = numbers
    g = sign * g
    if FLAGS[1]:
        p *= decay
    else:
        g = tl.where(decay != 0, g + decay * p, g)
    mean = _lerp(mean, g, weight1)
    square = beta2 * square + weight2 * g * g
    size = square
    if FLAGS[0]:
        largest = tm.maximum(largest, square)
        size = largest
    p -= step * tl.div_rn(mean, tl.div_rn(tl.sqrt_rn(size), root) + eps)
    return p, mean, square, largest


@triton.jit
def rmsprop_numbers(group, rate, count, FLAGS: tl.constexpr):
    return (
        tl.load(group),
        tl.load(group + 1),
        tl.load(group + 2),
        tl.load(group + 3),
        tl.load(group + 4),
        tl.load(group + 5),
        rate,
    )


@triton.jit
def rmsprop(p, g, square, velocity, mean, numbers, FLAGS: tl.constexpr):
    """`torch.optim.RMSprop`. FLAGS: momentum; centered."""
    sign, decay, alpha, weight, eps, momentum, rate = numbers
    g = sign * g
    g = tl.where(decay != 0, g + decay * p, g)
    square = alpha * square + weight * g * g
    size = square
    if FLAGS[1]:
        mean = _lerp(mean, g, weight)
        # The variance of gradients that hardly change may be rounded to less than 0.
        size = square - mean * mean
        size = tl.where(size < 0, 0.0, size)
    change = tl.div_rn(g, tl.sqrt_rn(size) + eps)
    if FLAGS[0]:
        velocity = momentum * velocity + change
        change = velocity
    return p - rate * change, square, velocity, mean


@triton.jit
def lion_numbers(group, rate, count, FLAGS: tl.constexpr):
    return 1.0 - rate * tl.load(group), tl.load(group + 1), tl.load(group + 2), rate


@triton.jit
def lion(p, g, mean, b, c, numbers, FLAGS: tl.constexpr):
    """`tdsl.runtime.optim.Lion`."""
    decay, weight1, weight2, rate = numbers
    p = p * decay - rate * tm.sign(_lerp(mean, g, weight1))
    return p, _lerp(mean, g, weight2), b, c


# All tensors ----------------------------------------------------------------------------------------------------------


@triton.jit
def _read(address, at, inside, DTYPE: tl.constexpr, WHOLE: tl.constexpr):
    """A block of a tensor as float32. A whole one is read four elements at once: its address is known to allow it."""
    pointer = address.to(tl.pointer_type(DTYPE))
    if WHOLE:
        found = tl.load(tl.multiple_of(pointer, DTYPE.primitive_bitwidth // 2) + at)
    else:
        found = tl.load(pointer + at, mask=inside, other=0.0)
    return found.to(tl.float32)


@triton.jit
def _write(address, at, inside, value, DTYPE: tl.constexpr, WHOLE: tl.constexpr):
    pointer = address.to(tl.pointer_type(DTYPE))
    if WHOLE:
        tl.store(tl.multiple_of(pointer, DTYPE.primitive_bitwidth // 2) + at, value.to(DTYPE))
    else:
        tl.store(pointer + at, value.to(DTYPE), mask=inside)


@triton.jit
def _block(
    addresses, at, inside, factor, numbers, RULE: tl.constexpr, FLAGS: tl.constexpr, STATES: tl.constexpr,
    DTYPE: tl.constexpr, GRADIENT: tl.constexpr, COPY: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    parameter, gradient, copy, first, second, third = addresses
    p = _read(parameter, at, inside, DTYPE, WHOLE)
    g = factor * _read(gradient, at, inside, GRADIENT, WHOLE)
    a, b, c = p, p, p
    if STATES[0]:
        a = _read(first, at, inside, DTYPE, WHOLE)
    if STATES[1]:
        b = _read(second, at, inside, DTYPE, WHOLE)
    if STATES[2]:
        c = _read(third, at, inside, DTYPE, WHOLE)
    p, a, b, c = RULE(p, g, a, b, c, numbers, FLAGS)
    _write(parameter, at, inside, p, DTYPE, WHOLE)
    if COPY is not None and copy != 0:
        _write(copy, at, inside, p, COPY, WHOLE)
    if STATES[0]:
        _write(first, at, inside, a, DTYPE, WHOLE)
    if STATES[1]:
        _write(second, at, inside, b, DTYPE, WHOLE)
    if STATES[2]:
        _write(third, at, inside, c, DTYPE, WHOLE)


@triton.jit
def _update(
    tensors, chunks, counts, factor, scale, overflow, NUMBERS: tl.constexpr, RULE: tl.constexpr, FLAGS: tl.constexpr,
    STATES: tl.constexpr, DTYPE: tl.constexpr, GRADIENT: tl.constexpr, COPY: tl.constexpr, CLIPPED: tl.constexpr,
    SCALED: tl.constexpr, CHECKED: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A step of the optimizer. STATES tells which of the three a rule has, COPY the dtype of copies, if there are any.

    Gradients are multiplied by `factor` (CLIPPED) and divided by `scale` (SCALED); nothing happens where `overflow` is
    not 0 (CHECKED).
    """
    program = tl.program_id(0)
    row = tensors + tl.load(chunks + 2 * program).to(tl.int64) * WIDTH
    gradient = tl.load(row + 4)
    active = gradient != 0
    if CHECKED:
        active = active & (tl.load(overflow) == 0)
    if active:
        count = tl.load(counts + program) + 1
        # One thread writes what all read: none before the others have.
        tl.debug_barrier()
        tl.store(counts + program, count)
        multiplier = 1.0
        if CLIPPED:
            multiplier = tl.load(factor)
        if SCALED:
            multiplier = tl.div_rn(multiplier, tl.load(scale))
        rate = tl.load(tl.load(row + 2).to(tl.pointer_type(tl.float32)))
        numbers = NUMBERS(tl.load(row + 1).to(tl.pointer_type(tl.float32)), rate, count, FLAGS)
        addresses = tl.load(row + 3), gradient, tl.load(row + 5), tl.load(row + 6), tl.load(row + 7), tl.load(row + 8)
        together = addresses[0] | addresses[1] | addresses[2] | addresses[3] | addresses[4] | addresses[5]
        start = tl.load(chunks + 2 * program + 1).to(tl.int64) * CHUNK
        end = tl.minimum(tl.load(row), start + CHUNK)
        whole = tl.where(together % 16 == 0, (end - start) // BLOCK, 0)
        columns = tl.arange(0, BLOCK)
        for i in range(whole):
            at = start + i * BLOCK + columns
            _block(addresses, at, at < end, multiplier, numbers, RULE, FLAGS, STATES, DTYPE, GRADIENT, COPY, True)
        # Ends, and tensors that begin anywhere, in smaller blocks: they would decide how many registers it takes.
        columns = tl.arange(0, BLOCK // 4)
        for begin in range(start + whole * BLOCK, end, BLOCK // 4):
            at = begin + columns
            _block(addresses, at, at < end, multiplier, numbers, RULE, FLAGS, STATES, DTYPE, GRADIENT, COPY, False)


@triton.jit
def _squares(tensors, chunks, partials, GRADIENT: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr):
    """The sum of a chunk's squared gradients, to `partials` [programs]."""
    program = tl.program_id(0)
    row = tensors + tl.load(chunks + 2 * program).to(tl.int64) * WIDTH
    gradient = tl.load(row + 4)
    start = tl.load(chunks + 2 * program + 1).to(tl.int64) * CHUNK
    end = tl.where(gradient != 0, tl.minimum(tl.load(row), start + CHUNK), start)
    whole = tl.where(gradient % 16 == 0, (end - start) // BLOCK, 0)
    columns = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for i in range(whole):
        g = _read(gradient, start + i * BLOCK + columns, columns < BLOCK, GRADIENT, True)
        total += g * g
    for begin in range(start + whole * BLOCK, end, BLOCK):
        g = _read(gradient, begin + columns, begin + columns < end, GRADIENT, False)
        total += g * g
    tl.store(partials + program, tl.sum(total, axis=0))


@triton.jit
def _clip(partials, programs, most, factor, found, CLIPPED: tl.constexpr, BLOCK: tl.constexpr):
    """The norm of all gradients, and what to multiply them by: `found` [2]. One program adds, always in one order.

    Gradients are already to be multiplied by `factor` (CLIPPED). As in `torch.nn.utils.clip_grad_norm_`, a norm that is
    not a number makes the factor none, an infinite one makes it 0.
    """
    columns = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, programs, BLOCK):
        total += tl.load(partials + start + columns, mask=start + columns < programs, other=0.0)
    norm = tl.sqrt_rn(tl.sum(total, axis=0))
    if CLIPPED:
        norm *= tl.load(factor)
    shrunk = tl.div_rn(most, norm + 1e-6)
    shrunk = tl.where(shrunk > 1.0, 1.0, shrunk)
    if CLIPPED:
        shrunk *= tl.load(factor)
    tl.store(found, norm)
    tl.store(found + 1, shrunk)
