"""What a training step costs, line by line: kernels, bytes, FLOPs, what is kept, and why what did not fuse did not."""
