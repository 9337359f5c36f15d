"""Archives of snapshots in S3, as docs/archive-format.md specifies them byte by byte. Pure: no AWS in here."""
