from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from worlds import ShiftingWorld

from genie_cpp import evaluation
from genie_cpp.evaluation import explain


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    for phase in ("tokenizer", "latent_action"):  # a run whose third phase has not begun
        (tmp_path / phase).mkdir()
        lines = [{"step": step, "loss": 1 / step} for step in (1, 2, 3)] + [
            {"step": 3, "validation_loss": 0.4}
        ]
        (tmp_path / phase / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_the_page_needs_no_other_file(
    shifting_world: ShiftingWorld, shifting_file: Path, run_dir: Path
) -> None:
    options = evaluation.EvaluationOptions(clips=4, rollouts=2)
    result = evaluation.evaluate(shifting_world, shifting_file, options)
    path = evaluation.write_report(shifting_world, result, run_dir, ["genie-cpp generate <this> & that"])
    text = path.read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    # 4 actions as GIF and strip, 2 x 3 reconstructions, 2 x 2 rollouts, the curves.
    assert len(page.sources) == 8 + 6 + 4 + 1
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "genie-cpp generate &lt;this&gt; &amp; that" in text
    for row in explain.ROWS:
        assert row.reading in text.replace("&#x27;", "'")


def test_numbers_carry_units_and_gaps_are_dashes() -> None:
    assert explain.number(34.5678, "dB") == "34.6 dB"
    assert explain.number(0.12345, "bits") == "0.123 bits"
    assert explain.number(0.5, "%") == "50.0 %"
    assert explain.number([1.0, 2.0, 3.0, 4.0], "") == "4"
    assert explain.number([1.0], "dB") == explain.number(None, "dB") == "–"
