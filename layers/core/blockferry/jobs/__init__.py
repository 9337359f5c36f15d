"""What a job leaves in the work bucket."""
