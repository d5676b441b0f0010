"""`tune`, `tunesvc` and `python -m tunesvc` are all this."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from tunesvc.cli import app

    app()


if __name__ == "__main__":
    main()
