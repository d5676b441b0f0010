"""Text that commands print besides the live view."""
