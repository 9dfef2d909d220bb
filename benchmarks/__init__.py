"""How fast what is emitted runs, beside PyTorch and its peers: `python -m benchmarks.run --rows 1,2,5`."""
