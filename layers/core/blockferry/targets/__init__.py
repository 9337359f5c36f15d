"""Where blocks are written."""
