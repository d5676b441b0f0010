"""`tune`, `tunesvc` and `python -m tunesvc` are all this."""

from __future__ import annotations

import gc


def main() -> None:
    """Run the command line."""
    # Imports make objects that stay. Python's usual collections among them take 7 % of a short
    # command's time.
    gc.set_threshold(20_000, 20, 20)
    from tunesvc.cli import app

    app()


if __name__ == "__main__":
    main()
