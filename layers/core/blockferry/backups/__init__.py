"""The machines that look after backups by tag: what they find in AWS, what they do there, and their reports."""
