"""When verbs run, and again after a failure: the durable chain ingest -> verify -> process -> ingest result.

with open_workflow(facility) as work:
    job = work.submit_ingest(path, experiment_id=..., principal=...)
    outcome = work.wait(job)
"""

from lightkeep.workflow.orchestrator import Job, Orchestrator, open_workflow

__all__ = ["Job", "Orchestrator", "open_workflow"]
