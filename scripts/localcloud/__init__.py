"""The embedded local cloud: a stand-in for AWS on one machine.

ministack serves the services that it serves well; EBS direct with the EC2 snapshot side, Lambda,
Step Functions and the events of snapshots are our own and are plugged into it (see ``host``).
"""
