"""Windows to query: patches of a few cases, and whole cases."""

import itertools

from nnunet_limited.queries.windows import Granularity, Window


def patches(cases=4, shape=(6, 24, 24), size=(3, 8, 8)):
    return [
        window
        for number in range(cases)
        for window in Granularity("patch", size=size).window_grid(shape, (1, 1, 1), "").windows(f"case_{number}")
    ]


def whole_cases(count):
    return [Window(f"case_{number:03d}", (0, 0, 0), (6, 24, 24)) for number in range(count)]


def share_a_voxel(a, b):
    sets = [set(itertools.product(*(range(s, s + n) for s, n in zip(r.start, r.size, strict=True)))) for r in (a, b)]
    return a.case == b.case and bool(sets[0] & sets[1])
