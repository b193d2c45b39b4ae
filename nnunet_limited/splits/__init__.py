"""Make, check and load splits: the only place that decides who is labelled."""

from nnunet_limited.splits.check import Fold, Split, load_host_split, load_split, parse_folds, split_file, split_name
from nnunet_limited.splits.make import SplitRequest, adopt_partition, make_split, write_split

__all__ = [
    "Fold",
    "Split",
    "SplitRequest",
    "adopt_partition",
    "load_host_split",
    "load_split",
    "make_split",
    "parse_folds",
    "split_file",
    "split_name",
    "write_split",
]
