"""Live pages: server-sent events, the watcher of database notifications, and the cache of
figures."""
