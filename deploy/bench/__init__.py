"""How a bundle's files perform: loading, latency, memory, size, where the time goes, what accelerators would take."""

from deploy.bench.measure import BenchOptions, FileBench, bench
from deploy.bench.table import bench_table

__all__ = ["BenchOptions", "FileBench", "bench", "bench_table"]
