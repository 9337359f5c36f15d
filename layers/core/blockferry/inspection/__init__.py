"""What is in snapshots, what differs between them, and what each way to copy or keep them would cost."""
