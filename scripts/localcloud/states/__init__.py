"""Step Functions execution for the local cloud: the engine behind ministack's state machine store.

How the modules hang together, from the outside in: ``plugin`` hooks into the base; ``machine_store`` checks
and resolves state machines; ``api`` speaks the service's JSON; ``engine`` starts, stops and redrives;
``interpreter`` walks the states, with ``tasks``, ``branching`` and ``distributed`` for those that do work;
``services`` are the seams to the world, which ``aws_invoker``, ``lambda_calls`` and ``aws_objects`` fill with
the local cloud's own APIs and ``testing`` with Python callables. ``validate`` needs none of that.

What it is faithful to: standard workflows in JSONata with all state types, Distributed Map with Map Runs,
Retry and Catch, timeouts, callbacks, nested executions, redrive, histories, the payload, history and name
quotas, status change events.

What it refuses when a definition is created: JSONPath, activities, Parquet and Athena datasets, other
optimized integrations than those in ``resources``, and every field it does not know.

What it does not have: log delivery to CloudWatch Logs, metrics, X-Ray traces, API rate limits, KMS
encryption of histories; and a map runs at most ``max_workers`` children at a time, whatever it allows.
"""
