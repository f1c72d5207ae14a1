"""Making video files (docs/data_format.md) from games and from ordinary videos."""

from __future__ import annotations

from genie_cpp.data.importing import import_videos
from genie_cpp.data.record import record_atari

__all__ = ["import_videos", "record_atari"]
