"""What only a GPU can show, and `python -m tests.gpu`, which `make gpu` runs."""
