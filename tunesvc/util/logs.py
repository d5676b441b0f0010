"""Logging: standard `logging`, a logger per module; study, trial, attempt and request are fields.

The package adds no handler; that is left to programs that import it. `tune` and its child processes
log to standard error at the level of `--log-level` or `TUNE_LOG_LEVEL`; nothing by default.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from logging.handlers import QueueHandler
from queue import SimpleQueue
from typing import TextIO

from tunesvc.util.redaction import redacted

LEVEL, FORMAT = "TUNE_LOG_LEVEL", "TUNE_LOG_FORMAT"
"""Environment variables, which child processes inherit."""
LEVELS = ("debug", "info", "warning", "error")
FIELDS = ("study", "trial", "attempt", "request")
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the HTTP request that a thread or task answers."""


def get_logger(name: str) -> logging.Logger:
    """Return a module's logger; the null handler keeps Python from printing our warnings."""
    package = logging.getLogger("tunesvc")
    if not package.handlers:
        package.addHandler(logging.NullHandler())
    return logging.getLogger(name)


def configure(environment: Mapping[str, str] | None = None) -> None:
    """Log to standard error by `TUNE_LOG_LEVEL` and `TUNE_LOG_FORMAT`; do nothing without a level.

    Raises:
        ValueError: level or format does not exist, or the format's package is not installed.
    """
    variables = os.environ if environment is None else environment
    handler = _RedactingHandler(sys.stderr)
    handler.setFormatter(_formatter(variables.get(FORMAT, "text").lower()))
    _handle_with(handler, variables)


def forward(send: Callable[[logging.LogRecord], None]) -> None:
    """Send the records of this process to another one, at the level of `TUNE_LOG_LEVEL`."""
    _handle_with(_ForwardingHandler(send), os.environ)


def receive(record: logging.LogRecord) -> None:
    """Handle a record that another process has forwarded."""
    logging.getLogger(record.name).handle(record)


def _handle_with(handler: logging.Handler, variables: Mapping[str, str]) -> None:
    level = variables.get(LEVEL, "").lower()
    if not level:
        return
    if level not in LEVELS:
        raise ValueError(f"{LEVEL}={level!r} is not a level: use one of {', '.join(LEVELS)}")
    logger = logging.getLogger("tunesvc")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


class _RedactingHandler(logging.StreamHandler[TextIO]):
    """Writes records without the secrets in them, in tracebacks too."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text, with the request that is being answered."""
        if (request_id := REQUEST_ID.get()) is not None:
            record.request = request_id
        return redacted(super().format(record))


class _ForwardingHandler(QueueHandler):
    """Sends records instead of queueing them, in a form that can be pickled."""

    def __init__(self, send: Callable[[logging.LogRecord], None]) -> None:
        super().__init__(SimpleQueue())
        self._send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record."""
        self._send(record)


class FieldFormatter(logging.Formatter):
    """One line per record; the fields that it has follow the message as `study=digits trial=3`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        line, *rest = super().format(record).split("\n")
        known = {name: getattr(record, name, None) for name in FIELDS}
        fields = [f"{name}={value}" for name, value in known.items() if value is not None]
        return "\n".join([" ".join([line, *fields]), *rest])


def _formatter(name: str) -> logging.Formatter:
    if name == "text":
        return FieldFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    if name != "json":
        raise ValueError(f"{FORMAT}={name!r} is not a format: use text or json")
    try:
        from pythonjsonlogger.json import JsonFormatter
    except ImportError:
        raise ValueError(
            f"{FORMAT}=json needs a package: pip install 'tunesvc[json-logs]'",
        ) from None
    # It adds the fields given as `extra` by itself.
    return JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s")
