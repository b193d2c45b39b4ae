"""Make, check and load splits: the only place that decides who is labelled."""

from nnunet_limited.splits.check import Fold, Split, load_host_split, load_split, parse_folds, split_file, split_name
from nnunet_limited.splits.make import adopt_partition, create_split, make_split, write_split
from nnunet_limited.splits.request import SplitRequest

__all__ = [
    "Fold",
    "Split",
    "SplitRequest",
    "adopt_partition",
    "create_split",
    "load_host_split",
    "load_split",
    "make_split",
    "parse_folds",
    "split_file",
    "split_name",
    "write_split",
]
