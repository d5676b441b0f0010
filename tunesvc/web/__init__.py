"""The web application: pages in a browser, and the API of a server. Reads through `queries` and
`charts`, acts through `study_requests` and `client`.

    server              a server in a thread: a dashboard on this machine, or one with accounts
    app                 the application, to be mounted anywhere
    binding             where a server listens, and which proxy it believes
    access              authentication and permissions, in this one place
    account_access      the same by accounts: tokens, roles, projects
    identity_provider   signing in at a team's OpenID Connect provider
    audit_trail         who changed or tried what
    rate_limits         limits on failures and requests
    available_actions   actions that are possible for a study or a trial
    forms               form fields to requests
    render              templates, and the formatting of values
    api/                the HTTP API
    live/               changes of studies as server-sent events, and the cache of figures
    middleware/         the named proxy, security checks, error pages, static files
    pages/              one module per page

Contains no SQL, and makes no decisions about studies.
"""

from tunesvc.web.app import make_app
from tunesvc.web.server import DashboardServer

__all__ = ["DashboardServer", "make_app"]
