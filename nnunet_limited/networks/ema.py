"""A teacher that is the moving average of its student."""

import copy

import torch
from torch import nn


def unwrap(network: nn.Module) -> nn.Module:
    """Return the plain module inside DistributedDataParallel and torch.compile wrappers."""
    if isinstance(network, nn.parallel.DistributedDataParallel):
        network = network.module
    return getattr(network, "_orig_mod", network)


def ema_decay(iteration: int, maximum: float) -> float:
    """Return the decay after ``iteration`` (0, 1, …): ``min(1 - 1 / (iteration + 1), maximum)``.

    Early on the teacher is the plain mean of all students so far, so it does not remember the initialisation
    (Tarvainen & Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv 1703.01780).
    """
    return min(1 - 1 / (iteration + 1), maximum)


def window_decay(iteration: int, window: float) -> float:
    """Return the decay after ``iteration`` (0, 1, …) of an average over the fraction ``window`` of the steps so far.

    Step ``s`` has a weight in proportion to ``s ** (1 / window - 1)``, at any time of a run of any length (Karras et
    al., CVPR 2024, arXiv 2312.02696). With a fixed decay the teacher of a short run stays behind its student, and that
    of a long one averages next to nothing; a fixed window lags while the student learns fast.
    """
    return 1 - 1 / max(1.0, window * (iteration + 1))


def make_teacher(student: nn.Module) -> nn.Module:
    """Return a frozen copy of the student in evaluation mode, outside any wrapper."""
    teacher = copy.deepcopy(unwrap(student)).eval()
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    return teacher


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Set ``teacher = decay * teacher + (1 - decay) * student`` in place; buffers are copied.

    Parameters are visited once each, however many names they have: nnU-Net's decoder holds its encoder, so
    ``state_dict()`` lists most tensors several times and averaging over it would decay them several times.
    """
    plain = unwrap(student)
    for mine, theirs in zip(teacher.parameters(), plain.parameters(), strict=True):
        mine.lerp_(theirs.detach(), 1 - decay)
    for kept, copied in zip(teacher.buffers(), plain.buffers(), strict=True):
        kept.copy_(copied)
