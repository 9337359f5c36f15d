"""Disk images in S3: where they are, how they are read, and how compressed ones are unpacked."""
