"""What nnU-Net finds in this folder, which ``nnUNet_extTrainer`` names: the trainers, re-exported.

Only a re-export keeps the classes' real module, so that they stay one object over repeated look-ups and pickle.
"""

from nnunet_limited.trainers import *  # noqa: F403
