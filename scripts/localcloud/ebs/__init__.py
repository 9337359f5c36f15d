"""EBS direct APIs and the EC2 snapshot side of the local cloud.

``service`` is the transport-free core, ``server`` the process around it, ``plugin`` plugs that process
into the main server, ``testing`` runs one inside a test.
"""
