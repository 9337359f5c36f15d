"""Lambda for the local cloud: every execution environment is an operating system process of its own.

``plugin`` hooks it into the base; ``pool`` decides which environment serves an invocation; ``environment``
is one process with its Runtime API; ``packages`` unpacks code and layers; ``faults`` breaks things on demand.

What differs from Lambda, on purpose or because a laptop has no other way:

- The Python is the one of this checkout's environment, whatever ``Runtime`` says; other runtimes are refused, and
  so are compiled modules for another Python or processor.
- Code and layers lie in folders of the data directory, shared by the environments of a function, not in
  ``/var/task`` and ``/opt``; they are not mounted read-only. ``/tmp`` is the folder that ``TMPDIR`` names.
- Imports see the task folder, the layers, what Lambda's own runtime ships (awslambdaric, boto3 and what they
  need) and the standard library, in Lambda's order; nothing else of this checkout's packages.
- Memory is limited by watching the process, so an allocation may pass the limit for some milliseconds, and
  memory of processes that a handler starts is not counted; the size of ``/tmp`` and the CPU are not limited.
- Initialisation that takes longer than 10 seconds is not restarted; it goes on within the function's timeout.
- Client context, extensions, response streaming, SnapStart and provisioned concurrency do not exist.
"""
