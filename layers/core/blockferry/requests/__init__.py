"""What operators send, one module for each kind of job, made of shared parts."""
