"""Mistakes that a user's type checker finds. Never run; each line is ignored with the code of its error."""

from discoclient import AsyncDiscoClient, DiscoClient, DiscoOptions, OutlierPolicy, RetryPolicy, register

DiscoClient()  # type: ignore[call-arg]
DiscoClient(7)  # type: ignore[arg-type]
DiscoClient("experiment", "memory://x")  # type: ignore[call-arg]
DiscoClient("experiment", balancer=7)  # type: ignore[arg-type]
DiscoClient("experiment", balancer=object())  # type: ignore[arg-type]
DiscoClient("experiment", retry=OutlierPolicy())  # type: ignore[arg-type]
AsyncDiscoClient("experiment", discovery_timeout="5")  # type: ignore[arg-type]
RetryPolicy(3)  # type: ignore[call-arg]
RetryPolicy(max_attempt=3)  # type: ignore[call-arg]
RetryPolicy().max_attempts = 4  # type: ignore[misc]
OutlierPolicy(max_ejected="half")  # type: ignore[arg-type]
options: DiscoOptions = {"retrys": 1}  # type: ignore[typeddict-unknown-key]
register("experiment", "8000")  # type: ignore[arg-type]
