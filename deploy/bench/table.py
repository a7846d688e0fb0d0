"""A bundle's numbers as Markdown tables."""

from collections.abc import Sequence

from deploy.bench.coverage import XNNPACK
from deploy.bench.measure import FileBench

_TOP = 4


def bench_table(rows: Sequence[FileBench]) -> str:
    """Return three tables: speed and size, where the time goes, what accelerators would take."""
    return "\n\n".join([_speed(rows), _operators(rows), _accelerators(rows)]) + "\n"


def _speed(rows: Sequence[FileBench]) -> str:
    heads = [f"{each.threads} thread{'s' * (each.threads > 1)}" for each in rows[0].latency]
    times = [f"{head}: median, p95 [ms]" for head in heads]
    lines = _head("bundle", "file", "size [MB]", "load [ms]", *times, "beside the first", "peak [MiB]", "model [MiB]")
    reference = rows[0].latency[0].median_ms
    for row in rows:
        cells = [f"{each.median_ms:.3f}, {each.p95_ms:.3f}" for each in row.latency]
        ratio = f"{row.latency[0].median_ms / reference:.2f}"
        memory = [f"{row.probe.peak_mib:.0f}", f"{row.probe.model_mib:.1f}"]
        lines.append(
            _line(row.bundle, row.file, f"{row.size_mb:.3f}", f"{row.probe.load_ms:.1f}", *cells, ratio, *memory)
        )
    return "\n".join(lines)


def _operators(rows: Sequence[FileBench]) -> str:
    lines = _head("bundle", "file", "operators by time")
    for row in rows:
        shares = list(row.operators.items())
        told = [f"{name} {100 * share:.0f} %" for name, share in shares[:_TOP]]
        rest = sum(share for _, share in shares[_TOP:])
        lines.append(_line(row.bundle, row.file, ", ".join(told) + (f", others {100 * rest:.0f} %" if rest else "")))
    return "\n".join(lines)


def _accelerators(rows: Sequence[FileBench]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row.coverage))
    lines = _head(
        "bundle",
        "file",
        *(f"{name}: partitions, nodes" if name != XNNPACK else f"{name}: nodes, at most" for name in names),
    )
    for row in rows:
        cells = []
        for name in names:
            found = row.coverage.get(name)
            partitions = "" if found is None or name == XNNPACK else f"{found.partitions}, "
            cells.append("-" if found is None else f"{partitions}{100 * found.share:.0f} %")
        lines.append(_line(row.bundle, row.file, *cells))
    note = (
        "Were all shapes fixed. Qualcomm's QNN has no checker: `python -m deploy check BUNDLE --on qnn` counts nodes."
    )
    return "\n".join([*lines, "", note])


def _head(*names: str) -> list[str]:
    return [_line(*names), "|" + "---|" * len(names)]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
