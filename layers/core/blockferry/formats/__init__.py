"""Bytes of disk images: what is recognised, and how it is unpacked piece by piece. Pure."""
