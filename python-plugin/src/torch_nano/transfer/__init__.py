"""Transfer learning: strategies, one file each, as compositions of freeze and fit; models; features."""

from .batch_norm import reestimate_batch_norm
from .coral import coral_alignment, coral_loss
from .distillation import distillation, distillation_loss
from .feature_extraction import extract_features, feature_extraction
from .features import (
    FeatureExtractor,
    compare_model_features,
    get_layer_outputs,
    get_model_feature_extractor,
    visualize_layer_activations,
)
from .fine_tuning import fine_tune, fine_tuning
from .gradual_unfreezing import gradual_unfreezing
from .transfer_model import TransferModel, freeze_layers, unfreeze_layers

__all__ = [
    "FeatureExtractor",
    "TransferModel",
    "compare_model_features",
    "coral_alignment",
    "coral_loss",
    "distillation",
    "distillation_loss",
    "extract_features",
    "feature_extraction",
    "fine_tune",
    "fine_tuning",
    "freeze_layers",
    "get_layer_outputs",
    "get_model_feature_extractor",
    "gradual_unfreezing",
    "reestimate_batch_norm",
    "unfreeze_layers",
    "visualize_layer_activations",
]
