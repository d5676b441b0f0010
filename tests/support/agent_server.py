"""A server with accounts and a supervisor, in a process: `python -m tests.support.agent_server`.

Arguments: the database's URL and a port. It prints a line once it serves.
"""

from __future__ import annotations

import sys
import threading
from functools import partial

import optuna

from tunesvc.db.engine.database import open_database
from tunesvc.execution.driver.ray_pool import RayPool
from tunesvc.service.served_study import ServedStudy
from tunesvc.service.study_supervisor import StudySupervisor
from tunesvc.web import DashboardServer
from tunesvc.web.binding import Binding


def main(url: str, port: int) -> None:
    """Serve until the process is killed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with open_database(url) as database, RayPool(of_several=True) as rays:
        run = partial(ServedStudy, database=database, make_executor=rays.executor)
        supervisor = StudySupervisor(
            database, lambda study_id, interrupt: run(study_id, interrupt=interrupt)
        )
        with DashboardServer(
            database, accounts=Binding(port=port, behind_proxy="127.0.0.1")
        ) as server:
            supervisor.start()
            sys.stdout.write(f"{server.url}\n")
            sys.stdout.flush()
            threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
