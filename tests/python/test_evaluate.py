from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import CODES, ShiftingWorld, write_shifting_world

from genie_cpp import _C, evaluation
from genie_cpp.config_values import changed, values
from genie_cpp.errors import GenieError
from genie_cpp.evaluation.clips import open_source, same_file
from genie_cpp.windows import in_windows

ISSUE_KEYS = (
    "tokenizer_psnr tokenizer_ssim codebook_usage codebook_perplexity kmeans_psnr dynamics_accuracy "
    "dynamics_cross_entropy copy_accuracy rollout_psnr delta_psnr action_mutual_information "
    "action_mutual_information_shuffled"
).split()
FEW = evaluation.EvaluationOptions(clips=6, rollouts=4, batch=3)


@pytest.fixture
def result(shifting_world: ShiftingWorld, shifting_file: Path) -> evaluation.Evaluation:
    return evaluation.evaluate(shifting_world, shifting_file, FEW)


def test_a_model_that_knows_its_world_is_found_to(result: evaluation.Evaluation) -> None:
    figures = result.figures
    assert figures["dynamics_accuracy"] == 1
    assert figures["dynamics_accuracy_changed"] == 1
    assert 0 <= figures["dynamics_cross_entropy"] <= 1e-6
    assert 0.4 < figures["copy_accuracy"] < 1
    assert figures["codebook_usage"] == 2 / CODES
    # One column of four is bright: entropy of shares 1/4 and 3/4.
    assert figures["codebook_perplexity"] == pytest.approx(1.7548, abs=1e-4)
    # 20 and 230 become 0.5/8 and 7.5/8.
    error = (np.array([20, 230]) / 255 - np.array([0.5, 7.5]) / 8) ** 2
    assert figures["tokenizer_psnr"] == pytest.approx(-10 * np.log10(error @ [0.75, 0.25]), abs=1e-3)
    assert len(figures["rollout_psnr"]) == len(figures["delta_psnr"]) == 10
    for driven, copied, reconstructed in zip(
        figures["rollout_psnr"],
        figures["copy_rollout_psnr"],
        figures["reconstruction_rollout_psnr"],
        strict=True,
    ):
        assert driven == pytest.approx(reconstructed)
        assert np.isfinite(copied)
    assert min(figures["delta_psnr"]) > 1
    assert figures["rollout_psnr_changed"][3] > figures["copy_rollout_psnr_changed"][3]
    assert figures["rollout_psnr_changed"][3] > figures["mean_frame_psnr_changed"][3]
    assert figures["action_mutual_information"] > 1.8
    assert figures["action_mutual_information_shuffled"] < 0.6


def test_the_json_file_has_every_figure_and_is_strict(result: evaluation.Evaluation, tmp_path: Path) -> None:
    result.write_json(tmp_path / "new" / "out.json")
    content = json.loads((tmp_path / "new" / "out.json").read_text(), parse_constant=pytest.fail)
    assert set(ISSUE_KEYS) <= set(content)
    assert all(content[key] is not None for key in ISSUE_KEYS)
    assert content["about"]["action_mutual_information_unit"] == "bits"


def test_the_same_options_give_the_same_figures(
    result: evaluation.Evaluation, shifting_world: ShiftingWorld, shifting_file: Path
) -> None:
    assert evaluation.evaluate(shifting_world, shifting_file, FEW).figures == result.figures


def test_missing_actions_are_null_with_a_reason(shifting_world: ShiftingWorld, tmp_path: Path) -> None:
    write_shifting_world(tmp_path / "silent.h5", actions=False)
    result = evaluation.evaluate(shifting_world, tmp_path / "silent.h5", FEW)
    assert result.figures["action_mutual_information"] is None
    assert "no recorded actions" in result.notes["action_mutual_information"]


def test_episodes_too_short_for_rollouts_leave_the_other_figures(
    shifting_world: ShiftingWorld, tmp_path: Path
) -> None:
    write_shifting_world(tmp_path / "short.h5", length=9)
    result = evaluation.evaluate(shifting_world, tmp_path / "short.h5", FEW)
    assert result.figures["rollout_psnr"] is None and result.notes["rollout_psnr"]
    assert result.figures["dynamics_accuracy"] == 1
    evaluation.save_picture(result, tmp_path / "short.png")
    assert (tmp_path / "short.png").stat().st_size > 0


def test_auto_split_holds_to_what_was_not_trained_on(shifting_file: Path, tmp_path: Path) -> None:
    shutil.copy(shifting_file, tmp_path / "copy.h5")
    write_shifting_world(tmp_path / "other.h5", seed=1)
    config = changed(ShiftingWorld().config, f"data.path={shifting_file}")
    assert open_source(shifting_file, config, "auto").split == "validation"
    assert open_source(tmp_path / "copy.h5", config, "auto").split == "validation"
    assert open_source(tmp_path / "other.h5", config, "auto").split == "all"
    assert open_source(shifting_file, config, "all").split == "all"
    whole = changed(config, f"data.validation_path={tmp_path / 'other.h5'}")
    source = open_source(shifting_file, whole, "auto")
    assert source.split == "all" and "trained on the whole" in source.reason
    with pytest.raises(GenieError, match="auto, validation or all"):
        open_source(shifting_file, config, "test")
    assert not same_file(shifting_file, tmp_path / "missing.h5")


def test_the_linear_tokenizer_is_fitted_on_training_episodes(
    shifting_world: ShiftingWorld, shifting_file: Path
) -> None:
    shifting_world.config = changed(shifting_world.config, f"data.path={shifting_file}")
    result = evaluation.evaluate(shifting_world, shifting_file, FEW)
    assert result.about["split"] == "validation"
    assert result.about["kmeans_fitted_on"] == f"{shifting_file} (training)"


@pytest.mark.parametrize("length", [3, 4, 5, 9, 14])
def test_windows_give_each_frame_once_and_in_order(length: int) -> None:
    seen = []

    def model(part: torch.Tensor) -> torch.Tensor:
        assert part.shape[1] <= 4
        seen.append(part.shape[1])
        return part * 10

    sequence = torch.arange(length)[None]
    assert torch.equal(in_windows(model, sequence, 4), sequence * 10)
    # A model with one output fewer than frames, such as the latent action model.
    assert torch.equal(in_windows(lambda part: part[:, 1:], sequence, 4), sequence[:, 1:])


def test_options_below_one_are_refused() -> None:
    with pytest.raises(GenieError, match="rollouts must be at least 1, got 0"):
        evaluation.EvaluationOptions(rollouts=0)


def test_values_reads_numbers_as_numbers() -> None:
    config = _C.Config.parse("training: {dynamics: {learning_rate: 1e-5, epsilon: 1e-9}}")
    settings = values(config)["training"]["dynamics"]
    assert settings["learning_rate"] == 1e-5 and settings["epsilon"] == 1e-9
