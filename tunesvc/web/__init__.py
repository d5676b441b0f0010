"""The dashboard: pages of studies in a browser. Reads through `queries` and `charts`, acts through `study_requests`.

    server      a dashboard on this machine: address, key, uvicorn in a thread
    app         the web application, to be mounted anywhere
    access      who somebody is and what they may do: the one place that decides
    guard       what every request and answer has to keep: hosts, origins, headers
    watch       learns which studies have changed
    events      tells open pages so, as server-sent events
    render      templates, and how values look
    pages/      one module per page

Speaks no SQL, and decides nothing about studies.
"""

from tunesvc.web.app import make_app
from tunesvc.web.server import DashboardServer

__all__ = ["DashboardServer", "make_app"]
