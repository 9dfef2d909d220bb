"""PyTorch's own samples of its operators (OpInfo), each as a program of one operation.

`python -m tests.opinfo [NAME ...] [--list] [--failures]` runs every float32 sample of each operation that the language
has: as a module that calls it by name, as a method or as an operator, emitted as plain PyTorch, and, where kernels can
compute the operation, in a kernel (Triton's interpreter) and its reference. Results and gradients are compared with
those of the OpInfo's own operator.
"""
