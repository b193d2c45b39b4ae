"""All that the package takes from nnU-Net and its libraries: what to look at when they make a new release.

The lists are read from the code and compared with those below; ``python tests/host/test_symbols.py`` prints them.
Private edges are listed too: what our subclasses override, and what is used of the objects of nnU-Net's classes. The
members of such a class are its methods and what it assigns to ``self``; its objects are recognised by the names of
variables (``OBJECTS``).
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import pprint
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import nnunet_limited
from nnunet_limited.engine.split_trainer import HOST_SETTINGS

PACKAGE = Path(nnunet_limited.__file__).parent
LIBRARIES = ("nnunetv2", "batchgenerators", "batchgeneratorsv2", "dynamic_network_architectures", "acvl_utils")

# nnU-Net's classes, and the names of variables and attributes that hold their objects.
CLASSES = {
    "nnUNetTrainer": "nnunetv2.training.nnUNetTrainer.nnUNetTrainer",
    "MetaLogger": "nnunetv2.training.logging.nnunet_logger",
    "LocalLogger": "nnunetv2.training.logging.nnunet_logger",
    "nnUNetDataLoader": "nnunetv2.training.dataloading.data_loader",
    "nnUNetDatasetBlosc2": "nnunetv2.training.dataloading.nnunet_dataset",
    "PlansManager": "nnunetv2.utilities.plans_handling.plans_handler",
    "ConfigurationManager": "nnunetv2.utilities.plans_handling.plans_handler",
    "LabelManager": "nnunetv2.utilities.label_handling.label_handling",
    "nnUNetPredictor": "nnunetv2.inference.predict_from_raw_data",
    "ExperimentPlanner": "nnunetv2.experiment_planning.experiment_planners.default_experiment_planner",
    "DatasetFingerprintExtractor": "nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor",
    "DefaultPreprocessor": "nnunetv2.preprocessing.preprocessors.default_preprocessor",
    "SimpleITKIO": "nnunetv2.imageio.simpleitk_reader_writer",
    "DeepSupervisionWrapper": "nnunetv2.training.loss.deep_supervision",
    "SingleThreadedAugmenter": "batchgenerators.dataloading.single_threaded_augmenter",
    "NonDetMultiThreadedAugmenter": "batchgenerators.dataloading.nondet_multi_threaded_augmenter",
    "ComposeTransforms": "batchgeneratorsv2.transforms.utils.compose",
    "RandomTransform": "batchgeneratorsv2.transforms.utils.random",
    "BasicTransform": "batchgeneratorsv2.transforms.base.basic_transform",
    "SegOnlyTransform": "batchgeneratorsv2.transforms.base.basic_transform",
    "GaussianBlurTransform": "batchgeneratorsv2.transforms.noise.gaussian_blur",
    "PlainConvUNet": "dynamic_network_architectures.architectures.unet",
    "UNetDecoder": "dynamic_network_architectures.building_blocks.unet_decoder",
}
OBJECTS = {
    "trainer": "nnUNetTrainer",
    "logger": "MetaLogger",
    "labeled unlabeled loader": "nnUNetDataLoader",
    "dataset annotated train PreprocessedCases": "nnUNetDatasetBlosc2",
    "plans_manager manager PlansManager": "PlansManager",
    "configuration_manager chosen configuration get_configuration managers": "ConfigurationManager",
    "label_manager manager get_label_manager": "LabelManager",
    "host predictor": "nnUNetPredictor",
    "limited_planner": "ExperimentPlanner",
    "extractor": "DatasetFingerprintExtractor",
    "preprocessor DefaultPreprocessor": "DefaultPreprocessor",
    "reader reader_class image_reader_writer_class": "SimpleITKIO",
    "loss wrapped": "DeepSupervisionWrapper",
    "train augmenter": "NonDetMultiThreadedAugmenter",
    "pipeline host_pipeline validation": "ComposeTransforms",
    "transform standard": "RandomTransform",
    "inner": "GaussianBlurTransform",
    "network plain": "PlainConvUNet",
    "decoder": "UNetDecoder",
}

# Attributes whose names are in variables.
BY_NAME = {
    "nnUNetTrainer": set(HOST_SETTINGS),
    "SingleThreadedAugmenter": {"data_loader"},
    "NonDetMultiThreadedAugmenter": {"generator"},
    "ExperimentPlanner": {"dataset_json"},
}

IMPORTED = {
    "batchgenerators.dataloading.single_threaded_augmenter": "SingleThreadedAugmenter",
    "batchgeneratorsv2.transforms.base.basic_transform": "BasicTransform SegOnlyTransform",
    "batchgeneratorsv2.transforms.utils.random": "RandomTransform",
    "dynamic_network_architectures.architectures.primus": "Primus",
    "nnunetv2": "",
    "nnunetv2.evaluation.accumulate_cv_results": "accumulate_cv_results",
    "nnunetv2.evaluation.evaluate_predictions": "compute_metrics",
    "nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor": "DatasetFingerprintExtractor",
    "nnunetv2.experiment_planning.experiment_planners.default_experiment_planner": "ExperimentPlanner",
    "nnunetv2.experiment_planning.experiment_planners.network_topology": "get_pool_and_conv_props",
    "nnunetv2.imageio.base_reader_writer": "BaseReaderWriter",
    "nnunetv2.imageio.reader_writer_registry": "LIST_OF_IO_CLASSES determine_reader_writer_from_dataset_json "
    "recursive_find_reader_writer_by_name",
    "nnunetv2.imageio.simpleitk_reader_writer": "SimpleITKIO",
    "nnunetv2.inference.export_prediction": "convert_predicted_logits_to_segmentation_with_correct_shape",
    "nnunetv2.inference.predict_from_raw_data": "nnUNetPredictor",
    "nnunetv2.preprocessing.cropping.cropping": "create_nonzero_mask crop_to_nonzero",
    "nnunetv2.preprocessing.normalization.map_channel_name_to_normalization": "get_normalization_scheme",
    "nnunetv2.preprocessing.preprocessors.default_preprocessor": "DefaultPreprocessor",
    "nnunetv2.run.load_pretrained_weights": "load_pretrained_weights",
    "nnunetv2.run.run_training": "get_trainer_from_args maybe_load_checkpoint run_training_entry",
    "nnunetv2.training.dataloading.data_loader": "nnUNetDataLoader",
    "nnunetv2.training.dataloading.nnunet_dataset": "nnUNetDatasetBlosc2",
    "nnunetv2.training.logging.nnunet_logger": "LocalLogger",
    "nnunetv2.training.lr_scheduler.polylr": "PolyLRScheduler",
    "nnunetv2.training.nnUNetTrainer.nnUNetTrainer": "nnUNetTrainer",
    "nnunetv2.utilities.collate_outputs": "collate_outputs",
    "nnunetv2.utilities.crossval_split": "generate_crossval_split",
    "nnunetv2.utilities.file_path_utilities": "folds_tuple_to_string",
    "nnunetv2.utilities.find_class_by_name": "recursive_find_python_class",
    "nnunetv2.utilities.find_objects": "recursive_find_trainer_class_by_name",
    "nnunetv2.utilities.label_handling.label_handling": "determine_num_input_channels",
    "nnunetv2.utilities.plans_handling.plans_handler": "PlansManager",
    "nnunetv2.utilities.utils": "get_filenames_of_train_images_and_targets",
}
LOOKED_UP = {
    "by name": "CTNormalization ContrastTransform Convert2DTo3DTransform Convert3DTo2DTransform "
    "ConvertSegmentationToRegionsTransform DownsampleSegForDSTransform ExperimentPlanner "
    "GammaTransform GaussianBlurTransform GaussianNoiseTransform MaskImageTransform MirrorTransform "
    "MultiplicativeBrightnessTransform NibabelIO RemoveLabelTransform SimpleITKIO SimulateLowResolutionTransform "
    "SpatialTransform Tiff3DIO ZScoreNormalization nnunetv2.experiment_planning"
}
OVERRIDDEN = {
    "BasicTransform": "__init__ apply",
    "LocalLogger": "__init__ load_checkpoint log plot_progress_png",
    "SegOnlyTransform": "__init__ _apply_to_segmentation",
    "nnUNetDataLoader": "__init__ generate_train_batch get_bbox get_indices",
    "nnUNetDatasetBlosc2": "__init__ load_case",
    "nnUNetPredictor": "_internal_maybe_mirror_and_predict _internal_predict_sliding_window_return_logits",
    "nnUNetTrainer": "__init__ _build_loss configure_optimizers "
    "configure_rotation_dummyDA_mirroring_and_inital_patch_size do_split get_dataloaders "
    "get_tr_and_val_datasets get_training_transforms initialize load_checkpoint on_epoch_end "
    "on_train_epoch_end on_train_epoch_start on_train_end on_train_start on_validation_epoch_end "
    "perform_actual_validation save_checkpoint set_deep_supervision_enabled train_step validation_step",
}
USED = {
    "BasicTransform": "__init__",
    "ComposeTransforms": "transforms",
    "ConfigurationManager": "batch_dice batch_size configuration patch_size preprocessor_class resampling_fn_seg "
    "spacing use_mask_for_norm",
    "DatasetFingerprintExtractor": "dataset num_foreground_voxels_for_intensitystats run show_progress_bar",
    "DeepSupervisionWrapper": "loss weight_factors",
    "DefaultPreprocessor": "_sample_foreground_locations run_case_save",
    "ExperimentPlanner": "plan_experiment",
    "GaussianBlurTransform": "benchmark",
    "LabelManager": "all_labels apply_inference_nonlin convert_probabilities_to_segmentation foreground_regions "
    "has_ignore_label has_regions ignore_label num_segmentation_heads",
    "LocalLogger": "__init__ load_checkpoint log my_fantastic_logging plot_progress_png",
    "MetaLogger": "get_value local_logger log",
    "NonDetMultiThreadedAugmenter": "_finish",
    "PlainConvUNet": "decoder encoder",
    "PlansManager": "get_configuration get_label_manager image_reader_writer_class plans plans_name "
    "transpose_backward transpose_forward",
    "RandomTransform": "apply get_parameters transform",
    "SegOnlyTransform": "__init__",
    "SimpleITKIO": "read_images read_seg supported_file_endings write_seg",
    "UNetDecoder": "deep_supervision encoder seg_layers",
    "nnUNetDataLoader": "__init__ _data final_patch_size generate_train_batch get_bbox get_indices has_ignore "
    "indices sampling_probabilities set_thread_id transforms",
    "nnUNetDatasetBlosc2": "__init__ identifiers load_case save_seg source_folder",
    "nnUNetPredictor": "_internal_maybe_mirror_and_predict _internal_predict_sliding_window_return_logits "
    "allowed_mirroring_axes configuration_manager "
    "initialize_from_trained_model_folder "
    "label_manager list_of_parameters network plans_manager predict_from_files_sequential "
    "predict_logits_from_preprocessed_data use_mirroring",
    "nnUNetTrainer": "__init__ _best_ema _build_loss _do_i_compile batch_size build_network_architecture "
    "configuration_manager configuration_name configure_optimizers "
    "configure_rotation_dummyDA_mirroring_and_inital_patch_size current_epoch dataloader_train dataset_class "
    "device disable_checkpointing enable_deep_supervision get_dataloaders "
    "get_tr_and_val_datasets get_training_transforms grad_scaler initial_lr initialize is_ddp "
    "label_manager load_checkpoint local_rank logger loss network num_epochs num_input_channels "
    "num_iterations_per_epoch on_epoch_end on_train_epoch_end on_train_epoch_start "
    "on_train_end on_train_start on_validation_epoch_end optimizer oversample_foreground_percent "
    "perform_actual_validation "
    "plans_manager preprocessed_dataset_folder_base probabilistic_oversampling print_to_log_file save_checkpoint "
    "train_step validation_step was_initialized weight_decay",
}


@cache
def trees() -> dict[str, ast.Module]:
    return {
        ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            file.read_text(encoding="utf-8")
        )
        for file in sorted(PACKAGE.rglob("*.py"))
    }


def nodes() -> Iterator[ast.AST]:
    for tree in trees().values():
        yield from ast.walk(tree)


def from_libraries(module: str | None) -> bool:
    return (module or "").split(".")[0] in LIBRARIES


@cache
def members(name: str) -> frozenset[str]:
    """Return methods and attributes of one of nnU-Net's classes."""
    cls = getattr(importlib.import_module(CLASSES[name]), name)
    found = {"__init__"}
    for base in cls.__mro__:
        if not from_libraries(base.__module__):
            continue
        found |= {member for member in vars(base) if not member.startswith("__") or member in ("__call__", "__next__")}
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and last_name(node.value) == "self":
                found.add(node.attr)
    return frozenset(found)


def last_name(node: ast.expr) -> str:
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


@cache
def subclasses() -> dict[str, tuple[tuple[ast.ClassDef, ...], frozenset[str]]]:
    """Return for each class of nnU-Net our classes below it, and the names that they define themselves."""
    for module in pkgutil.walk_packages([str(PACKAGE)], f"{PACKAGE.name}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    definitions = {
        (module, node.name): node
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = defaultdict(set)
    for module, name in definitions:
        cls = getattr(importlib.import_module(module), name, None)
        lineage = cls.__mro__ if isinstance(cls, type) else ()
        host = next((base.__name__ for base in lineage if from_libraries(base.__module__)), None)
        if host is not None:  # with the mixins among its bases
            found[host] |= {(base.__module__, base.__name__) for base in lineage} & set(definitions)
    return {host: tuple(definitions[key] for key in sorted(keys)) for host, keys in found.items()}


def collected(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the second parts by the first, as they are written in this file."""
    found = defaultdict(set)
    for first, second in pairs:
        found[first].add(second)
    return {first: " ".join(sorted(names)) for first, names in sorted(found.items())}


def imported() -> Iterator[tuple[str, str]]:
    for node in nodes():
        if isinstance(node, ast.ImportFrom) and from_libraries(node.module):
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if from_libraries(alias.name))


def overridden() -> Iterator[tuple[str, str]]:
    for host, classes in subclasses().items():
        for cls in classes:
            for node in cls.body:
                names = [node.name] if isinstance(node, ast.FunctionDef) else []
                if isinstance(node, ast.AnnAssign | ast.Assign) and node.value is not None:
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    names = [last_name(target) for target in targets]
                yield from ((host, name) for name in names if name in members(host))


def used() -> Iterator[tuple[str, str]]:
    for host, classes in subclasses().items():
        for value, name in (pair for cls in classes for node in ast.walk(cls) for pair in accessed(node)):
            if last_name(value) in ("self", "cls", "super") and name in members(host):
                yield host, name
    for node in nodes():
        for value, name in accessed(node):
            for names, host in OBJECTS.items():
                if last_name(value) in names.split() and name in members(host):
                    yield host, name


def accessed(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Yield what ``value.name`` reads or sets, and ``getattr(value, "name")`` and the like."""
    if isinstance(node, ast.Attribute):
        yield node.value, node.attr
    elif (
        isinstance(node, ast.Call) and last_name(node.func) in ("getattr", "hasattr", "setattr") and len(node.args) > 1
    ) and isinstance(node.args[1], ast.Constant):
        yield node.args[0], str(node.args[1].value)


def in_strings() -> Iterator[str]:
    """Yield strings that are the names of classes or modules of the libraries, except lists of exports."""
    known = set()
    for library in LIBRARIES:
        for folder in importlib.import_module(library).__path__:
            for file in Path(folder).rglob("*.py"):
                known |= set(
                    re.findall(r"^class (\w+)", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
                )
    known = {name for name in known if sum(letter.isupper() for letter in name) > 1}  # not "Dataset", a plain word
    exports = {
        id(item)
        for node in nodes()
        if isinstance(node, ast.Assign) and last_name(node.targets[0]) == "__all__"
        for item in ast.walk(node)
    }
    for node in nodes():
        text = node.value if isinstance(node, ast.Constant) and id(node) not in exports else None
        if isinstance(text, str) and (text in known or (from_libraries(text) and re.fullmatch(r"\w+(\.\w+)+", text))):
            yield text


def lists() -> dict[str, dict[str, str]]:
    return {
        "IMPORTED": collected(imported()),
        "LOOKED_UP": collected(("by name", name) for name in in_strings()),
        "OVERRIDDEN": collected(overridden()),
        "USED": collected(used()),
    }


@pytest.mark.parametrize("name", ["IMPORTED", "LOOKED_UP", "OVERRIDDEN", "USED"])
def test_every_symbol_of_nnunet_is_listed(name: str) -> None:
    found, listed = (
        {f"{first}: {second}" for first, names in content.items() for second in names.split() or [""]}
        for content in (lists()[name], globals()[name])
    )
    assert found == listed, f"{name} lacks {sorted(found - listed)}, and {sorted(listed - found)} are used no longer"


def test_attributes_whose_names_are_in_variables_exist() -> None:
    assert {host: names - members(host) for host, names in BY_NAME.items()} == {host: set() for host in BY_NAME}


if __name__ == "__main__":
    for name, content in lists().items():
        print(f"{name} = {pprint.pformat(content, width=112, sort_dicts=False)}")
