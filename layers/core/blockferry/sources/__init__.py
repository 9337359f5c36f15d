"""Where blocks are read: one module per source."""
