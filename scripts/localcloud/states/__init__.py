"""Step Functions execution for the local cloud: the engine behind ministack's state machine store."""
