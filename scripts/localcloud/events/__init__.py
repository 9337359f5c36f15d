"""EventBridge rules and EventBridge Scheduler of the local cloud: when things happen, and delivery to targets.

The base keeps rules, buses and schedules, and matches patterns. Ours are the schedule expressions and the clock they
run by, input transformation, delivery with retries, dead letters and faults, and idempotent creation.
"""
