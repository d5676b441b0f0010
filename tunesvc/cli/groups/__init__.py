"""Groups of commands: `tune db`, `tune token` and so on."""
