"""The recipe on the results of queries (nnActive, Lüth et al., TMLR 2025, arXiv 2511.19183, trains on partial labels).

Drawing the latest annotations more often is our addition.
"""

from typing import Any

import numpy as np
from pydantic import Field

from nnunet_limited.engine.run import Run, check_unlabeled
from nnunet_limited.host.loaders import loader_attribute
from nnunet_limited.trainers.sparse.scribbles import LimitedSparseTrainer, SparseConfig
from nnunet_limited.trainers.two_stage.recipe import LimitedRecipeTrainer, RecipeConfig


class ActiveConfig(SparseConfig, RecipeConfig):
    """Settings of the recipe on what queries have brought."""

    queried_fraction: float = Field(
        0.5, ge=0, le=1, description="smallest fraction of labelled crops from cases of the last query"
    )


class LimitedActiveTrainer(LimitedSparseTrainer, LimitedRecipeTrainer):
    """The recommended recipe for rounds of queries: annotated cases and patches, and pseudo-labels on the rest.

    At least half of the labelled crops come from the cases of the last round; in partly annotated cases crops lie
    around the annotated voxels. With a split that absorb has not made it trains on sparse
    labels and pseudo-labels, without a preference for some cases.
    """

    Config = ActiveConfig

    @classmethod
    def check_unlabeled(cls, run: Run, config: Any) -> None:
        """Refuse a fold without unlabelled cases: pseudo-labels are of those alone."""
        check_unlabeled(run, cls.__name__)
        super().check_unlabeled(run, config)

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Return the loaders; the labelled one draws more of what was queried last."""
        train, val = super().get_dataloaders()
        labeled = getattr(train, loader_attribute(train)).labeled  # its workers start with the first batch
        labeled.sampling_probabilities = sampling(
            labeled.indices, self.run.split.info.get("queried", ()), self.config.queried_fraction
        )
        return train, val


def sampling(cases: list[str], queried: list[str], fraction: float) -> np.ndarray | None:
    """Return the probability of each of ``cases`` (n,), with a sum over the ``queried`` ones of at least ``fraction``.

    None if equal probabilities give that.
    """
    mine = np.isin(cases, list(queried))
    if not mine.any() or mine.mean() >= fraction:
        return None
    return np.where(mine, fraction / mine.sum(), (1 - fraction) / (~mine).sum())
