"""The field's short names.

Subclasses rather than other names of the same class, because nnU-Net names the results folder after the class when it
trains and after ``-tr`` when it predicts.
"""

from nnunet_limited.trainers.semi_supervised.bcp import LimitedBidirectionalCopyPasteTrainer
from nnunet_limited.trainers.semi_supervised.cct import LimitedCrossConsistencyTrainer
from nnunet_limited.trainers.semi_supervised.cps import LimitedCrossPseudoSupervisionTrainer
from nnunet_limited.trainers.semi_supervised.dan import LimitedAdversarialTrainer
from nnunet_limited.trainers.semi_supervised.dct import LimitedDeepCoTrainingTrainer
from nnunet_limited.trainers.semi_supervised.ict import LimitedInterpolationConsistencyTrainer
from nnunet_limited.trainers.semi_supervised.uamt import LimitedUncertaintyAwareMeanTeacherTrainer
from nnunet_limited.trainers.semi_supervised.urpc import LimitedUncertaintyRectifiedPyramidTrainer


class LimitedUAMTTrainer(LimitedUncertaintyAwareMeanTeacherTrainer):
    """Short name of :class:`LimitedUncertaintyAwareMeanTeacherTrainer`."""


class LimitedICTTrainer(LimitedInterpolationConsistencyTrainer):
    """Short name of :class:`LimitedInterpolationConsistencyTrainer`."""


class LimitedURPCTrainer(LimitedUncertaintyRectifiedPyramidTrainer):
    """Short name of :class:`LimitedUncertaintyRectifiedPyramidTrainer`."""


class LimitedCPSTrainer(LimitedCrossPseudoSupervisionTrainer):
    """Short name of :class:`LimitedCrossPseudoSupervisionTrainer`."""


class LimitedCCTTrainer(LimitedCrossConsistencyTrainer):
    """Short name of :class:`LimitedCrossConsistencyTrainer`."""


class LimitedDCTTrainer(LimitedDeepCoTrainingTrainer):
    """Short name of :class:`LimitedDeepCoTrainingTrainer`."""


class LimitedDANTrainer(LimitedAdversarialTrainer):
    """Short name of :class:`LimitedAdversarialTrainer`."""


class LimitedBCPTrainer(LimitedBidirectionalCopyPasteTrainer):
    """Short name of :class:`LimitedBidirectionalCopyPasteTrainer`."""


ALIASES = {
    cls.__name__: cls.__bases__[0].__name__
    for cls in (
        LimitedUAMTTrainer,
        LimitedICTTrainer,
        LimitedURPCTrainer,
        LimitedCPSTrainer,
        LimitedCCTTrainer,
        LimitedDCTTrainer,
        LimitedDANTrainer,
        LimitedBCPTrainer,
    )
}
