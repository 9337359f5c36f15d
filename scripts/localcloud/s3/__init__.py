"""What the local cloud's S3 does otherwise than the base: see ``localcloud.s3.plugin``."""
