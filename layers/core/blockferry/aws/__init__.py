"""AWS as this software uses it: identities and clients, EBS direct, snapshots in EC2, objects in S3, errors."""
