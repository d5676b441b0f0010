"""What commands print beside the live view."""
