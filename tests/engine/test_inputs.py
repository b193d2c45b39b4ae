"""A run counts while what it learned from is there; what has changed is named, and made or trained again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from filelock import FileLock
from helpers import DATASET, Workspace, command, read

from nnunet_limited.engine.checkpoint import read as read_checkpoint
from nnunet_limited.engine.run import FINAL, RECORD, StaleRun
from nnunet_limited.errors import LimitedError, StaleError
from nnunet_limited.planners.case_record import CaseRecord, record_file
from nnunet_limited.planners.plan import make_plans
from nnunet_limited.planners.request import PlanRequest
from nnunet_limited.pseudo_labels.job import ModelLabeller, PseudoLabelJob
from nnunet_limited.runs.crossval import _step, train_folds
from nnunet_limited.runs.launch import move_aside_if_stale, move_former_aside, prepare
from nnunet_limited.runs.predict import trained
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.splits import load_split

SUPERVISED, TEACHER = "LimitedSupervisedTrainer", "LimitedMeanTeacherTrainer"
PLAN = PlanRequest(dataset=DATASET, split="few", configurations=("2d",), size="tiny", processes=1)


@pytest.fixture(scope="module")
def trained_once(workspaces, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace with folds 0 and 1 of a supervised run, and fold 0 of a mean teacher."""
    workspace = workspaces("2d")
    root = tmp_path_factory.mktemp("inputs")
    for name in ("raw", "preprocessed"):
        shutil.copytree(workspace.root / name, root / name)
    made = Workspace(root, workspace.variant, workspace.plans).activate()
    plans = made.configure("inputs", num_epochs=1, num_iterations_per_epoch=1)
    for trainer, fold in ((SUPERVISED, 0), (SUPERVISED, 1), (TEACHER, 0)):
        run = made.trainer(trainer, plans, fold)
        run.run_training()
        run.perform_actual_validation()
    made.plans = plans
    return made


@pytest.fixture
def world(trained_once: Workspace, tmp_path: Path) -> Workspace:
    """Return a copy that a test may change; its files have other inodes than those that are recorded."""
    shutil.copytree(trained_once.root, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path, trained_once.variant, trained_once.plans).activate()


def request(world: Workspace, trainer: str = SUPERVISED, fold: int = 0, **more) -> TrainRequest:
    return TrainRequest(dataset=DATASET, configuration="2d", fold=str(fold), trainer=trainer, plans=world.plans, **more)


def folder(world: Workspace, trainer: str = SUPERVISED, fold: int = 0) -> Path:
    return world.root / "results" / DATASET / f"{trainer}__{world.plans}__2d" / f"fold_{fold}"


def correct(file: Path, swap: tuple[int, int] = (1, 2)) -> None:
    """Swap two classes of a label, or invert an image, and give the file an old date."""
    image = sitk.ReadImage(str(file))
    array = sitk.GetArrayFromImage(image)
    changed = np.choose(array, [0, swap[1], swap[0]]) if file.parent.name == "labelsTr" else 300 - array
    corrected = sitk.GetImageFromArray(changed.astype(array.dtype))
    corrected.CopyInformation(image)
    sitk.WriteImage(corrected, str(file))
    os.utime(file, (1, 1))


def case_of(world: Workspace, role: str) -> str:
    """Return a case of fold 0 that fold 1 uses otherwise."""
    one, other = load_split(world.preprocessed, "few").folds[:2]
    return sorted({*getattr(one, role)} - {*getattr(other, role)})[0]


def replan(world: Workspace) -> list[str]:
    file = world.preprocessed / f"{world.plans.removesuffix('_inputs')}.json"
    before = file.read_bytes()
    made = make_plans(PLAN)
    file.write_bytes(before)  # with the small network
    return list(made.again)


def test_nothing_is_stale_where_nothing_has_changed(world: Workspace) -> None:
    """A file may be saved again, and everything be copied elsewhere."""
    for file in world.raw.glob("*/*.nii.gz"):
        sitk.WriteImage(sitk.ReadImage(str(file)), str(file), useCompression=True, compressionLevel=1)
    assert replan(world) == []
    for trainer, fold in ((SUPERVISED, 0), (SUPERVISED, 1), (TEACHER, 0)):
        assert _step(request(world, trainer), fold) is None
    assert move_aside_if_stale(request(world, redo=True)) is None
    assert trained(request(world), load_split(world.preprocessed, "few"), [0])


def test_a_corrected_training_label_is_noticed_at_every_step(world: Workspace) -> None:
    case = case_of(world, "train")
    correct(world.raw / "labelsTr" / f"{case}.nii.gz")
    with pytest.raises(LimitedError, match=rf"{case}\.nii\.gz: the label of {case} has changed since it was prep"):
        prepare(request(world))
    again = replan(world)
    assert f"{case}: its label has changed; preprocessed again for 2d" in again
    (stored,) = world.preprocessed.glob(f"nnUNetLimited_*_2d/{case}_seg.b2nd")
    assert CaseRecord.read(stored.parent, case).fits(stored.parent, case, closely=True)
    lines: list[str] = []
    for refused in (
        lambda: train_folds(request(world), [0, 1], lines.append),
        lambda: trained(request(world), load_split(world.preprocessed, "few"), [0]),
        lambda: prepare(request(world, TEACHER)),
    ):
        with pytest.raises(StaleRun, match=rf"fold_0 was trained with another label of {case}; train again with --re"):
            refused()
    assert lines == []
    assert prepare(request(world, fold=1))  # which validates on it, or hides it
    ready = prepare(request(world, redo=True))
    assert ready.fold == "0"
    assert folder(world).is_dir()
    moved = move_aside_if_stale(request(world, redo=True))
    assert (moved / FINAL).is_file()
    assert moved.parent.name == "replaced"
    assert not folder(world).exists()
    assert _step(request(world), 0) == ("training", ())


def test_a_corrected_validation_label_is_validated_on_again(world: Workspace) -> None:
    case = case_of(world, "val")
    correct(world.raw / "labelsTr" / f"{case}.nii.gz")
    assert f"{case}: its label has changed; copied again for validation" in replan(world)
    truth = world.preprocessed / "gt_segmentations" / f"{case}.nii.gz"
    assert np.array_equal(read(truth), read(world.raw / "labelsTr" / truth.name))
    assert _step(request(world), 0) == ("validating", ("--val",))
    world.trainer(SUPERVISED, world.plans, 0, resume=True).perform_actual_validation()
    assert _step(request(world), 0) is None


def test_a_replaced_image_is_noticed_by_those_who_learn_from_it(world: Workspace) -> None:
    hidden = load_split(world.preprocessed, "few").fold(0).unlabeled[0]
    correct(world.raw / "imagesTr" / f"{hidden}_0000.nii.gz")
    assert prepare(request(world))
    with pytest.raises(LimitedError, match=f"the image of {hidden} has changed since it was preprocessed; run 'nnune"):
        prepare(request(world, TEACHER))
    assert f"{hidden}: its image has changed; preprocessed again for 2d" in replan(world)
    assert prepare(request(world))
    with pytest.raises(StaleRun, match=f"was trained with another image of {hidden}"):
        prepare(request(world, TEACHER))


def test_no_label_is_looked_at_that_the_fold_hides(world: Workspace) -> None:
    split = load_split(world.preprocessed, "few")
    for case in split.fold(0).unlabeled:
        (world.raw / "labelsTr" / f"{case}.nii.gz").write_bytes(b"garbage")
    for trainer in (SUPERVISED, TEACHER):
        assert prepare(request(world, trainer))
        record = json.loads((folder(world, trainer) / RECORD).read_text(encoding="utf-8"))
        assert sorted(record["labels"]) == sorted(split.fold(0).train)
        assert sorted(record["validated"]["truth"]) == sorted(split.fold(0).val)


def test_it_starts_where_there_are_no_raw_data(world: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_raw")
    assert prepare(request(world, TEACHER))
    shutil.rmtree(world.root / "raw")
    monkeypatch.setenv("nnUNet_raw", str(world.root / "raw"))
    assert prepare(request(world, TEACHER))


def test_runs_of_earlier_versions_are_taken_as_they_are(world: Workspace) -> None:
    """They have no records of what they were made from, which are completed."""
    for found in world.preprocessed.glob("*_sources"):
        shutil.rmtree(found)
    (world.preprocessed / "digests.json").unlink()
    for file in world.root.rglob(RECORD):
        content = json.loads(file.read_text(encoding="utf-8"))
        former = {key: value for key, value in content.items() if key not in ("fold", "labels", "images", "validated")}
        file.write_text(json.dumps(former), encoding="utf-8")
    assert _step(request(world), 0) is None
    assert replan(world) == []
    assert prepare(request(world, TEACHER))
    case = case_of(world, "train")
    (stored,) = world.preprocessed.glob(f"nnUNetLimited_*_2d/{case}_seg.b2nd")
    assert record_file(stored.parent, case).is_file()
    assert _step(request(world), 0) is None


def test_a_checkpoint_of_another_fold_is_refused(world: Workspace) -> None:
    shutil.copy(folder(world, fold=1) / FINAL, folder(world) / FINAL)
    with pytest.raises(LimitedError, match="fold_0 holds a run of fold 1"):
        trained(request(world), load_split(world.preprocessed, "few"), [0])
    with pytest.raises(LimitedError, match="fold_0 holds a run of fold 1"):
        train_folds(request(world), [0], print)
    shutil.rmtree(folder(world))
    shutil.copytree(folder(world, fold=1), folder(world))
    with pytest.raises(LimitedError, match="fold_0 holds a run of fold 1"):
        prepare(request(world))


BREAKS = {
    "gone": lambda file: file.unlink(),
    "short": lambda file: os.truncate(file, file.stat().st_size // 2),
    "empty": lambda file: os.truncate(file, 0),
}


@pytest.mark.parametrize(
    ("role", "kind", "ending"),
    [
        ("train", "short", ".b2nd"),
        ("train", "gone", "_seg.b2nd"),
        ("train", "empty", ".pkl"),
        ("unlabeled", "empty", ".b2nd"),
        ("unlabeled", "short", ".pkl"),
    ],
)
def test_broken_cases_are_refused_and_made_again(world: Workspace, role: str, kind: str, ending: str) -> None:
    case = case_of(world, role)
    suffix = "" if role == "train" else "_unlabeled"
    (file,) = world.preprocessed.glob(f"nnUNetLimited_*_2d{suffix}/{case}{ending}")
    before = file.read_bytes() if ending == ".pkl" else None
    BREAKS[kind](file)
    with pytest.raises(LimitedError, match=rf"case '{case}'.* (not preprocessed|damaged).*run 'nnunet-limited plan"):
        prepare(request(world, TEACHER))
    assert replan(world) == [f"{case}: its files are damaged; preprocessed again for 2d"]
    assert before is None or file.read_bytes() == before
    assert prepare(request(world, TEACHER))


def test_zeros_within_a_case_are_noticed_by_planning(world: Workspace) -> None:
    case = case_of(world, "train")
    (file,) = world.preprocessed.glob(f"nnUNetLimited_*_2d/{case}.b2nd")
    content = file.read_bytes()
    file.write_bytes(content[:300] + bytes(100) + content[400:])
    assert replan(world) == [f"{case}: its files are damaged; preprocessed again for 2d"]


def test_a_broken_cache_counts_as_absent(world: Workspace) -> None:
    for name in ("digests.json", "inspections.json"):
        (world.preprocessed / name).write_bytes(b'{"a": ')
    assert replan(world) == []
    assert json.loads((world.preprocessed / "digests.json").read_text(encoding="utf-8"))


def test_data_that_validation_needs_are_missed_at_the_start(world: Workspace) -> None:
    shutil.rmtree(world.preprocessed / "gt_segmentations")
    with pytest.raises(LimitedError, match=r"gt_segmentations/.* does not exist"):
        prepare(request(world))
    replan(world)
    shutil.rmtree(world.preprocessed / "fingerprints")
    run = world.trainer(SUPERVISED, world.configure("new", num_epochs=1, num_iterations_per_epoch=1))
    with pytest.raises(LimitedError, match=r"fingerprints/.*has no dataset_fingerprint.json; run 'nnunet-limited plan"):
        run.on_train_start()


@pytest.mark.parametrize(("key", "value"), [("spacing", [2.0, 2.0]), ("normalization_schemes", ["CTNormalization"])])
def test_edited_plans_are_not_those_of_their_data(world: Workspace, key: str, value: list) -> None:
    file = world.preprocessed / f"{world.plans}.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["configurations"]["2d"][key] = value
    content["plans_name"] = "edited"
    (world.preprocessed / "edited.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(LimitedError, match=r"edited\.json: spacing, normalization.* were changed after nnUNetLimited_"):
        prepare(request(world).changed(plans="edited"))


def test_plans_that_were_made_again_are_another_run(world: Workspace) -> None:
    """As where a corrected label has changed the intensities of the foreground."""
    base = world.plans.removesuffix("_inputs")
    file = world.preprocessed / f"{base}.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    settings = ["num_epochs=1"]
    request(world).changed(plans=base).with_settings(settings).write_plans()
    content["foreground_intensity_properties_per_channel"]["0"]["mean"] += 1
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(LimitedError, match=f"was made from {base} before they were planned again; train again with --"):
        request(world).changed(plans=base).with_settings(settings)
    request(world, redo=True).changed(plans=base).with_settings(settings).write_plans()

    file = world.preprocessed / f"{world.plans}.json"
    file.write_text(
        json.dumps(
            {
                **content,
                "plans_name": world.plans,
                "limited": {
                    **content["limited"],
                    "settings": json.loads(file.read_text(encoding="utf-8"))["limited"]["settings"],
                },
            }
        ),
        encoding="utf-8",
    )
    with pytest.raises(StaleRun, match=r"fold_0 was trained with other plans of this name .*train again with --redo"):
        train_folds(request(world), [0], print)
    with (
        FileLock(folder(world).with_name(".fold_0.training.lock")),
        pytest.raises(LimitedError, match="fold_0 is in us"),
    ):
        move_former_aside(request(world, redo=True))
    assert folder(world).is_dir()
    move_former_aside(request(world, redo=True))
    assert not folder(world).exists()
    assert not folder(world, fold=1).exists()
    assert len(list(folder(world).parent.glob(f"replaced/*/{FINAL}"))) == 2
    assert _step(request(world, redo=True), 0) == ("training", ())


def test_weights_that_know_a_label_of_the_fold_are_refused(world: Workspace, tmp_path: Path) -> None:
    own, other = (folder(world, fold=fold) / FINAL for fold in (0, 1))
    flags = ("-device", "cpu", "-pretrained_weights")
    leaked = rf"fold_1/{FINAL} has learned the label of '\w+', which fold 0"
    with pytest.raises(LimitedError, match=leaked):
        prepare(request(world, TEACHER, flags=(*flags, str(other))))
    shutil.rmtree(folder(world, TEACHER))
    template = str(own).replace("fold_0", "fold_{fold}")
    for trainer in (TEACHER, "LimitedFixMatchTrainer"):
        asked = request(world, trainer, flags=(*flags, template))
        assert _step(asked, 0) == ("training", ())
    foreign = read_checkpoint(other)
    for key in ("nnunet_limited", "init_args"):
        del foreign[key]
    torch.save(foreign, tmp_path / "foreign.pth")
    assert prepare(request(world, TEACHER, flags=(*flags, str(tmp_path / "foreign.pth"))))
    former = read_checkpoint(other)  # of an earlier version: the fold is that of nnU-Net's arguments
    del former["nnunet_limited"]["record"]["labels"]
    torch.save(former, tmp_path / FINAL)
    with pytest.raises(LimitedError, match="has learned the label of"):
        prepare(request(world, TEACHER, flags=(*flags, str(tmp_path / FINAL))))


def test_weights_are_part_of_what_a_run_is(world: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = folder(world) / FINAL
    shutil.rmtree(folder(world, TEACHER))
    flags = ("-device", "cpu", "-pretrained_weights", str(weights))
    monkeypatch.setattr("sys.argv", ["nnUNetv2_train", *flags])
    world.trainer(TEACHER, world.plans).on_train_start()
    monkeypatch.setattr("sys.argv", ["pytest"])
    assert _step(request(world, TEACHER, flags=flags), 0) == ("training", ())
    with pytest.raises(LimitedError, match=r"fold_0 started from other -pretrained_weights .*give those"):
        _step(request(world, TEACHER), 0)
    with pytest.raises(LimitedError, match=r"fold_0 started from no -pretrained_weights .*leave them out"):
        _step(request(world, flags=flags), 0)
    monkeypatch.setattr("sys.argv", ["nnUNetv2_train", "-pretrained_weights", str(folder(world, fold=1) / FINAL)])
    with pytest.raises(LimitedError, match="has learned the label of"):
        world.trainer(TEACHER, world.plans).on_train_start()


def test_sets_of_one_origin_do_not_share_their_data(world: Workspace) -> None:
    for name in ("r1", "r2"):
        words = ["pseudo-label", DATASET, "2d", "-tr", SUPERVISED, "-p", world.plans, "-f", "0", "-device", "cpu"]
        assert command(*words, "--name", name) == 0
    first = world.preprocessed / "pseudo_labels" / "few" / "r1" / "fold_0"
    case = load_split(world.preprocessed, "few").fold(0).unlabeled[0]
    for ending, value in (("", 1), ("_confidence", 100)):
        file = first / f"{case}{ending}.nii.gz"
        image = sitk.GetImageFromArray(np.full(read(file).shape, value, np.uint8))
        image.CopyInformation(sitk.ReadImage(str(file)))
        sitk.WriteImage(image, str(file))
        os.utime(file, (1, 1))
    found = []
    for name in ("r1", "r2", "r1"):
        settings = {"pseudo_labels": name, "stable_fraction": 1.0, "num_epochs": 1, "pseudo_label_confidence": 0.0}
        run = world.trainer("LimitedSelfTrainingTrainer", world.configure(f"on{name}", **settings))
        found.append(np.unique(run.unlabeled_dataset().load_case(case)[2][:]).tolist())
    assert found[0] == found[2] == [1] != found[1]

    shutil.rmtree(folder(world))
    again = world.trainer(SUPERVISED, world.plans)
    again.run_training()
    job = PseudoLabelJob(ModelLabeller(request(world)), "r1")
    with pytest.raises(StaleError, match="r1/fold_0 holds pseudo-labels with checkpoints="):
        job.check([0])
    job.move_stale_aside([0])
    assert job.check([0])[0].cases == {}
    assert list(first.parent.glob("replaced/fold_0_*/pseudo_labels.json"))


def test_pseudo_labels_follow_their_image(world: Workspace) -> None:
    words = ["pseudo-label", DATASET, "2d", "-tr", SUPERVISED, "-p", world.plans, "-f", "0", "-device", "cpu"]
    assert command(*words, "--name", "r1") == 0
    case = load_split(world.preprocessed, "few").fold(0).unlabeled[0]
    file = world.preprocessed / "pseudo_labels" / "few" / "r1" / "fold_0" / f"{case}.nii.gz"
    correct(world.raw / "imagesTr" / f"{case}_0000.nii.gz")
    replan(world)
    plans = world.configure("student", pseudo_labels="r1", num_epochs=1)
    student = request(world, "LimitedSelfTrainingTrainer").changed(plans=plans)
    with pytest.raises(LimitedError, match=rf"the pseudo-label of '{case}' was made from another image"):
        prepare(student)
    os.utime(file, (1, 1))
    assert command(*words, "--name", "r1") == 0
    assert file.stat().st_mtime > 1
    assert prepare(student)
