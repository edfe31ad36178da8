"""The verbs: one verb, one file; each idempotent, each on behalf of a principal. In rooms:

people ── experiments, proposals, what they set up
intake ── what was measured becomes a dataset; acquisitions ── while it is measured
replicas ── copies, verified, repaired, archived, brought back; retention ── how long they stay, and how they go
processing ── runs, flows, results; pictures ── what a dataset looks like
health ── doctor, guards, drill; capacity ── usage and forecast; upkeep and the outbox serve all of them
"""
