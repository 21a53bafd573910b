"""What the scripts that measure a running server share."""
