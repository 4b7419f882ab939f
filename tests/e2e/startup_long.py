"""First token within 2 s of process start: there is no warm-up. Prints the median of 5 starts; exit 1 when missed."""
import statistics
import time

from serving import Server

LIMIT_S = 2.0
NUM_STARTS = 5

times = []
for _ in range(NUM_STARTS + 1):  # the first one fills the page cache and is not counted
    with Server() as server:
        server.post("/v1/completions", {"prompt": "1 + 1 =", "max_tokens": 1, "temperature": 0})
        times.append(time.monotonic() - server.started)
median = statistics.median(times[1:])
print(f"first token {median:.3f} s after process start (median of {NUM_STARTS}, "
      f"{min(times[1:]):.3f}-{max(times[1:]):.3f}; limit {LIMIT_S})")
raise SystemExit(median > LIMIT_S)
