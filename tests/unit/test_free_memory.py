"""Free memory of a machine, within the limit of its container."""

from __future__ import annotations

from pathlib import Path

from tunesvc.preparation.free_memory import free_memory

GIB = 2**30


def test_a_machine_has_what_linux_calls_available(tmp_path: Path) -> None:
    _write(tmp_path, "proc/meminfo", "MemTotal: 9437184 kB\nMemAvailable: 8388608 kB\n")
    assert free_memory(tmp_path) == 8 * GIB


def test_a_container_has_what_its_limit_leaves(tmp_path: Path) -> None:
    _write(tmp_path, "proc/meminfo", "MemAvailable: 8388608 kB\n")
    _write(tmp_path, "sys/fs/cgroup/memory.max", f"{2 * GIB}\n")
    _write(tmp_path, "sys/fs/cgroup/memory.current", f"{GIB}\n")
    _write(tmp_path, "sys/fs/cgroup/memory.stat", f"anon {GIB // 2}\ninactive_file {GIB // 2}\n")
    assert free_memory(tmp_path) == 1.5 * GIB


def test_a_container_of_the_first_version_has_what_its_limit_leaves(tmp_path: Path) -> None:
    _write(tmp_path, "proc/meminfo", "MemAvailable: 8388608 kB\n")
    folder = "sys/fs/cgroup/memory"
    _write(tmp_path, f"{folder}/memory.limit_in_bytes", f"{2 * GIB}\n")
    _write(tmp_path, f"{folder}/memory.usage_in_bytes", f"{GIB}\n")
    _write(tmp_path, f"{folder}/memory.stat", f"inactive_file 7\ntotal_inactive_file {GIB // 2}\n")
    assert free_memory(tmp_path) == 1.5 * GIB


def test_a_container_without_a_limit_has_the_machines(tmp_path: Path) -> None:
    _write(tmp_path, "proc/meminfo", "MemAvailable: 8388608 kB\n")
    _write(tmp_path, "sys/fs/cgroup/memory.max", "max\n")
    assert free_memory(tmp_path) == 8 * GIB


def _write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
