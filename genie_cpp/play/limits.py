"""What one page, and all of them together, may ask of the server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The defaults suit a model on one's own computer."""

    sessions: int = 64
    """Pages that may be connected at once."""
    message_bytes: int = 64 * 1024
    """Of one message to the server."""
    messages_per_second: float = 60.0
    """Of one page, on average; twice as many may come at once."""
    waiting_messages: int = 32
    """Messages of one page that are not answered yet."""
    refusals: int = 200
    """Messages of one page that may be malformed, too many or too large before its connection is closed."""
    idle_seconds: float = 900.0
    """Without a message before a page is disconnected."""
    resumed_actions: int = 5000
    """Actions that a shared or interrupted play may have."""
    steps: int = 64
    """MaskGIT steps a frame."""
    temperature: float = 4.0
    recording_bytes: int = 8 * 1024 * 1024
    """Of a page's last frames, kept to be saved as GIF or MP4."""
    send_seconds: float = 20.0
    """A page that takes longer to accept a frame is disconnected."""
