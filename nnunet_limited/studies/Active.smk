# The workflow of a simulated loop of active learning, run in its folder: every round needs the training before it.
# A step calls commands of this package, which nnunet_limited/studies/active_job.py puts together.
import re
import sys
from pathlib import Path

from nnunet_limited.studies.active import ActiveFolder

folder = ActiveFolder(Path("."))
study = folder.study
devices = str(config.get("devices", ""))
steps = {step.identifier: step for step in study.runs()}


def needed(wildcards):
    step = steps[wildcards.step]
    return [f"rounds/{step.before.identifier}/trained.json"] if step.number else []


rule all:
    input:
        [f"rounds/{step}/trained.json" for step in steps],


rule round:
    input:
        needed,
    output:
        "rounds/{step}/trained.json",
    log:
        "logs/{step}.log",
    wildcard_constraints:
        step="|".join(map(re.escape, steps)),
    threads: int(config.get("threads", 1))
    resources:
        gpu=int(config.get("gpu", 0)),
        mem_mb=int(config.get("mem_mb", 8000)),
    shell:
        f"{sys.executable} -m nnunet_limited.studies.active_job {{wildcards.step}} '{devices}'"
