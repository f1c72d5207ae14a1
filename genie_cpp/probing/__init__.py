"""Frozen evaluation of video encoders by attentive probes, after V-JEPA 2 (arXiv 2506.09985)."""

from __future__ import annotations

from genie_cpp.probing.classifier import AttentiveClassifier
from genie_cpp.probing.clips import ClipSet, Splits, action_splits, game_splits, manifest_splits
from genie_cpp.probing.compare import ProbeTable, probe_encoders
from genie_cpp.probing.features import Features, cache_features
from genie_cpp.probing.manifests import read_manifest, write_manifest
from genie_cpp.probing.sweep import ProbeRecipe, SweepResult, train_probes

__all__ = [
    "AttentiveClassifier",
    "ClipSet",
    "Features",
    "ProbeRecipe",
    "ProbeTable",
    "Splits",
    "SweepResult",
    "action_splits",
    "cache_features",
    "game_splits",
    "manifest_splits",
    "probe_encoders",
    "read_manifest",
    "train_probes",
    "write_manifest",
]
