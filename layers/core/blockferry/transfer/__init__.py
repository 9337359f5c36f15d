"""The steps of a transfer job, one module per state of the state machine."""
