"""Small real datasets, split and planned with the package's own code; shared by the whole session."""

from __future__ import annotations

import os

# Before torch and nnunetv2 are imported: few, passive threads, and data loading in this process.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["nnUNet_n_proc_DA"] = "0"
os.environ["nnUNet_def_n_proc"] = "1"
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # repeatable on a GPU

import contextlib
import functools
import io
import multiprocessing
import multiprocessing.pool
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import DEVICE, FROM_START, VARIANTS, Workspace, make_workspace
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.run import run_training
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from nnunetv2.utilities import utils
from rounds import TRAINER, resampled
from worlds import planned

from nnunet_limited import trainers
from nnunet_limited.engine.log import LimitedLogger
from nnunet_limited.util.children import tied
from nnunet_limited.util.processes import python_module

torch.set_num_threads(1)
if DEVICE.type == "cuda":  # nnU-Net compiles networks there, for minutes, and takes the fastest convolutions
    os.environ["nnUNet_compile"] = "false"
    torch.use_deterministic_algorithms(True, warn_only=True)

# nnU-Net starts a pool of fresh processes for every export and preprocessing; each imports torch for seconds. Fork
# them from a process that has imported it once.
if "forkserver" in multiprocessing.get_all_start_methods():  # not on Windows
    _get_context = multiprocessing.get_context
    multiprocessing.set_forkserver_preload(
        ["nnunetv2.inference.export_prediction", "nnunetv2.preprocessing.preprocessors.default_preprocessor"]
    )
    multiprocessing.get_context = lambda method=None: _get_context("forkserver" if method == "spawn" else method)

# To list the files of a dataset nnU-Net forks twelve processes, twice for each planning; threads are enough.
utils.Pool = multiprocessing.pool.ThreadPool

# To find a trainer nnU-Net looks at every module that is imported. That it finds each of ours is tested by itself.
_find_others = functools.cache(run_training.recursive_find_trainer_class_by_name)
for module in (run_training, predict_from_raw_data):
    module.recursive_find_trainer_class_by_name = lambda name: getattr(trainers, name, None) or _find_others(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever is left out by default is slow; what takes long comes first, so that no worker is left with it."""
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker("slow")
    items.sort(key=lambda item: (item.get_closest_marker("slow") is None, "contract" in item.path.parts))


@pytest.fixture(scope="session")
def workspaces(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Workspace]:
    """Return a function that gives each variant's workspace, hidden labels and all."""
    return planned(tmp_path_factory, hide=False)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Take one thread, whatever a training in this process has taken before."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_progress_picture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the progress pictures, which take longer than the tests' epochs, but where a test asks for them."""
    if "progress_picture" not in request.keywords:
        for logger in (LocalLogger, LimitedLogger):
            monkeypatch.setattr(logger, "plot_progress_png", lambda self, folder: None)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point nnU-Net's three variables to empty folders."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return tmp_path


@pytest.fixture
def commands_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run our commands and nnU-Net's here where a process is to be started for them, which imports for seconds."""
    start = subprocess.run
    scripts = {script.name: script for script in entry_points(group="console_scripts")}

    def run(words: list[str], **options: Any) -> subprocess.CompletedProcess:
        ours, wrapper = python_module("nnunet_limited"), tied([])
        words = words[len(wrapper) :] if words[: len(wrapper)] == wrapper else words
        module = words[: len(ours)] == ours
        name = "nnunet-limited" if module else Path(words[0]).name
        if name != "nnunet-limited" and not name.startswith("nnUNetv2_"):
            return start(words, **options)
        printed, log, status = io.StringIO(), options.get("stderr"), 0
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(log if hasattr(log, "write") else sys.stderr),
        ):
            patch.setattr(sys, "argv", [name, *words[len(ours) if module else 1 :]])
            try:
                scripts[name].load()()
            except SystemExit as ended:
                status = int(ended.code or 0)
        return subprocess.CompletedProcess(words, status, printed.getvalue(), "")

    monkeypatch.setattr(subprocess, "run", run)


@pytest.fixture
def browser(tmp_path: Path):
    """A headless Chromium."""
    paths = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if not all(paths.values()):
        pytest.skip("no chromium and chromedriver; install both to test the page in a browser")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(paths["chromium"])
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", f"user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(paths["chromedriver"])))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def models(workspaces, tmp_path_factory):
    """Return a function that gives a workspace of a variant with fold 0 trained for a few steps, and its plans."""
    made = {}

    def get(variant: str) -> tuple[Workspace, str]:
        if variant not in made:
            if variant == "transposed":  # spacing is largest along the last axis, which nnU-Net then puts first
                transposed = replace(VARIANTS["3d"], shape=(24, 24, 10), spacing=(4.0, 1.0, 1.0))
                workspace = make_workspace(tmp_path_factory.mktemp(variant), transposed)
            elif variant == "resampled":
                workspace = resampled(tmp_path_factory.mktemp(variant))
            else:
                workspace = workspaces(variant)
            workspace.activate("rounds")
            plans = workspace.configure("rounds", **FROM_START, num_iterations_per_epoch=10)
            for fold in range(2 if variant == "deployment" else 1):
                workspace.trainer(TRAINER, plans, fold).run_training()
            made[variant] = workspace, plans
        workspace, plans = made[variant]
        return workspace.activate("rounds"), plans

    return get
