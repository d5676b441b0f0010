"""The Postgres that tunesvc starts itself: binaries, account, data directory, lock."""
