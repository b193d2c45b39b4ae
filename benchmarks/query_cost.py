"""What does scoring a pool cost beside the plain prediction of it, and does its memory stay flat?

For a trained model (as for 'nnunet-limited query'): the seconds a case of nnU-Net's own prediction with its export, as
'nnUNetv2_predict' does it from preprocessed images, and of scoring patches for a query; and the memory of the process
after each case that was scored.

    python benchmarks/query_cost.py DATASET CONFIGURATION -tr TRAINER -p PLANS --size 32x64x64 [--cases 20]

Exit status 1 if scoring takes more than 1.2 of the plain prediction, or memory grows by more than a tenth after the
first quarter of the cases.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TIME_LIMIT, MEMORY_LIMIT = 1.2, 1.1


def memory() -> float:
    """Return the memory of this process in MB, as the kernel counts it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    parser.add_argument("-tr", dest="trainer", required=True)
    parser.add_argument("-p", dest="plans", required=True)
    parser.add_argument("-f", dest="folds", type=int, nargs="+", default=[0])
    parser.add_argument("--size", default="32x64x64")
    parser.add_argument("--strategy", default="clasp_pe")
    parser.add_argument("--cases", type=int, default=20)
    arguments = parser.parse_args()
    import torch
    from nnunetv2.inference.export_prediction import export_prediction_from_logits

    from nnunet_limited.queries.query_round import open_round
    from nnunet_limited.queries.request import QueryRequest
    from nnunet_limited.queries.score import ModelScorer, score_cases
    from nnunet_limited.runs.launch import choose_device

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        request = QueryRequest(
            dataset=arguments.dataset,
            configuration=arguments.configuration,
            trainer=arguments.trainer,
            plans=arguments.plans,
            folds=tuple(arguments.folds),
            out=Path(folder) / "round",
            strategy=arguments.strategy,
            items=1,
            what="patch",
            size=tuple(map(int, arguments.size.split("x"))),
        )
        query_round, device = open_round(request), choose_device(None)
        cases, held = query_round.cases.candidates[: arguments.cases], []

        def watched(missing: list[str]) -> Iterator[str]:
            for case in missing[: arguments.cases]:
                yield case
                held.append(memory())

        begin = time.perf_counter()
        score_cases(query_round, device, watched)
        scoring = (time.perf_counter() - begin) / len(cases)

        scorer = ModelScorer(query_round, device)
        host = scorer.predictor.host
        host.list_of_parameters = scorer.predictor.members
        begin = time.perf_counter()
        for case in cases:
            image, properties = scorer.load(case)
            logits = host.predict_logits_from_preprocessed_data(torch.from_numpy(image)).cpu()
            export_prediction_from_logits(
                logits,
                properties,
                host.configuration_manager,
                host.plans_manager,
                host.dataset_json,
                str(Path(folder) / case),
            )
        plain = (time.perf_counter() - begin) / len(cases)
    early = max(held[: max(1, len(held) // 4)])
    print(
        f"{len(cases)} cases, {device}, {len(arguments.folds)} folds, {arguments.strategy}, patches of {arguments.size}"
    )
    print(f"plain prediction {plain:.2f} s a case, scoring {scoring:.2f} s: {scoring / plain:.2f} of it")
    print(f"memory after each case (MB): {', '.join(f'{one:.0f}' for one in held)}")
    print(f"largest at the end {max(held):.0f} MB, {max(held) / early:.2f} of that of the first quarter")
    return int(scoring > TIME_LIMIT * plain or max(held) > MEMORY_LIMIT * early)


if __name__ == "__main__":
    sys.exit(main())
