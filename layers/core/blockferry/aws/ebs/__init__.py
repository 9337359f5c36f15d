"""The EBS direct APIs: signing, transport, the six operations with their retry budget."""
