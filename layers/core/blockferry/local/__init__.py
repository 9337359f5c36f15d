"""What happens on this machine, without a state machine."""
