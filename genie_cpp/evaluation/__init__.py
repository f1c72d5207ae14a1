"""How good a trained world model is: figures, a picture, and a report."""

from __future__ import annotations

from genie_cpp.evaluation.evaluate import Evaluation, EvaluationOptions, evaluate
from genie_cpp.evaluation.explain import table
from genie_cpp.evaluation.picture import save_picture
from genie_cpp.evaluation.report import write_report

__all__ = ["Evaluation", "EvaluationOptions", "evaluate", "save_picture", "table", "write_report"]
