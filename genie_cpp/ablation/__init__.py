"""The ablation of area attention: speed, memory and frozen features against full attention."""

from __future__ import annotations

from genie_cpp.ablation.runner import PHASES, run_ablation
from genie_cpp.ablation.settings import PRESETS, Ablation, Resolution, load_ablation

__all__ = ["PHASES", "PRESETS", "Ablation", "Resolution", "load_ablation", "run_ablation"]
