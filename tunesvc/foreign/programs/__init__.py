"""Programs with options, read without being run: argparse, click and typer."""
