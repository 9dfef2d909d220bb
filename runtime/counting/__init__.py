"""Counting what a training step launches and moves, on a GPU that need not be there."""
