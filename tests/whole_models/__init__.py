"""Small models written twice, in the language and by hand in PyTorch: each as a module whose result is the loss.

Parameters have the same names in both, so that one state serves either.
"""

from __future__ import annotations

from tests.whole_models import codes, images, perceptrons, sequences

PAIRS = {**perceptrons.PAIRS, **images.PAIRS, **sequences.PAIRS, **codes.PAIRS}
