"""The service's log: one JSON object a line, on a stream, for people with `jq` and for machines."""

from __future__ import annotations

import json
import threading
import time
import traceback
from typing import Any, TextIO


class Log:
    """Events with fields. Fields are what clients say, too: JSON quotes them."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, event: str, **fields: Any) -> None:
        self._write({"time": round(time.time(), 6), "event": event} | fields)

    def failure(self, event: str, error: BaseException, **fields: Any) -> None:
        """An error of our own, with where it came from."""
        self(event, **fields, error=repr(error), traceback=traceback.format_exception(error))

    def _write(self, record: dict[str, Any]) -> None:
        if self._stream is None:
            return
        line = json.dumps(record, default=str) + "\n"
        with self._lock:
            try:
                self._stream.write(line)
                self._stream.flush()
            except (OSError, ValueError):
                # Nobody reads the log any more; the guests go on.
                self._stream = None
