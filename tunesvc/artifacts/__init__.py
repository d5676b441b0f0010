"""Files that rows name by their hash: snapshots of folders and checkpoints, on any object store."""
