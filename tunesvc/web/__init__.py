"""The dashboard: pages of studies in a browser. Reads through `queries` and `charts`, acts through
`study_requests`.

    server      a dashboard on this machine: address, key, uvicorn in a thread
    app         the web application, to be mounted anywhere
    access              authentication and permissions, in this one place
    available_actions   actions that are possible for a study or a trial
    forms               form fields to requests
    render              templates, and the formatting of values
    live/               changes of studies as server-sent events, and the cache of figures
    middleware/         security checks, error pages, static files
    pages/              one module per page

Contains no SQL, and makes no decisions about studies.
"""

from tunesvc.web.app import make_app
from tunesvc.web.server import DashboardServer

__all__ = ["DashboardServer", "make_app"]
