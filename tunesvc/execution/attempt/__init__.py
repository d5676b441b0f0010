"""An attempt inside its worker: events, output, checkpoints, child processes, failures."""
