"""Where blocks are written: one module per sink."""
