"""What the kernel says of this process."""

from __future__ import annotations


def peak_rss_bytes() -> int:
    """The largest resident size of this process so far (VmHWM: unlike getrusage, it does not count what was before exec)."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")), 0)
