"""Whether a request is one that the service's own model allows, before anything is done with it.

botocore's service models say of every member whether it has to be there, how long or large it may be, which pattern
it has to match and which values there are. AWS refuses what breaks them; botocore itself looks at a few of these only,
and neither the base of the local cloud nor moto looks at them at all. Here every request is read by its protocol
(``json``, ``rest-json``, ``rest-xml``, ``query``, ``ec2``, RPC v2 with CBOR) and compared with the model, whatever the
service. ``models.Models`` is the way in.
"""
