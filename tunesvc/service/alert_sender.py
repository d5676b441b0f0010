"""Delivers alerts through Apprise, in a thread of its own: a slow service delays no study."""

from __future__ import annotations

import logging
import threading
from typing import Any
from urllib.parse import parse_qsl

from tunesvc.db import alerts
from tunesvc.db.alerts import Delivery, place_of
from tunesvc.db.engine.database import Database
from tunesvc.db.engine.database_errors import translate_unavailable
from tunesvc.errors import DatabaseUnavailable, SpecError
from tunesvc.util.logs import get_logger

_logger = get_logger(__name__)

LOOK_S = 2.0
"""Interval of looking for new alerts."""
ADDRESS_MAX = 500
"""Most characters of an address: Apprise takes seconds for long ones."""
FILE_OPTIONS = frozenset({"keyfile", "pgpkey", "pgpprv", "pgppub", "subfile", "template"})
"""Options of addresses with which Apprise reads files of this machine."""
_EXTRA = "alerts need Apprise: pip install 'tunesvc[alerts]'"


def check_address(url: str) -> None:
    """Check that Apprise knows an address.

    Raises:
        SpecError: it does not, or would read a file of this machine; or Apprise is not installed.
    """
    if len(url) > ADDRESS_MAX:
        raise SpecError(f"an address of alerts has at most {ADDRESS_MAX} characters")
    options = {name.lower() for name, _ in parse_qsl(url.partition("?")[2], True)}
    if read := options & FILE_OPTIONS:
        raise SpecError(f"leave out `{min(read)}`: alerts read no files of the server")
    if _apprise().Apprise.instantiate(url, suppress_exceptions=True) is None:
        raise SpecError(
            f"{place_of(url)} is no address that Apprise knows, such as "
            "slack://TOKEN/CHANNEL or mailto://USER:PASSWORD@HOST; its documentation lists them"
        )


class AlertSender:
    """Raises and delivers alerts until it is stopped.

    Several servers may do so at once: each alert is raised once, and a delivery is locked while it
    is made. A server that dies after a delivery and before its commit makes it again.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the delivery that is being made. Repeatable."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def __enter__(self) -> AlertSender:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def deliver_due(self) -> int:
        """Raise new alerts, and make the deliveries that are due; return their number.

        Raises:
            DatabaseUnavailable: the others are made later.
        """
        count = 0
        with translate_unavailable():
            with self._database.engine.begin() as connection:
                alerts.raise_alerts(connection)
            while not self._stop.is_set() and self._deliver_one():
                count += 1
        return count

    def _deliver_one(self) -> bool:
        with self._database.engine.begin() as connection:
            delivery = alerts.take_delivery(connection)
            if delivery is None:
                return False
            error = send(delivery)
            alerts.record_delivery(connection, delivery, error)
        if error:
            _logger.warning("alert to %s failed: %s", place_of(delivery.url), error)
        return True

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                self.deliver_due()
            except DatabaseUnavailable as error:
                _logger.warning("alerts wait for the database: %s", error)
            except Exception:
                _logger.exception("alerts failed; they are tried again")
                self._stop.wait(10 * LOOK_S)


def send(delivery: Delivery) -> str:
    """Send an alert; return the error, empty if there was none."""
    return _send(delivery.url, f"{delivery.study}: {_TITLES[delivery.kind]}", delivery.text)


def send_test(url: str) -> str:
    """Send a test message; return the error, empty if there was none."""
    return _send(url, "tunesvc", "This is how alerts about your studies arrive.")


def _send(url: str, title: str, text: str) -> str:
    try:
        target = _apprise().Apprise()
        target.add(url)
        if target.notify(title=title, body=text, body_format="text"):
            return ""
    except SpecError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a plug-in of any service; its text may quote secrets
        return f"{type(error).__name__} in Apprise"
    return f"{place_of(url)} did not accept it"


_TITLES = {
    "finished": "finished",
    "failed": "failed",
    "stalled": "a trial stalled",
    "target": "reached its target",
    "budget": "budget nearly spent",
    "promoted": "new champion",
}


def _apprise() -> Any:
    try:
        import apprise
    except ImportError:
        raise SpecError(_EXTRA) from None
    logging.getLogger("apprise").disabled = True  # it logs whole addresses, with their secrets
    return apprise
