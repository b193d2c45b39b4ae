"""Make, check and load splits: the only place that decides who is labelled."""

from nnunet_limited.splits.check import Fold, Split, load_host_split, load_split, parse_folds, split_file, split_name
from nnunet_limited.splits.request import SplitRequest

__all__ = ["Fold", "Split", "SplitRequest", "load_host_split", "load_split", "parse_folds", "split_file", "split_name"]
