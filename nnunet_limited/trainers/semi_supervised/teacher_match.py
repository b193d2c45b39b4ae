"""Hard labels of an averaged teacher on moved, strong and mixed views (after nnFilterMatch, 2025, arXiv 2509.19746).

nnFilterMatch takes quarter turns and mirror images of the student's own hard labels, every deep-supervision head, no
threshold and an early start. The averaged teacher is that of Tarvainen & Valpola (NeurIPS 2017, arXiv 1703.01780),
strong views and CutMix are those of FixMatch as in Yang et al. (CVPR 2023, arXiv 2208.09910).
"""

from pydantic import Field

from nnunet_limited.engine.settings import GeometricView, Heads
from nnunet_limited.trainers.components import LargestComponent
from nnunet_limited.trainers.semi_supervised.fixmatch import (
    FixMatchConfig,
    Labeler,
    LimitedFixMatchTrainer,
    Threshold,
)


class TeacherMatchConfig(FixMatchConfig):
    """Settings of FixMatch with the defaults of teacher match."""

    start_fraction: float = Field(
        0.05, ge=0, lt=1, description="fraction of the run before the unsupervised loss starts"
    )
    rampup_fraction: float = Field(
        0.0, ge=0, le=1, description="fraction of the run over which the weight of the unsupervised loss rises"
    )
    teacher: Labeler = "ema"
    confidence_threshold: Threshold = 0.0
    unsupervised_heads: Heads = "all"
    geometric_view: GeometricView = "both"
    components: LargestComponent = "auto"


class LimitedTeacherMatchTrainer(LimitedFixMatchTrainer):
    """Every hard label of the averaged teacher, moved and mixed with the student's strong view, on every head.

    It is FixMatch with other defaults: the weak view is labelled by the moving average of the student, no voxel is left
    out, the student's view is turned, mirrored, changed in intensity and mixed by CutMix, every deep-supervision head
    learns, and it starts early and at once. The teacher is validated, saved as ``network_weights`` and used for
    prediction.
    """

    Config = TeacherMatchConfig
    predictor_name = "teacher"
