"""One base graph and many adapters: small files that give a base its tasks at run time, without building anything."""

from deploy.multi.bundle import export_multi
from deploy.multi.manifest import MultiManifest, verify_multi
from deploy.multi.task import Task
from deploy.multi.tasks import load_tasks

__all__ = ["MultiManifest", "Task", "export_multi", "load_tasks", "verify_multi"]
