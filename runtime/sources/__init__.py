"""Data files read into tables of columns.

Every reader of files takes the folder that paths are relative to and a path or a glob, whose files are read in sorted
order, one below the other. A path may leave the folder, by `..`, a link or as an absolute path, only with
`allow_outside`. All raise `DataError` for what can't be read.
"""

from tdsl.runtime.columns import Values
from tdsl.runtime.data_error import DataError
from tdsl.runtime.sources.arrays import npy, npz, safetensors
from tdsl.runtime.sources.arrow import csv, jsonl, parquet
from tdsl.runtime.sources.datasets import huggingface, python, torchvision
from tdsl.runtime.sources.drawn import synthetic
from tdsl.runtime.sources.idx_format import idx
from tdsl.runtime.sources.images import class_names, image_files, image_folder
from tdsl.runtime.sources.once import once
from tdsl.runtime.sources.texts import Tokenizer, characters, hf, text, tokens
from tdsl.runtime.statistics import Statistics
from tdsl.runtime.table import Fields, Table

__all__ = [
    "DataError",
    "Fields",
    "Statistics",
    "Table",
    "Tokenizer",
    "Values",
    "characters",
    "class_names",
    "csv",
    "hf",
    "huggingface",
    "idx",
    "image_files",
    "image_folder",
    "jsonl",
    "npy",
    "npz",
    "once",
    "parquet",
    "python",
    "safetensors",
    "synthetic",
    "text",
    "tokens",
    "torchvision",
]
